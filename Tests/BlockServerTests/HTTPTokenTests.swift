// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockServer
import TestSupport
import Testing
import WireProtocol

/// What each credential may do with each export: every cell.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPTokenTests {
    private let scratch: ScratchDirectory
    private let server: TestServer
    /// For pdiffcopy: what its requests begin ends by silence alone.
    private let ofPdiffcopy: TestServer
    private let size = 1 << 20

    private enum Credential: String, CaseIterable {
        case none, wrong, everything, readOnly, one, oneReadOnly, directory, nothing
        /// Everything, but for one word of the line; `atRest` has a digest there.
        case expired, notYetExpired, fromElsewhere, fromHere, appendOnly, maxSize, atRest

        var header: [String] {
            self == .none ? [] : ["Authorization: Bearer \(token)"]
        }

        var token: String { "token-\(rawValue)-of-enough-characters" }
    }

    private enum Operation: CaseIterable {
        case show, content, head, read, dryRun, write, cut
        case pdiffcopyInfo, pdiffcopyHashes, pdiffcopyRead, pdiffcopyWrite, pdiffcopyResize
        case pdiffcopyCut
    }

    /// What a request has besides.
    private enum Circumstance: String, CaseIterable {
        case program = "Accept: */*"
        case ownPage = "Sec-Fetch-Site: same-origin"
        case foreignOrigin = "Origin: https://evil.example"
        case foreignSite = "Sec-Fetch-Site: cross-site"

        var isForeign: Bool { self == .foreignOrigin || self == .foreignSite }
    }

    /// `rw` and `ro` are exported by themselves, `inside` is in a directory that is exported `rw`.
    private enum Export: String, CaseIterable {
        case rw, ro, inside
    }

    init() throws {
        let scratch = try ScratchDirectory()
        self.scratch = scratch
        try must("mkdir", scratch.file("images"))
        for name in ["rw", "ro", "images/inside"] {
            try makeImage(scratch.file(name), [UInt8](repeating: 7, count: 1 << 20))
        }
        func entry(
            _ credential: Credential, _ access: ExportAccess, _ selectors: String...
        ) throws -> TokenEntry {
            TokenEntry(
                name: credential.rawValue, token: credential.token, access: access,
                selectors: selectors.isEmpty
                    ? nil : try selectors.map { try ExportSelector(scratch.file($0)) })
        }
        func line(_ credential: Credential, _ word: String) throws -> TokenEntry {
            try TokenEntry(line: "\(credential) \(credential.token) \(word)")
        }
        let tokens = [
            try entry(.everything, .readWrite), try entry(.readOnly, .readOnly),
            try entry(.one, .readWrite, "rw"), try entry(.oneReadOnly, .readOnly, "rw"),
            try entry(.directory, .readWrite, "images/"),
            try entry(.nothing, .readWrite, "elsewhere"),
            try line(.expired, "expires=2001-01-01"),
            try line(.notYetExpired, "expires=2999-01-01"),
            try line(.fromElsewhere, "from=192.0.2.0/24,2001:db8::/32"),
            try line(.fromHere, "from=192.0.2.0/24,127.0.0.0/8"),
            try line(.appendOnly, "append-only"), try line(.maxSize, "max-size=3M"),
            try TokenEntry(
                line: "\(Credential.atRest) \(try TokenEntry.atRest(Credential.atRest.token))"),
        ]
        func start() throws -> TestServer {
            try TestServer(
                scratch.file("rw") + ":rw", scratch.file("ro"), scratch.file("images/") + ":rw"
            ) { $0.tokens = tokens }
        }
        server = try start()
        ofPdiffcopy = try start()
    }

    private func path(_ export: Export) -> String {
        scratch.file(export == .inside ? "images/inside" : export.rawValue)
    }

    /// Status of an operation.
    private func perform(
        _ operation: Operation, _ export: Export, _ headers: [String]
    ) throws -> Int {
        let path = path(export)
        func open(_ mode: SessionRequest.Mode, size: Int) throws -> Int {
            let body = WireJSON.encode(Wire.sessionRequest(mode, size: size))
            let answer = try server.ask(
                "POST", Route.sessions(device: path).path, [Wire.json] + headers, body: body)
            if answer.status == 201 {
                let id = try answer.decoded(as: SessionRecord.self).session
                #expect(
                    try server.ask("DELETE", Route.session(id).path, headers).status == 204)
            }
            return answer.status
        }
        switch operation {
        case .show: return try server.ask("GET", Route.device(path).path, headers).status
        case .content: return try server.ask("GET", Route.content(path).path, headers).status
        case .head: return try server.ask("HEAD", Route.content(path).path, headers).status
        case .read: return try open(.read, size: size)
        case .dryRun: return try open(.dryRun, size: size)
        case .write: return try open(.write, size: size)
        // The commit would cut it, which does not come.
        case .cut: return try open(.write, size: size / 2)
        case .pdiffcopyInfo, .pdiffcopyHashes, .pdiffcopyRead, .pdiffcopyWrite, .pdiffcopyResize,
            .pdiffcopyCut:
            return try performOfPdiffcopy(operation, path, headers)
        }
    }

    /// The status of a request that begins a session, which then ends by silence.
    private func performOfPdiffcopy(
        _ operation: Operation, _ path: String, _ headers: [String]
    ) throws -> Int {
        func ask(_ method: String, _ endpoint: String, body: [UInt8]? = nil) throws -> Int {
            let target = endpoint.replacing("?", with: "?filename=\(percentEncoded(path))&")
            return try ofPdiffcopy.ask(method, target, headers, body: body).status
        }
        defer { #expect(becomesTrue { ofPdiffcopy.endSilentSessions() }) }
        switch operation {
        case .pdiffcopyInfo: return try ask("GET", "/info?")
        case .pdiffcopyHashes: return try ask("GET", "/hashes?method=sha1")
        case .pdiffcopyRead: return try ask("GET", "/blocks?offset=1&size=2")
        case .pdiffcopyWrite:
            return try ask("POST", "/blocks?offset=4096", body: [UInt8](repeating: 7, count: 4096))
        case .pdiffcopyCut:
            let status = try ask("POST", "/resize?size=\(size / 2)")
            if status == 200 { #expect(try ask("POST", "/resize?size=\(size)") == 200) }
            return status
        default: return try ask("POST", "/resize?size=\(size)")
        }
    }

    private func expected(
        _ credential: Credential, _ export: Export, _ operation: Operation
    ) -> Int {
        let seen: [Export]
        switch credential {
        case .none, .wrong, .expired, .fromElsewhere: return 401
        case .everything, .readOnly, .notYetExpired, .fromHere, .appendOnly, .maxSize, .atRest:
            seen = Export.allCases
        case .one, .oneReadOnly: seen = [.rw]
        case .directory: seen = [.inside]
        case .nothing: seen = []
        }
        guard seen.contains(export) else { return 404 }
        let mayWrite = export != .ro && ![.readOnly, .oneReadOnly].contains(credential)
        let mayCut = mayWrite && credential != .appendOnly
        switch operation {
        case .cut: return mayCut ? 201 : 403
        case .pdiffcopyCut: return mayCut ? 200 : 403
        case .show, .content, .head, .pdiffcopyInfo, .pdiffcopyHashes, .pdiffcopyRead: return 200
        case .pdiffcopyWrite, .pdiffcopyResize: return mayWrite ? 200 : 403
        case .read: return 201
        case .dryRun, .write: return mayWrite ? 201 : 403
        }
    }

    @Test func `every credential has exactly its rights on every export`() throws {
        for credential in Credential.allCases where credential != .wrong {
            for export in Export.allCases {
                for operation in Operation.allCases {
                    #expect(
                        try perform(operation, export, credential.header)
                            == expected(credential, export, operation),
                        "\(credential) \(export) \(operation)")
                }
            }
        }
    }

    @Test func `a page of another site gets 403 everywhere, whatever the credential`() throws {
        for circumstance in Circumstance.allCases where circumstance != .program {
            for credential in Credential.allCases where credential != .wrong {
                for operation in Operation.allCases {
                    let headers = credential.header + [circumstance.rawValue]
                    // What may be asked has been in the table above; here it is one of each kind.
                    guard circumstance.isForeign || operation == .show else { continue }
                    #expect(
                        try perform(operation, .rw, headers)
                            == (circumstance.isForeign
                                ? 403 : expected(credential, .rw, operation)),
                        "\(circumstance) \(credential) \(operation)")
                }
            }
            #expect(
                try server.ask(
                    "GET", "/v1", Credential.wrong.header + ["Origin: https://evil.example"]
                ).status == 403)
        }
        #expect(server.log.all(with: "wrong token").isEmpty)
    }

    @Test func `a wrong token is refused everywhere, waits longer each time, and is never logged`()
        throws
    {
        let clock = ContinuousClock()
        let start = clock.now
        for path in [Route.info.path, Route.devices.path, "/nowhere"] {
            let answer = try server.ask("GET", path, Credential.wrong.header)
            #expect(answer.status == 401 && answer.problem == .unauthorized)
            #expect(answer.headers["www-authenticate"]?.hasPrefix("Bearer") == true)
            #expect(answer.headers["connection"] == "close")
        }
        // Half a second, one, two.
        #expect(clock.now - start >= .milliseconds(3500))
        #expect(server.log.all(with: "wrong token").count == 1)
        #expect(server.log.all.allSatisfy { !$0.contains(Credential.wrong.token) })
        // Who is right does not wait for who was wrong.
        #expect(
            try server.ask("GET", Route.info.path, Credential.everything.header).status == 200)
    }

    @Test func `a request without a token is 401 everywhere but at the page`() throws {
        for path in [
            "/", "/metrics", "/v1/status", "/v1", "/v1/devices", "/v1/devices/x", "/v1/sessions/x",
            "/nowhere", "/info",
            "/hashes?filename=/x", "/blocks?filename=/x", "/resize?filename=/x&size=1",
        ] {
            for method in ["GET", "POST", "DELETE", "PUT"] where (method, path) != ("GET", "/") {
                #expect(try server.ask(method, path).status == 401, "\(method) \(path)")
            }
        }
    }

    @Test(arguments: [
        ("everything", 3, 1), ("readOnly", 3, 1), ("one", 1, 0), ("oneReadOnly", 1, 0),
        ("directory", 1, 1), ("nothing", 0, 0), ("appendOnly", 3, 1), ("atRest", 3, 1),
    ])
    func `a list shows only the exports of its token`(
        name: String, devices: Int, directories: Int
    ) throws {
        let credential = try #require(Credential(rawValue: name))
        let list = try server.ask("GET", Route.devices.path, credential.header)
            .decoded(as: ExportList.self)
        #expect(list.devices.count == devices && list.directories.count == directories)
        if [.readOnly, .oneReadOnly].contains(credential) {
            #expect(list.devices.allSatisfy { $0.access == .readOnly })
            #expect(list.directories.allSatisfy { $0.access == .readOnly })
        }
    }

    @Test func `a session belongs to its token alone`() throws {
        let body = WireJSON.encode(Wire.sessionRequest(.write, size: size))
        let sessions = Route.sessions(device: path(.rw)).path
        let record = try server.ask(
            "POST", sessions, [Wire.json] + Credential.one.header, body: body
        ).decoded(as: SessionRecord.self)
        for credential in [Credential.everything, .oneReadOnly, .nothing] {
            let answer = try server.ask(
                "GET", Route.session(record.session).path, credential.header)
            #expect(answer.status == 404 && answer.problem == .noSession)
            #expect(
                try server.ask(
                    "DELETE", Route.session(record.session).path, credential.header
                ).status == 404)
        }
        #expect(
            try server.ask("GET", Route.session(record.session).path, Credential.one.header)
                .status == 200)
        let locked = try server.ask(
            "POST", sessions, [Wire.json] + Credential.everything.header, body: body)
        #expect(locked.status == 423)
        #expect(server.log.all(with: "client=one").count == 1)
    }

    @Test func `an image is created where the token sees the directory, and nowhere else`() throws {
        let body = WireJSON.encode(Wire.sessionRequest(.write, size: size))
        func create(_ name: String, _ credential: Credential) throws -> Int {
            let answer = try server.ask(
                "POST", Route.sessions(device: scratch.file(name)).path,
                [Wire.json] + credential.header, body: body)
            if answer.status == 201 {
                let id = try answer.decoded(as: SessionRecord.self).session
                _ = try server.ask("DELETE", Route.session(id).path, credential.header)
            }
            return answer.status
        }
        #expect(try create("images/new-1", .one) == 404)
        #expect(try create("images/new-2", .readOnly) == 403)
        #expect(try create("images/../new-3", .directory) == 404)
        #expect(try create("images/new-4", .directory) == 201)
        #expect(try create("images/new-5", .everything) == 201)
    }

    @Test func `new tokens and exports take effect at once, and sessions go on`() throws {
        let body = WireJSON.encode(Wire.sessionRequest(.write, size: size))
        let record = try server.ask(
            "POST", Route.sessions(device: path(.rw)).path,
            [Wire.json] + Credential.one.header, body: body
        ).decoded(as: SessionRecord.self)
        try server.server.replace(
            exports: [try ExportSelector(path(.ro)), try ExportSelector(path(.rw) + ":rw")],
            tokens: [TokenEntry(name: "one", token: Credential.one.token)])
        let data = [UInt8](repeating: 9, count: 4096)
        #expect(
            try server.ask(
                "POST", Route.write(session: record.session).path,
                [Wire.frames] + Credential.one.header, body: try Wire.write(data, at: 8192)
            ).status == 204)
        #expect(try perform(.show, .inside, Credential.one.header) == 404)
        #expect(try perform(.show, .ro, Credential.one.header) == 200)
        #expect(try server.ask("GET", "/v1", Credential.everything.header).status == 401)
    }

    @Test func `no body is read from a client that may not send it`() throws {
        let free = server.server.freeMemory
        let connection = try HTTPConnection(port: server.port)
        try connection.send(
            Array(
                ("POST \(Route.write(session: "x").path) HTTP/1.1\r\nHost: localhost\r\n"
                    + "\(Wire.frames)\r\nContent-Length: 2000000\r\n\r\n").utf8))
        #expect(try connection.answer().status == 401)
        #expect(server.server.freeMemory == free)
    }
}
