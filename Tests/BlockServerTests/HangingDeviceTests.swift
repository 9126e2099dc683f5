// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import DeviceProbe
import Foundation
import LinuxIO
import Logging
import Synchronization
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// A device that hangs delays only requests for it.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HangingDeviceTests {
    private let image: SeededImage
    private let scratch: ScratchDirectory
    private let exports: ExportTable
    private let rights: Rights
    private let sessions: SessionTable
    private let peer = Peer(name: "127.0.0.1:1", address: "127.0.0.1")

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 1 << 20)
        exports = ExportTable(exports: [try ExportSelector(image.path)])
        rights = Rights(try AccessTable(nil), exports)
        let log = LogLines()
        let logger = Logger(label: "test") { _ in LineHandler(lines: log) }
        sessions = SessionTable(
            rights, limit: 8, limitOfClient: 8, silence: .seconds(60), logger: logger,
            events: BoundedLog(logger, interval: .seconds(60)))
    }

    /// Claims a device as a request does whose device hangs.
    private func claim(_ name: String) {
        let claim = SessionTable.Claim(
            key: .new(ByteString(name)), asked: plainSpelling(of: name), mode: .read,
            peer: peer, run: "run", grant: .everything, generation: 0)
        sessions.state.withLock { $0.claims["first"] = claim }
    }

    private var isOpen: Bool { sessions.count == 1 }

    /// Opens the image on a thread of its own.
    private func open() {
        let request = Wire.sessionRequest(.read, run: "run")
        Thread.detachNewThread { [sessions, peer, path = image.path] in
            _ = try? sessions.open(path, request, peer: peer, .everything)
        }
    }

    @Test func `a request does not wait for one with the same run and another device`() {
        claim("/dev/hangs")
        open()
        #expect(becomesTrue { isOpen })
    }

    @Test func `a request waits for one with the same run and the same device, however spelled`() {
        claim("/." + image.path)
        open()
        usleep(300_000)
        #expect(!isOpen)
        sessions.state.withLock { $0.claims["first"] = nil }
        #expect(becomesTrue { isOpen })
    }

    @Test func `pdiffcopy's client does not wait for a device that it does not ask for`() {
        let contents = ContentCache(DownloadLimit(limit: .max, ofClient: .max))
        let service = PdiffcopyService(exports, sessions, contents)
        let client = PdiffcopyService.Client(name: nil, address: "127.0.0.1")
        let key = PdiffcopyService.Key(
            client: client, filename: Array(PdiffcopyService.subject(of: "/dev/hangs").utf8))
        service.state.withLock { _ = $0.opening.insert(key) }
        let done = LogLines()
        for name in ["/dev/./hangs:overwrite", "/dev/other"] {
            Thread.detachNewThread {
                _ = try? service.opening(name, client) { nil }
                done.add(name)
            }
        }
        #expect(becomesTrue { !done.all.isEmpty })
        #expect(done.all == ["/dev/other"])
        service.state.withLock { _ = $0.opening.remove(key) }
        #expect(becomesTrue { done.all.count == 2 })
    }

    @Test func `a server that hangs while it ends sessions leaves a thread to clients`() throws {
        let service = Service(rights, sessions: sessions, version: "1")
        let pdiffcopy = try #require(
            service.families.lazy.compactMap { $0 as? PdiffcopyService }.first)
        let queue = WorkQueue(threads: 4, memory: 4096)
        let done = LogLines()
        let isDone = pdiffcopy.state.withLock { _ -> Bool in
            for _ in 0..<8 {
                service.tidy(on: queue)
                usleep(20_000)
            }
            queue.add(for: "a client") { _ in done.add("a client") }
            return becomesTrue { !done.all.isEmpty }
        }
        #expect(isDone)
        queue.close()
    }

    @Test func `all spellings of a path have one share of the threads`() {
        let service = Service(rights, sessions: sessions, version: "1")
        func subject(of target: String) -> String? { service.route(target)?.subject }
        let wanted = subject(of: Route.content("/srv/a/x.img").path)
        #expect(wanted != nil)
        for path in ["/srv/a/./x.img", "/srv//a/././x.img", "//srv/./a/x.img"] {
            #expect(subject(of: Route.device(path).path) == wanted)
            #expect(subject(of: Route.sessions(device: path).path) == wanted)
            for mark in ["", ":overwrite"] {
                #expect(subject(of: "/hashes?filename=\(path)\(mark)&method=sha1") == wanted)
            }
        }
        #expect(subject(of: Route.content("/srv/a/.x.img").path) != wanted)
        #expect(subject(of: Route.content("/srv/a/y.img").path) != wanted)
    }
}
