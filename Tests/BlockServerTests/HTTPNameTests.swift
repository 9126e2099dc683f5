// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import TestSupport
import Testing
import WireProtocol

/// Names that no export can have, and such as lead out of a directory or to what is no image.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPNameTests {
    private let scratch: ScratchDirectory
    private let server: TestServer

    init() throws {
        scratch = try ScratchDirectory()
        try must("mkdir", "-p", scratch.file("d/sub"))
        try must("mkfifo", scratch.file("d/fifo"))
        _ = try SeededImage(scratch, "d/a", size: 1 << 20)
        try FileManager.default.createSymbolicLink(
            atPath: scratch.file("d/link"), withDestinationPath: "a")
        server = try TestServer(scratch.file("d/") + ":rw")
    }

    private static let inDirectory = [
        "", ".", "..", "link", "sub", "sub/", "fifo", "a/", "a/b", "sub/../a", "../d/a", "\u{1}",
        "a\u{7F}", "a\0", "\u{202E}", "missing/image", String(repeating: "x", count: 256),
        String(repeating: "x", count: 5000), String(repeating: "y/", count: 2500),
    ]
    private static let others = [
        "/", "/dev/", "/dev/null", "/proc/self/mem", "UUID=", "LABEL=x", "x", "vg0/x", "=",
        "/=",
        "PARTUUID=" + String(repeating: "x", count: 7000),
    ]

    @Test func `a malformed name is a client error on every endpoint`() throws {
        let names = Self.inDirectory.map { scratch.file("d/") + $0 } + Self.others
        for name in names {
            let query = "filename=\(percentEncoded(name))"
            let requests: [(String, String, [UInt8]?)] = [
                ("GET", Route.device(name).path, nil), ("GET", Route.content(name).path, nil),
                ("GET", "/info?\(query)", nil), ("HEAD", "/hashes?method=md5&\(query)", nil),
                ("GET", "/blocks?offset=0&size=1&\(query)", nil),
                ("POST", "/blocks?offset=0&\(query)", [1]),
                ("POST", "/resize?size=4096&\(query)", []),
            ]
            for (method, target, body) in requests {
                let status = try server.ask(method, target, body: body).status
                #expect((400..<500).contains(status), "\(status) \(method) \(target.prefix(200))")
            }
            for mode in [SessionRequest.Mode.read, .write, .dryRun] {
                let answer = try server.open(name, mode, size: 1 << 20)
                #expect(
                    (400..<500).contains(answer.status),
                    "\(answer.status) \(mode) \(name.prefix(200)) \(answer.text)")
            }
        }
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: scratch.file("d")).sorted()
                == ["a", "fifo", "link", "sub"])
    }
}
