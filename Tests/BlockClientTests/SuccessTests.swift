// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import DeviceProbe
import Digests
import LinuxIO
import SyncEngine
import TestSupport
import Testing
import WireProtocol

/// Answers that look like success and are none, such as those of a portal in between.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SuccessTests {
    enum Request: CaseIterable {
        case open, status, list, device, compare, read, write, flush, commit
    }

    private static let session =
        #"{"session":"1","device":"NAME=a","size":4096,"alignment":512,"block":4096,"#
        + #""region":65536,"content":{"state":"empty"},"kind":"image","rotational":false,"#
        + #""warnings":[],"timeout":600}"#

    /// The answers of a server of ours, but for one request.
    private static func answer(
        _ line: String, _ wrong: Request, _ answer: (status: Int, type: String, body: String)
    ) -> (status: Int, type: String, body: [UInt8]) {
        let kind: Request? =
            switch line.split(separator: " ").prefix(2).joined(separator: " ") {
            case let line where line.hasSuffix("/sessions"): .open
            case let line where line.hasSuffix("/compare"): .compare
            case let line where line.hasSuffix("/read"): .read
            case let line where line.hasSuffix("/write"): .write
            case let line where line.hasSuffix("/commit"): .commit
            case let line where line.hasSuffix("/v1/devices"): .list
            case let line where line.contains("/v1/devices/"): .device
            case let line where line.hasPrefix("GET /v1/sessions/"): .status
            default: nil
            }
        if kind == wrong || wrong == .flush && kind == .commit {
            return (answer.status, answer.type, Array(answer.body.utf8))
        }
        switch kind {
        case .open: return (201, MediaType.json, Array(session.utf8))
        case .status: return (200, MediaType.json, Array(session.utf8))
        default: return (204, "", [])
        }
    }

    /// Does one request; its error, where that is one of the network.
    private func networkError(_ request: Request, _ location: String) -> IOError? {
        do {
            guard case .remote(let location) = try Location(location) else { return nil }
            var options = RemoteServer.Options()
            options.retrySeconds = 0
            let server = try RemoteServer(location, options)
            switch request {
            case .list: _ = try server.exports()
            case .device: _ = try server.export("/a")
            default: try use(server, request)
            }
        } catch let error as IOError {
            return error.isNetwork ? error : nil
        } catch {}
        return nil
    }

    private func use(_ server: RemoteServer, _ request: Request) throws {
        let source = SourceFacts(
            name: "S", size: 4096, content: .empty, logicalSector: nil, identity: nil)
        let device = try RemoteBlockDevice(
            server, for: .init(mode: .write, block: 4096, source: source),
            digest: try DigestMethod(named: "sha256"))
        defer { device.release(isComplete: false) }
        let buffer = AlignedBuffer(count: 4096)
        switch request {
        case .status: try device.checkIdentity()
        case .read: try device.read(into: buffer.bytes, at: 0)
        case .write: try device.write(UnsafeRawBufferPointer(buffer.bytes), at: 0)
        case .compare:
            _ = try device.openChannel().compare(
                [ByteRange(0, to: 4096)],
                digests: UnsafeRawBufferPointer(rebasing: buffer.bytes[..<32]))
        case .flush, .commit: try device.flush()
        default: break
        }
    }

    static let wrongs = [
        (200, "text/html", "<html>Please sign in</html>"), (200, "", ""), (202, "", ""),
        (200, "application/json", #"{"success":true}"#), (201, "text/html", ""),
        (203, "application/json", session), (302, "text/html", ""), (206, "", "x"),
        (200, "application/problem+json", "{}"), (200, "application/json", "<html>"),
        (200, "application/jsonp", session),
    ]

    @Test(arguments: Request.allCases, wrongs)
    func `only the exact success status of the protocol is a success`(
        request: Request, wrong: (status: Int, type: String, body: String)
    ) throws {
        let server = ScriptedServer { connection, _ in
            while let received = connection.readRequest() {
                let line = received.head.split(separator: "\r\n").first.map(String.init) ?? ""
                let (status, type, body) = Self.answer(line, request, wrong)
                let head =
                    "HTTP/1.1 \(status) X\r\n" + (type.isEmpty ? "" : "Content-Type: \(type)\r\n")
                    + (status == 204 ? "" : "Content-Length: \(body.count)\r\n") + "\r\n"
                connection.write(Array(head.utf8) + body)
            }
        }
        defer { server.stop() }
        let error = networkError(request, server.base + "/a")
        #expect(error != nil)
    }

    @Test(arguments: [
        #"{"devices":[{"id":"a","tags":[],"path":"/a","kind":"image","size":-1,"#,
        #"{"devices":[{"id":"a","tags":[],"path":"/a","kind":"image","size":9223372036854775808,"#,
    ])
    func `a list with an impossible size is refused`(start: String) throws {
        let text =
            start
            + #""logicalSector":512,"access":"ro","content":{"state":"empty"},"inUseBy":[]}],"#
            + #""directories":[]}"#
        let server = ScriptedServer { connection, _ in
            while connection.readRequest() != nil {
                connection.answer(type: MediaType.json, Array(text.utf8))
            }
        }
        defer { server.stop() }
        #expect(networkError(.list, server.base) != nil)
    }

    @Test(arguments: ["/blocks", "/resize"])
    func `a captive portal's page is no success of a pdiffcopy server`(endpoint: String) throws {
        let portal = ScriptedPdiffcopy([UInt8](repeating: 0, count: 8192)) {
            connection, name, query in
            guard name == endpoint, query["size"] == nil || name == "/resize" else { return false }
            connection.answer(200, type: "text/html", Array("<html>Please sign in</html>".utf8))
            return true
        }
        let server = try #require(try findPdiffcopy(portal.url))
        let source = SourceFacts(
            name: "S", size: 8192, content: .empty, logicalSector: nil, identity: nil)
        let target = try server.target(for: source, policy: GatePolicy(), block: 4096)
        let bytes = [UInt8](repeating: 1, count: 4096)
        #expect(throws: IOError.self) {
            if endpoint == "/resize" {
                try target.device.resize(to: 8192)
            } else {
                try bytes.withUnsafeBytes { try target.device.write($0, at: 0) }
            }
        }
    }
}
