// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import LinuxIO
import Logging
import NIOHTTP1
import Synchronization
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// Requests of one client that resize an image, while others of it resize or write the image.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SimultaneousResizeTests {
    private static let unit = 1 << 20

    private let scratch: ScratchDirectory
    private let image: SeededImage
    private let sessions: SessionTable
    private let client: Client

    /// A client whose token is append-only.
    private struct Client: Sendable {
        let service: PdiffcopyService
        let path: String

        static let peer = Peer(name: "127.0.0.1:1", address: "127.0.0.1")

        /// The status of the response.
        func resize(to units: Int) -> Int {
            let size = units * SimultaneousResizeTests.unit
            let call = PdiffcopyCall(
                .resize, query: "filename=\(percentEncoded(path))&size=\(size)")
            var grant = Grant.everything
            grant.isAppendOnly = true
            let request = Request(
                route: PdiffcopyRoute(call: call, service: service), method: .POST, headers: [:],
                peer: Self.peer, grant: grant)
            let memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
            do throws(Problem) {
                return Int(try request.route.answer(request, memory).status.code)
            } catch {
                return error.status
            }
        }
    }

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: Self.unit)
        let exports = ExportTable(exports: [try ExportSelector(image.path + ":rw")])
        let log = LogLines()
        let logger = Logger(label: "test") { _ in LineHandler(lines: log) }
        sessions = SessionTable(
            Rights(try AccessTable(nil), exports), limit: 8, limitOfClient: 8,
            silence: .seconds(60), logger: logger,
            events: BoundedLog(logger, interval: .seconds(60)))
        let contents = ContentCache(DownloadLimit(limit: .max, ofClient: .max))
        client = Client(
            service: PdiffcopyService(exports, sessions, contents), path: image.path)
    }

    @Test func `an append-only client cannot cut what another request of it has just extended`()
        throws
    {
        #expect(client.resize(to: 1) == 200)
        let session = try #require(sessions.state.withLock { $0.sessions.values.first })
        let answers = LogLines()
        session.edges.withLock { _ in
            for units in [3, 2] {
                Thread.detachNewThread { [client] in
                    answers.add("\(units): \(client.resize(to: units))")
                }
                // Now the request waits, with all that it looks at before.
                usleep(300_000)
            }
        }
        #expect(becomesTrue { answers.all.count == 2 })
        // The system chooses who goes first.
        #expect(Set(answers.all).isSubset(of: ["3: 200", "2: 200", "2: 403"]))
        #expect(try FileStatus(path: image.path).size == 3 * Self.unit)
        #expect(client.resize(to: 2) == 403 && client.resize(to: 3) == 200)
    }

    @Test func `an image that gets its old size back is not cut during a write, nor written later`()
        throws
    {
        let session = try sessions.open(
            image.path, Wire.sessionRequest(.write, size: 2 * Self.unit), peer: Client.peer,
            .everything)
        func giveBack() throws(Problem) {
            try session.commit(size: Self.unit, isComplete: false)
        }
        func write() throws(Problem) {
            // The memory is for frames that are not aligned; this one is refused before.
            let memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
            try session.write(UnsafeRawBufferPointer(memory), memory)
        }
        #expect(session.beginWriting())
        #expect(throws: Problem.self) { try giveBack() }
        #expect(try FileStatus(path: image.path).size == 2 * Self.unit)
        session.finishWriting()
        try giveBack()
        let problem = #expect(throws: Problem.self) { try write() }
        #expect(problem?.detail.contains("its size back") == true)
        #expect(try [UInt8](contentsOf: image.path) == image.bytes)
        try giveBack()
    }
}
