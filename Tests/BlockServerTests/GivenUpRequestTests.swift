// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Glibc
import LinuxIO
import TestSupport
import Testing
import WireProtocol

/// Requests that wait until another program unlocks their target, and whose clients have gone.
@Suite(.blocking, .timeLimit(.minutes(60))) struct GivenUpRequestTests {
    private static let size = 1 << 20

    private let scratch: ScratchDirectory
    private let image: SeededImage
    private let server: TestServer

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: Self.size)
        server = try TestServer(image.path + ":rw")
    }

    /// A request that would extend the image; each kind opens a session.
    enum Kind: CaseIterable, Sendable {
        case session
        case resize

        func bytes(_ path: String) -> [UInt8] {
            let size = 2 * GivenUpRequestTests.size
            switch self {
            case .session:
                return HTTPConnection.request(
                    "POST", Route.sessions(device: path).path, [Wire.json],
                    body: WireJSON.encode(Wire.sessionRequest(.write, size: size)))
            case .resize:
                return HTTPConnection.request(
                    "POST", "/resize?size=\(size)&filename=\(percentEncoded(path))", body: [])
            }
        }
    }

    /// Sends a request, and returns when it waits for the lock.
    private func connectionThatWaits(_ kind: Kind) throws -> HTTPConnection {
        let connection = try HTTPConnection(port: server.port)
        try connection.send(kind.bytes(image.path))
        // The test has it open once.
        #expect(becomesTrue { openCount > 1 })
        usleep(300_000)
        return connection
    }

    /// Descriptors of this process, which is the server's, that lead to the image.
    private var openCount: Int {
        let directory = "/proc/self/fd"
        return namesInDirectory(directory).count { name in
            let target = try? FileManager.default.destinationOfSymbolicLink(
                atPath: "\(directory)/\(name)")
            return target == image.path
        }
    }

    private var isUnchanged: Bool {
        (try? [UInt8](contentsOf: image.path)) == image.bytes
    }

    @Test(arguments: Kind.allCases, [false, true])
    func `a request whose client has gone does not get the target when its lock ends`(
        kind: Kind, isReset: Bool
    ) throws {
        let holder = try OwnedDescriptor.open(image.path, flags: O_RDWR)
        #expect(flock(holder.rawValue, LOCK_EX) == 0)
        do {
            let connection = try connectionThatWaits(kind)
            if isReset { connection.socket.resetOnClose() }
            withExtendedLifetime(connection) {}
        }
        // The gate waits for ten seconds. After a reset the request may wait a little longer than
        // its connection lasts.
        #expect(becomesTrue(within: 8) { server.server.connectionCount == 0 })
        #expect(flock(holder.rawValue, LOCK_UN) == 0)
        #expect(
            try becomesTrue {
                try server.open(image.path, .write, size: Self.size).status == 201
            })
        #expect(isUnchanged, "the other session keeps the size")
    }

    @Test(arguments: Kind.allCases)
    func `a server that ends does not wait for the lock of another program`(kind: Kind) throws {
        let holder = try OwnedDescriptor.open(image.path, flags: O_RDWR)
        #expect(flock(holder.rawValue, LOCK_EX) == 0)
        let connection = try connectionThatWaits(kind)
        server.server.stop()
        let answer = try connection.answer()
        #expect(answer.status == 503 && answer.problem == .busy)
        #expect(answer.text.contains("the server is ending"))
        #expect(isUnchanged)
        #expect(flock(holder.rawValue, LOCK_UN) == 0)
    }

    @Test func `a client that ends its side too early for a session is told so`() throws {
        let holder = try OwnedDescriptor.open(image.path, flags: O_RDWR)
        #expect(flock(holder.rawValue, LOCK_EX) == 0)
        let connection = try connectionThatWaits(.session)
        connection.socket.endSending()
        let answer = try connection.answer()
        #expect(answer.status == 503 && answer.text.contains("the client has ended its connection"))
        #expect(isUnchanged)
        #expect(flock(holder.rawValue, LOCK_UN) == 0)
    }
}
