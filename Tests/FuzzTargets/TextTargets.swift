// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import SyncEngine
internal import WireProtocol

/// The byte chooses the record.
func fuzzJSON(_ bytes: UnsafeRawBufferPointer, _ choice: UInt8) {
    switch choice % 10 {
    case 0: decode(ServerRecord.self, bytes)
    case 1: decode(ExportList.self, bytes)
    case 2: _ = try? decode(ExportRecord.self, bytes)?.check()
    case 3:
        let request = decode(SessionRequest.self, bytes)
        if let source = request?.source { _ = try? source.facts(boot: source.host?.boot) }
    case 4:
        guard let record = decode(SessionRecord.self, bytes) else { return }
        _ = try? record.content.content()
        for mode in [SessionRequest.Mode.read, .write, .dryRun] {
            var request = SessionRequest(mode: mode, block: 4096, digest: "sha256", key: nil)
            request.source = SourceRecord(
                SourceFacts(
                    name: "x", size: 1 << 60, content: .empty, logicalSector: nil, identity: nil),
                boot: nil)
            guard (try? record.check(against: request)) != nil else { continue }
            require(record.size <= 1 << 60 && record.resizeTo ?? 0 <= 1 << 60, "no larger size")
            require(BlockLayout.isBlock(record.block), "blocks that can be")
            require(record.region == BlockLayout(block: record.block).region, "their regions")
        }
    case 5: decode(CommitRequest.self, bytes)
    case 6:
        guard let problem = decode(Problem.self, bytes) else { return }
        let (refusal, error) = (problem.refusal(of: "x"), problem.deviceError(of: "x"))
        require(refusal == nil || error == nil, "a refusal or an error, not both")
        require(refusal?.object ?? "x" == "x", "the name that the client's user gave")
        require(error?.object ?? "x" == "x", "the name that the client's user gave")
    case 7:
        guard let record = decode(ContentRecord.self, bytes),
            let content = try? record.content()
        else { return }
        let again = try? ContentRecord(content).content()
        require(again == content, "the same content again")
    case 8:
        guard let facts = try? decode(SourceRecord.self, bytes)?.facts(boot: nil) else { return }
        let places = facts.content.found.flatMap(\.places)
        require(places.allSatisfy { (0...1 << 60).contains($0) }, "signatures within a device")
    default: decode(HostRecord.self, bytes)
    }
}

/// Decodes a record; what is encoded from it must decode to what encodes the same.
@discardableResult
private func decode<Record: Codable>(
    _ type: Record.Type, _ bytes: UnsafeRawBufferPointer
) -> Record? {
    guard let record = try? WireJSON.decode(type, from: bytes) else { return nil }
    let once = WireJSON.encode(record)
    let again = once.withUnsafeBytes { try? WireJSON.decode(type, from: $0) }
    guard let again else { fatalError("broken promise: what is encoded can be decoded") }
    require(WireJSON.encode(again) == once, "the same JSON again")
    return record
}

/// The byte chooses the size of the content.
func fuzzRange(_ header: String, _ choice: UInt8) {
    let size = [0, 1, 500, 1 << 40, Int.max][Int(choice) % 5]
    if case .part(let range) = RangeRequest(header, size: size) {
        require(!range.isEmpty && range.end <= size, "a part of the content")
        let same = RangeRequest("bytes=\(range.offset)-\(range.end - 1)", size: size)
        require(same == .part(range), "the same range again")
    }
    // The same text as a list of entity tags.
    let tag = "\"x\""
    let conditions = Preconditions(ifMatch: header, ifNoneMatch: header, ifRange: header)
    if conditions.allowsRange(tag: tag) {
        require(conditions.verdict(tag: tag) == .notModified, "a strong tag is a weak one as well")
    }
    require(!conditions.allowsRange(tag: nil), "without a tag there is none to agree with")
}

func fuzzExportsFile(_ text: String) {
    guard var exports = try? exports(inFile: text, named: "f") else { return }
    var lines: [String] = []
    for index in exports.indices {
        require(!exports[index].text.isEmpty, "an export that names something")
        lines.append(exports[index].line)
        exports[index].hasAccess = true
    }
    let again = try? WireProtocol.exports(inFile: lines.joined(separator: "\n"), named: "f")
    require(again == exports, "the same exports again")
}

