// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import SyncEngine
import TestSupport
import Testing
import WireProtocol
import Zstandard

/// What a run does differently where the round trip to the server is long.
@Suite(.blocking, .timeLimit(.minutes(60)), .serialized) struct RemoteLongLineTests {
    private enum Direction: CaseIterable {
        case push
        case pull
    }

    /// Runs through a proxy, and returns its counters.
    private func run(
        _ direction: Direction, source: [UInt8], target: [UInt8], options: SyncOptions,
        _ change: (FaultProxy) -> Void = { _ in }
    ) throws -> ProxyCounters {
        let rig = try ServerRig()
        let proxy = try FaultProxy(upstreamPort: rig.port)
        change(proxy)
        var run = RemoteRun()
        run.port = proxy.port
        run.options = options
        run.client.compression = .none
        let image = rig.image("image")
        try makeImage(image, direction == .push ? target : source)
        let memory = MemoryDevice(direction == .push ? source : target)
        let report =
            try direction == .push
            ? run.push(memory, to: image, of: rig) : run.pull(image, of: rig, to: memory)
        #expect(report.isGood, "\(report)")
        #expect(try [UInt8](contentsOf: image) == source && memory.bytes == source)
        return proxy.counters
    }

    private func copy(
        _ direction: Direction, size: Int = 64 << 20, most: Int? = 16,
        _ change: (FaultProxy) -> Void
    ) throws -> ProxyCounters {
        var options = SyncOptions(wholeFile: true, concurrency: 2)
        options.mostConcurrency = most
        let source = [UInt8](repeating: 2, count: size)
        let target = [UInt8](repeating: 1, count: size)
        return try run(direction, source: source, target: target, options: options, change)
    }

    @Test(arguments: Direction.allCases)
    private func `a copy has more requests in progress on a long line`(direction: Direction) throws
    {
        // So long that requests take less than two round trips on a loaded machine, too.
        let counters = try copy(direction) { $0.delay = 0.4 }
        // Each connection has one request in progress.
        #expect(counters.connections >= 6, "\(counters)")
    }

    @Test(arguments: Direction.allCases)
    private func `a slow line, and a number of the user's, have no more requests in progress`(
        direction: Direction
    ) throws {
        let slow = try copy(direction, size: 16 << 20) { proxy in
            proxy.delay = 0.02
            proxy.bytesPerSecond = 8 << 20
        }
        #expect(slow.connections <= 3, "\(slow.connections)")
        let chosen = try copy(direction, most: nil) { $0.delay = 0.02 }
        #expect(chosen.connections <= 3, "\(chosen.connections)")
    }

    @Test(arguments: Direction.allCases)
    private func `windows of a copy have 2 MiB on a long line`(direction: Direction) throws {
        let requests = try copy(direction) { $0.delay = 0.05 }.requests
        // Besides the 32 windows: opening, a map, and the end.
        #expect(requests <= 32 + 6, "\(requests)")
    }

    @Test(arguments: Direction.allCases)
    private func `all threads compare equal devices at first, in whole windows`(
        direction: Direction
    ) throws {
        let bytes = [UInt8](repeating: 7, count: 64 << 20)
        var options = SyncOptions(concurrency: 2)
        options.mostConcurrency = 4
        let counters = try run(direction, source: bytes, target: bytes, options: options) {
            $0.delay = 0.4
        }
        #expect(counters.connections == 4, "\(counters)")
        // Opening, the map, four comparisons, and the end: in a pull the status and the release.
        #expect(counters.requests == 8, "\(counters)")
    }

    @Test(arguments: Direction.allCases)
    private func `different devices are equal at the end, too, where all threads compare first`(
        direction: Direction
    ) throws {
        // One window, which one of eight threads gets, and two.
        for size in [1 << 20, 33 << 19] {
            let source = (0..<size).map { UInt8(truncatingIfNeeded: $0 >> 12) }
            let target = [UInt8](repeating: 1, count: size)
            var options = SyncOptions(concurrency: 1)
            options.mostConcurrency = 8
            _ = try run(direction, source: source, target: target, options: options) {
                $0.delay = 0.05
            }
        }
    }

    @Test func `connections are made ahead on a long line`() throws {
        let rig = try ServerRig()
        let proxy = try FaultProxy(upstreamPort: rig.port)
        proxy.delay = 0.1
        let image = rig.image("image")
        try makeImage(image, [UInt8](repeating: 7, count: 1 << 20))
        var options = RemoteServer.Options()
        options.connectionsAhead = 3
        let location = try #require(try Location(rig.url(image, port: proxy.port)).remote)
        let server = try RemoteServer(location, options)
        _ = try server.exports()
        let device = try RemoteBlockDevice(
            server, for: .init(mode: .read, block: 4096), digest: nil)
        // They are made in other threads.
        #expect(becomesTrue { proxy.counters.connections == 4 })
        device.release(isComplete: true)
        #expect(proxy.counters.connections == 4)
    }

    @Test func `a push of equal devices of one window needs five requests`() throws {
        let bytes = [UInt8](repeating: 7, count: 1 << 20)
        let counters = try run(
            .push, source: bytes, target: bytes, options: SyncOptions(concurrency: 2))
        // Opening, the image's map, the comparison, the flush with the status, the end.
        #expect(counters.requests == 5)
    }

    @Test func `a server that had too many requests gets no more of them at once`() throws {
        let counters = try copy(.push) { proxy in
            proxy.delay = 0.05
            proxy.answers = .init(status: 503, count: 3)
        }
        #expect(counters.answers == 3 && counters.connections <= 4, "\(counters)")
    }
}
