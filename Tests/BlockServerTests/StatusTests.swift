// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Digests
import Foundation
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// The page, its record and the metrics: who sees what of whom.
@Suite(.blocking, .timeLimit(.minutes(60))) struct StatusTests {
    private let scratch: ScratchDirectory
    private let one: SeededImage
    private let other: SeededImage
    private let server: TestServer
    private static let size = 4 << 20

    private enum Client: String, CaseIterable {
        case everything, ofOne
        var header: [String] { ["Authorization: Bearer \(token)"] }
        var token: String { "token-\(rawValue)-of-enough-characters" }
    }

    init() throws {
        scratch = try ScratchDirectory()
        one = try SeededImage(scratch, "one.img", size: Self.size)
        other = try SeededImage(scratch, "other.img", size: Self.size, seed: 2)
        let tokens = [
            TokenEntry(name: "everything", token: Client.everything.token),
            TokenEntry(
                name: "of-one", token: Client.ofOne.token, access: .readOnly,
                selectors: [try ExportSelector(one.path)]),
        ]
        server = try TestServer(one.path + ":rw", other.path + ":rw") { $0.tokens = tokens }
    }

    private func ask(
        _ path: String, _ client: Client = .everything, on server: TestServer? = nil
    ) throws -> HTTPAnswer {
        try (server ?? self.server).ask("GET", path, client.header)
    }

    private func status(_ client: Client = .everything) throws -> StatusRecord {
        try ask("/v1/status", client).decoded(as: StatusRecord.self)
    }

    private func open(
        _ image: SeededImage, _ mode: SessionRequest.Mode, _ client: Client = .everything
    ) throws -> String {
        let body = WireJSON.encode(Wire.sessionRequest(mode, size: Self.size))
        let answer = try server.ask(
            "POST", Route.sessions(device: image.path).path, [Wire.json] + client.header, body: body
        )
        try #require(answer.status == 201, "\(answer.text)")
        return try answer.decoded(as: SessionRecord.self).session
    }

    private func send(_ route: Route, _ frame: [UInt8]) throws {
        let answer = try server.ask(
            "POST", route.path, [Wire.frames] + Client.everything.header, body: frame)
        try #require(answer.status < 300, "\(answer.text)")
    }

    private func end(_ session: String, _ client: Client = .everything) throws {
        let answer = try server.ask("DELETE", Route.session(session).path, client.header)
        try #require(answer.status == 204)
    }

    @Test func `every client gets the same page, which holds nothing of the server`() throws {
        let page = try server.ask("GET", "/")
        #expect(page.status == 200 && page.headers["content-type"] == "text/html; charset=utf-8")
        #expect(page.text.contains("data-token=\"needed\""))
        #expect(!page.text.contains(scratch.path))
        #expect(try server.ask("GET", "/?a=b").body == page.body)
        let head = try server.ask("HEAD", "/")
        #expect(head.status == 200 && head.body.isEmpty)
        #expect(head.headers["content-length"] == "\(page.body.count)")
        #expect(server.log.all.isEmpty)
        #expect(try server.ask("POST", "/", body: [1]).status == 401)
        #expect(try server.ask("GET", "/", ["Origin: https://evil.example"]).status == 403)

        let open = try TestServer(one.path)
        let withoutTokens = try open.ask("GET", "/")
        let post = try open.ask("POST", "/", body: [1])
        #expect(post.status == 405 && post.headers["allow"] == "GET, HEAD")
        #expect(
            withoutTokens.text
                == page.text.replacing("data-token=\"needed\"", with: "data-token=\"none\""))
    }

    @Test func `a browser runs nothing but the page's own script, and asks no other server`() throws
    {
        let page = try server.ask("GET", "/")
        var policy: [String: String] = [:]
        for part in (page.headers["content-security-policy"] ?? "").split(separator: "; ") {
            let words = part.split(separator: " ", maxSplits: 1).map(String.init)
            policy[words[0]] = words[1]
        }
        for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
            let parts = page.text.components(separatedBy: "<\(element)>")
            let content = try #require(parts.last?.components(separatedBy: "</\(element)>").first)
            #expect(parts.count == 2 && !content.isEmpty)
            let digest = Data(try sha256(of: Array(content.utf8))).base64EncodedString()
            #expect(policy.removeValue(forKey: directive) == "'sha256-\(digest)'")
        }
        #expect(
            policy == [
                "default-src": "'none'", "img-src": "data:", "connect-src": "'self'",
                "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
            ])
        #expect(page.headers["x-content-type-options"] == "nosniff")
        #expect(page.headers["referrer-policy"] == "no-referrer")
        #expect(page.headers["cache-control"] == "no-store")
        for word in ["innerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"] {
            #expect(!page.text.contains(word), "\(word)")
        }
    }

    @Test(arguments: ["/metrics", "/v1/status"])
    func `the numbers need a token, and only GET and HEAD are answered`(path: String) throws {
        #expect(try server.ask("GET", path).problem == .unauthorized)
        let wrong = try server.ask("GET", path, ["Authorization: Bearer not-a-token-of-ours"])
        #expect(wrong.status == 401)
        let fresh = try TestServer(one.path)
        #expect(try fresh.ask("POST", path, body: [1]).status == 405)
        #expect(try fresh.ask("HEAD", path).status == 200)
        let answer = try fresh.ask("GET", path)
        #expect(answer.status == 200 && answer.headers["cache-control"] == "no-store")
    }

    @Test func `a token sees sessions, runs and metrics of its exports only`() throws {
        let (read, written) = (try open(one, .read, .ofOne), try open(other, .write))
        #expect(try Set(status().sessions.map(\.device)) == [one.path, other.path])
        let seen = try status(.ofOne)
        #expect(seen.sessions.map(\.device) == [one.path] && seen.runs.isEmpty)
        #expect(seen.sessions.first?.session == String(read.prefix(8)))
        for text in [try ask("/v1/status").text, try ask("/metrics").text] {
            #expect(!text.contains(read) && !text.contains(written))
        }
        try end(read, .ofOne)
        try end(written)
        #expect(try status().runs.map(\.device) == [other.path, one.path])
        let run = try #require(try status(.ofOne).runs.first)
        #expect(run.device == one.path && run.mode == .read && run.end == "abandoned")
        #expect(run.client.hasPrefix("127.0.0.1:") && abs(run.began - time(nil)) < 600)
        #expect(try status(.ofOne).runs.count == 1 && status(.ofOne).sessions.isEmpty)

        let (all, limited) = (try ask("/metrics").text, try ask("/metrics", .ofOne).text)
        #expect(all.contains("export=\"\(other.path)\""))
        #expect(all.contains("blkferry_exports{access=\"rw\"} 2\n"))
        #expect(!limited.contains(other.path) && limited.contains("export=\"\(one.path)\""))
        #expect(limited.contains("blkferry_exports{access=\"ro\"} 1\n"))
        for word in ["process_", "http_requests", "connections", "failed"] {
            #expect(all.contains(word) && !limited.contains(word), "\(word)")
        }
    }

    @Test func `the map shows what was compared, what differed, and what was written`() throws {
        let session = try open(one, .write)
        let record = try server.ask("GET", Route.session(session).path, Client.everything.header)
        let region = try record.decoded(as: SessionRecord.self).region
        try send(
            .compare(session: session),
            Wire.compare(ByteRange(offset: 0, length: 2 * region), digests: 2))
        try send(.write(session: session), Wire.write([UInt8](repeating: 1, count: 4096), at: 0))
        let shown = try #require(try status().sessions.first)
        let cell = Self.size / 1024
        let map = Array(shown.map ?? "")
        #expect(map.count == 1024)
        // The request's digests are all wrong.
        #expect(map[0] == "7" && map[1] == (cell < 4096 ? "7" : "3"))
        #expect(map[2 * region / cell - 1] == "3" && map[2 * region / cell] == "0")
        #expect(shown.compared == 2 * region && shown.changed == 2 * region)
        #expect(shown.written == 4096 && shown.read == 0 && shown.position == 2 * region)
        #expect(shown.size == Self.size)
    }

    @Test func `the last 50 runs are kept, and all of them are counted`() throws {
        for index in 0..<52 { try end(open(index == 0 ? other : one, .read)) }
        let runs = try status().runs
        #expect(runs.count == 50 && runs.allSatisfy { $0.device == one.path })
        #expect(
            try ask("/metrics").text.contains(
                "blkferry_sessions_ended_total{export=\"\(other.path)\",mode=\"read\""
                    + ",end=\"abandoned\"} 1\n"))
    }

    @Test(arguments: [0, 1, 4096, 4097, 4 << 20, 4 << 20 | 1, 7 << 40, Geometry.maximumSize])
    func `a map has 1024 cells at most, and every byte of the device is in one`(size: Int) {
        var map = BlockMap(size: size)
        #expect(map.cells.count <= 1024 && (map.cells.isEmpty == (size == 0)))
        map.mark(ByteRange(offset: 0, length: size), .compared)
        #expect(map.cells.allSatisfy { $0 == 1 } && map.position == size)
        guard size > 0 else { return }
        map.mark(ByteRange(offset: size - 1, length: 1), .changed)
        #expect(map.digits.last == "3" && map.cells.dropLast().allSatisfy { $0 == 1 })
    }

    @Test func `the metrics are OpenMetrics, also with an odd name`() throws {
        let odd = try SeededImage(scratch, "a \"b\\\nc{}\u{e9}.img", size: 1 << 20)
        let server = try TestServer(scratch.path + "/:rw")
        for path in [odd.path, one.path] {
            let size = path == odd.path ? 1 << 20 : Self.size
            let session = try server.session(path, .write, size: size).session
            let content = [UInt8](repeating: 1, count: 8192)
            #expect(try server.write(session, content, at: 0).status == 204)
            #expect(try server.commit(session).status == 204)
        }
        #expect(try server.open(scratch.file("missing"), .read).status == 404)
        _ = try server.session(one.path, .read)
        let answer = try server.ask("GET", "/metrics")
        #expect(
            answer.headers["content-type"]
                == "application/openmetrics-text; version=1.0.0; charset=utf-8")
        let path = scratch.file("metrics")
        try Data(answer.body).write(to: URL(fileURLWithPath: path))
        // Debian's Python has the parser of Prometheus's own client, which is strict.
        let script = """
            import sys
            from prometheus_client.openmetrics.parser import text_string_to_metric_families
            for family in text_string_to_metric_families(open(sys.argv[1], newline='').read()):
                for sample in family.samples:
                    print(sample.name, sample.labels, sample.value)
            """
        let lines = try must("/usr/bin/python3", "-c", script, path).split(separator: "\n")
        func value(_ text: String) -> Double? {
            lines.first { $0.hasPrefix(text) }.flatMap { $0.split(separator: " ").last }
                .flatMap { Double($0) }
        }
        #expect(lines.contains { $0.contains(#"a "b\\\nc{}é.img"#) }, "\(lines)")
        let ofOne = "{'export': '\(one.path)', 'mode':"
        #expect(value("blkferry_written_bytes_total \(ofOne) 'write'}") == 8192)
        #expect(value("blkferry_sessions \(ofOne) 'read'}") == 1)
        #expect(value("blkferry_sessions_started_total \(ofOne) 'write'}") == 1)
        #expect(
            value("blkferry_sessions_ended_total \(ofOne) 'write', 'end': 'committed'}") == 1)
        let complete = value("blkferry_last_complete_run_timestamp_seconds \(ofOne) 'write'}")
        #expect(abs((complete ?? 0) - Date().timeIntervalSince1970) < 600)
        #expect(value("blkferry_sessions_failed_total") == 1)
        #expect(value("blkferry_http_requests_total {'status': '4xx'}") == 1)
        #expect(value("blkferry_http_received_bytes_total") ?? 0 > 16384)
        for name in ["cpu_seconds_total", "open_fds", "max_fds", "resident_memory_bytes"] {
            #expect(value("process_\(name)") ?? 0 > 0, "\(name)")
        }
        let start = value("process_start_time_seconds") ?? 0
        #expect(start < Date().timeIntervalSince1970 + 1 && start > 1_000_000_000)
    }
}