func fuzzTokensFile(_ text: String) {
    guard let entries = try? tokens(inFile: text, named: "f") else { return }
    require(Set(entries.map(\.name)).count == entries.count, "a name stands once")
    require(entries.allSatisfy { $0.selectors?.isEmpty != true }, "no selectors are all")
    require(entries.allSatisfy { $0.origins?.isEmpty != true }, "no origins are all")
    // All of a line except its dates and addresses, which have several forms.
    let lines = entries.map { entry in
        let digest = entry.digest.map { "sha256:" + hexadecimal($0) }
        let user = entry.user.map { "user:\($0)" }
        let holder = entry.token ?? digest ?? user ?? "-"
        var words = [entry.name, holder, entry.access.rawValue]
        if let size = entry.maximumSize { words.append("max-size=\(size)") }
        if entry.isAppendOnly { words.append("append-only") }
        // A group named like an option has `/*` behind it.
        words += (entry.selectors ?? []).map { selector in
            selector.group.map { "\($0)/*" } ?? selector.name
        }
        return words.joined(separator: " ")
    }
    let expected = entries.map { entry in
        var entry = entry
        entry.expires = nil
        entry.origins = nil
        return entry
    }
    let again = try? tokens(inFile: lines.joined(separator: "\n"), named: "f")
    require(again == expected, "the same entries again")
}

/// As a location, as a path with percent triplets, and as the target of a request line.
func fuzzLocation(_ text: String) {
    if let location = try? Location(text), case .remote(let remote) = location {
        guard case .remote(let whole) = try? Location(remote.server) else {
            fatalError("broken promise: a server is a location")
        }
        require(whole.server == remote.server, "the same server again")
        guard let selector = remote.selector else { return }
        require(!selector.isEmpty, "a selector that names something")
        let isPath = selector.utf8.first == UInt8(ascii: "/")
        let bare = isPath ? String(selector.unicodeScalars.dropFirst()) : selector
        // The short form of a unix socket has no path behind it.
        let root = remote.socket.map { "http+unix://" + percentEncoded($0) } ?? remote.server
        let again = try? Location("\(root)/\(percentEncoded(bare))")
        guard case .remote(let same) = again else { fatalError("broken promise: it is a URL") }
        require(same.selector == selector, "the same selector again")
        require(same.server == remote.server, "the same server again")
        check(.device(selector))
    }
    if let decoded = percentDecoded(text) {
        require(percentDecoded(percentEncoded(decoded)) == decoded, "the same text again")
    }
    if let route = Route(text) { check(route) }
    if let call = PdiffcopyCall(text) {
        require(PdiffcopyCall(call.path) == call || call.path.utf8.count > 8192, "the same again")
    }
}

/// A path that is too long for a request is none.
private func check(_ route: Route) {
    require(Route(route.path) == route || route.path.utf8.count > 8192, "the same route again")
}

/// As the query of each of pdiffcopy's endpoints.
func fuzzPdiffcopyQuery(_ text: String) {
    for endpoint in PdiffcopyCall.Endpoint.allCases {
        guard let call = PdiffcopyCall("/\(endpoint.rawValue)?\(text)") else { continue }
        require(Route(call.path) == nil, "it is pdiffcopy's alone")
        require(PdiffcopyCall(call.path) == call, "the same call again")
        if let number = try? call.number("size", in: 1...1 << 40) {
            require((1...1 << 40).contains(number), "a number within its range")
            let again = PdiffcopyCall(endpoint, query: "size=\(number)")
            require((try? again.number("size", in: 1...1 << 40)) == number, "the same number")
        }
        for name in ["filename", "method"] {
            guard let value = try? call.text(name) else { continue }
            require(!value.utf8.contains(0), "no NUL, at which C would stop reading")
            let again = PdiffcopyCall(endpoint, query: "\(name)=\(percentEncoded(value))")
            guard let same = try? again.text(name) else {
                fatalError("broken promise: what is encoded can be decoded")
            }
            require(same.utf8.elementsEqual(value.utf8), "the same text again")
        }
        if let path = try? call.filename() {
            require(path.utf8.first == UInt8(ascii: "/"), "an absolute path")
        }
    }
}

/// A mapfile, which may be from another program; a plan for it must end.
func fuzzRescueMap(_ bytes: UnsafeRawBufferPointer) {
    guard let map = try? RescueMap(bytes) else { return }
    require(map.size <= 1 << 60, "no larger size")
    var end = 0
    for area in map.areas {
        require(area.range.offset == end && !area.range.isEmpty, "areas without gaps")
        end = area.range.end
    }
    require((try? RescueMap(map.text)) == map, "the same map again")
    guard map.size > 0, map.size <= 1 << 24 else { return }
    var plan = RescuePlan(map, unit: 4096, window: 1 << 20, isReversed: map.pass % 2 == 0)
    while let range = plan.next() {
        require(range.offset % 4096 == 0 && range.end <= map.size, "pieces within the device")
        plan.note(range.offset % 3 == 0 ? .failed : range.offset % 5 == 0 ? .late : .read)
    }
    require(plan.map.bytes(.finished) >= map.bytes(.finished), "nothing is lost")
}
