// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Synchronization
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// Servers on a unix socket.
@Suite(.blocking, .timeLimit(.minutes(60))) struct UnixSocketTests {
    private let scratch: ScratchDirectory
    private let image: SeededImage
    private let path: String

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 1 << 20)
        path = scratch.file("socket")
    }

    private func start() throws -> TestServer {
        let path = path
        return try TestServer(image.path) { $0.address = .unix(path) }
    }

    private func ask(host: String = "anything.example") throws -> String {
        try run(
            "curl", "-sS", "--unix-socket", path, "-w", "%{http_code}", "-o", "/dev/null",
            "http://\(host)/v1"
        ).output
    }

    @Test(.enabled(if: isInstalled("curl")))
    func `a second server is refused, and does not remove the first server's socket`() throws {
        let first = try start()
        for _ in 0..<3 {
            #expect(throws: (any Error).self) { try start() }
            #expect(try ask() == "200")
        }
        first.server.stop()
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test func `of many servers that start at once on a dead server's socket, one serves`() throws {
        for _ in 0..<5 {
            let dead = try start()
            // Its file stays when it cannot remove it.
            try must("cp", "-a", path, scratch.file("kept"))
            dead.server.stop()
            try must("mv", scratch.file("kept"), path)
            let servers = (0..<6).map { _ in Starter() }
            for starter in servers {
                Thread.detachNewThread { [self] in
                    let result = Result { try start() }
                    starter.result.withLock { $0 = result }
                }
            }
            #expect(becomesTrue { servers.allSatisfy { $0.result.withLock { $0 != nil } } })
            let running = servers.compactMap { $0.result.withLock { try? $0?.get() } }
            #expect(running.count == 1)
            for server in running { server.server.stop() }
        }
    }

    private final class Starter: Sendable {
        let result = Mutex<Result<TestServer, any Error>?>(nil)
    }

    @Test func `a server that ends leaves another server's socket, and no server removes a file`()
        throws
    {
        let first = try start()
        try must("mv", path, scratch.file("away"))
        let second = try start()
        first.server.stop()
        #expect(FileManager.default.fileExists(atPath: path))
        second.server.stop()
        #expect(!FileManager.default.fileExists(atPath: path))
        try must("sh", "-c", "echo precious > \(path)")
        #expect(throws: (any Error).self) { try start() }
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "precious\n")
    }
}
