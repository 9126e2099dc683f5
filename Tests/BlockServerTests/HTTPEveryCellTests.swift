// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import TestSupport
import Testing
import WireProtocol

/// Who may ask what, by which method, from where: every cell, down to the answer of a request that
/// was let in.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPEveryCellTests {
    private let scratch: ScratchDirectory

    private static let token = "token-of-enough-characters"
    private static let methods = ["GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"]

    /// Paths, and the methods that there are for them.
    private static let endpoints: [(path: String, methods: [String])] = [
        ("/v1", ["GET", "HEAD"]), ("/v1/devices", ["GET", "HEAD"]),
        ("/v1/devices/x", ["GET", "HEAD"]), ("/v1/devices/x/content", ["GET", "HEAD"]),
        ("/v1/devices/x/sessions", ["POST"]), ("/v1/sessions/x", ["GET", "HEAD", "DELETE"]),
        ("/v1/sessions/x/compare", ["POST"]), ("/v1/sessions/x/read", ["POST"]),
        ("/v1/sessions/x/write", ["POST"]), ("/v1/sessions/x/commit", ["POST"]),
        ("/info?filename=/x", ["GET", "HEAD"]),
        ("/hashes?filename=/x&method=sha1", ["GET", "HEAD"]),
        ("/blocks?filename=/x&offset=0&size=1", ["GET", "POST"]),
        ("/resize?filename=/x&size=1", ["POST"]), ("/nowhere", []),
    ]

    /// What shows that a browser sends the request for a page.
    private static let circumstances: [(header: String?, isForeign: Bool)] = [
        (nil, false), ("Sec-Fetch-Site: none", false), ("Sec-Fetch-Site: same-origin", false),
        ("Sec-Fetch-Site: same-site", true), ("Sec-Fetch-Site: cross-site", true),
        ("Origin: https://evil.example", true), ("Origin: null", true),
        ("Origin: http://localhost", true),
    ]

    private static let hosts: [(name: String, isLocal: Bool)] = [
        ("localhost", true), ("127.0.0.1:8080", true), ("[::1]", true), ("evil.example", false),
        ("192.0.2.1", false),
    ]

    init() throws {
        scratch = try ScratchDirectory()
        try makeImage(scratch.file("image"), [UInt8](repeating: 7, count: 1 << 20))
    }

    private func status(
        _ connection: inout HTTPConnection?, _ server: TestServer, _ method: String,
        _ path: String, _ host: String, _ headers: [String]
    ) throws -> Int {
        let open = try connection ?? HTTPConnection(port: server.port)
        let lines = ["\(method) \(path) HTTP/1.1", "Host: \(host)"] + headers
        try open.send(lines.joined(separator: "\r\n") + "\r\n\r\n")
        let answer = try open.answer(isHead: method == "HEAD")
        connection = answer.headers["connection"] == "close" ? nil : open
        return answer.status
    }

    /// The status of a request; `nil` for any that a request which was let in may have.
    private func expected(
        _ endpoint: (path: String, methods: [String]), _ method: String
    ) -> Int? {
        if endpoint.methods.isEmpty { return 404 }
        return endpoint.methods.contains(method) ? nil : 405
    }

    private func judge(_ status: Int, _ wanted: Int?, _ what: String) {
        // One that was let in gets what its path and body deserve.
        let isRight = wanted.map { $0 == status } ?? ![401, 403, 405, 429].contains(status)
        #expect(isRight, "\(what): \(status), not \(wanted.map { "\($0)" } ?? "let in")")
    }

    @Test func `with tokens every credential, endpoint, method and circumstance has its answer`()
        throws
    {
        let credentials: [(line: String?, isGood: Bool)] = [
            (nil, false), ("", true), ("ro", true), ("expires=2001-01-01", false),
            ("expires=2999-01-01", true), ("from=192.0.2.0/24", false), ("from=127.0.0.1", true),
            ("append-only", true), ("max-size=1G", true), ("/nowhere", true),
        ]
        let image = scratch.file("image")
        let server = try TestServer("\(image):rw") {
            $0.tokens = try? credentials.enumerated().compactMap { index, credential in
                try credential.line.map {
                    try TokenEntry(line: "c\(index) \(Self.token)-\(index) \($0)")
                }
            }
        }
        var connection: HTTPConnection?
        for (index, credential) in credentials.enumerated() {
            let shown = credential.line.map { _ in "Authorization: Bearer \(Self.token)-\(index)" }
            for endpoint in Self.endpoints {
                for method in Self.methods {
                    for circumstance in Self.circumstances {
                        let headers = [shown, circumstance.header].compactMap { $0 }
                        let wanted: Int? =
                            circumstance.isForeign
                            ? 403 : credential.isGood ? expected(endpoint, method) : 401
                        judge(
                            try status(
                                &connection, server, method, endpoint.path, "evil.example", headers),
                            wanted, "\(credential) \(method) \(endpoint.path) \(headers)")
                    }
                }
            }
        }
    }

    @Test func `without tokens every host, endpoint, method and circumstance has its answer`()
        throws
    {
        let server = try TestServer("\(scratch.file("image")):rw")
        var connection: HTTPConnection?
        for host in Self.hosts {
            for endpoint in Self.endpoints {
                for method in Self.methods {
                    for circumstance in Self.circumstances {
                        let wanted: Int? =
                            circumstance.isForeign || !host.isLocal
                            ? 403 : expected(endpoint, method)
                        judge(
                            try status(
                                &connection, server, method, endpoint.path, host.name,
                                [circumstance.header].compactMap { $0 }),
                            wanted, "\(host.name) \(method) \(endpoint.path) \(circumstance)")
                    }
                }
            }
        }
    }
}
