// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import DeviceProbe
import LinuxIO
import SyncEngine
import TestSupport
import Testing
import WireProtocol

/// What is taken for a pdiffcopy server, and what of it for a source or target.
@Suite(.blocking, .timeLimit(.minutes(60))) struct PdiffcopyDetectionTests {
    /// A server that gives each request the same answer.
    private func server(_ status: Int, _ type: String, _ body: String) -> ScriptedServer {
        ScriptedServer { connection, _ in
            while connection.readRequest() != nil {
                connection.answer(status, type: type, Array(body.utf8))
            }
        }
    }

    @Test(arguments: [
        (404, "text/html", "<h1>Not Found</h1>"), (404, "application/json", "{\"size\":4096}"),
        (404, "text/plain", ""),
    ])
    func `a web server without the device is neither blkferry nor pdiffcopy`(
        status: Int, type: String, body: String
    ) throws {
        let server = server(status, type, body)
        defer { server.stop() }
        let error = #expect(throws: IOError.self) {
            _ = try findPdiffcopy(server.base + "/image")
        }
        #expect(error?.description.contains("no blkferry server") == true)
    }

    @Test(arguments: ["<html>", "{}", "{\"size\":\"4096\"}", "{\"size\":-1}", "[4096]"])
    func `a web server with a page for everything but the API is no pdiffcopy`(page: String) throws
    {
        let server = ScriptedServer { connection, _ in
            while let request = connection.readRequest() {
                let status = request.head.hasPrefix("GET /v1 ") ? 404 : 200
                connection.answer(status, type: "application/json", Array(page.utf8))
            }
        }
        defer { server.stop() }
        let error = #expect(throws: IOError.self) {
            _ = try findPdiffcopy(server.base + "/image")
        }
        #expect(error?.description.contains("no blkferry server") == true)
    }

    @Test(arguments: [
        (200, "application/json", "{\"name\":\"blkferry\"}"), (200, "text/html", "<html>"),
        (401, "application/problem+json", "{}"), (404, "application/problem+json", "{}"),
        (403, "text/html", "Forbidden"), (301, "text/html", ""),
    ])
    func `a server that knows the API, or refuses, is not asked as pdiffcopy`(
        status: Int, type: String, body: String
    ) throws {
        let server = server(status, type, body)
        defer { server.stop() }
        #expect(try findPdiffcopy(server.base + "/image") == nil)
        #expect(server.requests == 1)
    }

    @Test func `a pdiffcopy server never gets the token`() throws {
        let server = ScriptedPdiffcopy([UInt8](repeating: 1, count: 5000))
        let token = "Vh5KXkqVb0kzVqzXlPZbVf5b7qB8k3n3gGf1vFh0m2E"
        let found = try #require(try findPdiffcopy(server.url, token: token))
        let source = try found.source(block: 1 << 20)
        #expect(source.warnings.contains { $0.contains("token") })
        _ = try source.device.content()
        #expect(server.requests.count > 4)
        for head in server.requests {
            #expect(!head.contains(token) && !head.lowercased().contains("authorization"))
        }
    }

    @Test func `a size beyond reason is not believed, and allocates no memory`() throws {
        for size in [1 << 59, 1 << 61] {
            let server = ScriptedPdiffcopy([]) { connection, endpoint, query in
                if endpoint == "/info" {
                    let said = query["filename"] == "/" ? 4096 : size
                    connection.answer(type: "application/json", Array("{\"size\":\(said)}".utf8))
                    return true
                }
                guard endpoint == "/blocks" else { return false }
                let count = Int(query["size"] ?? "") ?? 0
                connection.answer(200, type: MediaType.bytes, [UInt8](repeating: 0, count: count))
                return true
            }
            let found = try #require(try findPdiffcopy(server.url))
            let error = #expect(throws: (any Error).self) {
                let device = try #require(found.source(block: 1 << 20).device as? PdiffcopyDevice)
                let digests = [UInt8](repeating: 0, count: 20)
                try digests.withUnsafeBytes {
                    _ = try device.openChannel().compare([.init(0, to: 1 << 20)], digests: $0)
                }
            }
            let text = "\(error.map { "\($0)" } ?? "")"
            #expect(text.contains("too much memory") || text.contains("cannot be understood"))
            #expect(!server.requests.contains { $0.hasPrefix("GET /hashes") })
        }
    }

    private func facts(_ size: Int) -> SourceFacts {
        SourceFacts(
            name: "source", size: size, content: .empty, logicalSector: nil, identity: nil)
    }

    @Test func `a remote device, whose size pdiffcopy gives as 0, is neither source nor target`()
        throws
    {
        let server = ScriptedPdiffcopy([UInt8](repeating: 1, count: 5000)) {
            connection, endpoint, query in
            guard endpoint == "/info", query["filename"] != "/" else { return false }
            connection.answer(type: "application/json", Array("{\"size\":0}".utf8))
            return true
        }
        let found = try #require(try findPdiffcopy(server.url))
        for work in [
            { _ = try found.source(block: 1 << 20) },
            {
                _ = try found.target(
                    for: facts(5000), policy: GatePolicy(overwrite: true), block: 1 << 20)
            },
        ] {
            let error = #expect(throws: IOError.self) { try work() }
            guard let error else { continue }
            #expect(!error.isNetwork && error.reason.contains("device"), "\(error)")
        }
        #expect(!server.requests.contains { $0.hasPrefix("POST") })
    }

    @Test func `no image is created among the device files`() throws {
        let server = ScriptedPdiffcopy([]) { connection, endpoint, query in
            guard endpoint == "/info", query["filename"] != "/" else { return false }
            connection.answer(404)
            return true
        }
        // The root directory has a size.
        let base = server.url.dropLast("/srv/image".count)
        for path in ["/dev/sdx", "//dev/sdx", "/srv/../dev/sdx", "/dev/./sdx", "/proc/x"] {
            let found = try #require(try findPdiffcopy(base + path))
            let error = #expect(throws: IOError.self) {
                _ = try found.target(for: facts(5000), policy: GatePolicy(), block: 1 << 20)
            }
            #expect(error?.cause == .wrongKind, "\(path): \(String(describing: error))")
        }
        let target = try #require(try findPdiffcopy(base + "/devices/image"))
            .target(for: facts(5000), policy: GatePolicy(), block: 1 << 20)
        #expect(target.wasCreated && target.resizeTo == 5000)
        #expect(!server.requests.contains { $0.hasPrefix("POST") })
    }
}
