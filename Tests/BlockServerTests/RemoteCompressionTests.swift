// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import LinuxIO
import SyncEngine
import Synchronization
import TestSupport
import Testing
import Zstandard

/// `--compress` between a client and a server of this process.
@Suite(.blocking, .timeLimit(.minutes(60)), .serialized) struct RemoteCompressionTests {
    private static let size = 32 << 20

    /// One bit of information in each byte.
    private static func compressible(_ count: Int, seed: UInt64) -> [UInt8] {
        var random = SeededGenerator(seed: seed)
        // libzstd finds no repetition that is so far away at the levels of these tests.
        let part = random.bytes(1 << 20).map { $0 & 1 | 2 }
        var bytes: [UInt8] = []
        while bytes.count < count { bytes += part.prefix(count - bytes.count) }
        return bytes
    }

    private struct Result {
        var seconds: Double
        /// Bytes through the proxy in the direction of the data.
        var wire: Int
        var corruptions: Int
        var report: SyncReport
    }

    private enum Direction: CaseIterable {
        case push
        case pull
    }

    /// Copies bytes to an empty image of the other side.
    private func copy(
        _ bytes: [UInt8], _ direction: Direction, _ mode: CompressionMode, rig: ServerRig? = nil,
        bytesPerSecond: Int? = nil,
        _ change: (inout RemoteRun, FaultProxy) -> Void = { _, _ in }
    ) throws -> Result {
        let rig = try rig ?? ServerRig()
        let proxy = try FaultProxy(upstreamPort: rig.port, queueLimit: 1 << 20)
        proxy.bytesPerSecond = bytesPerSecond
        var run = RemoteRun()
        run.port = proxy.port
        run.client.compression = mode
        change(&run, proxy)
        let image = rig.image("image")
        try makeImage(
            image, direction == .push ? [UInt8](repeating: 0, count: bytes.count) : bytes)
        let memory = MemoryDevice(
            direction == .push ? bytes : [UInt8](repeating: 0, count: bytes.count))
        let start = ContinuousClock.now
        let report =
            try direction == .push
            ? run.push(memory, to: image, of: rig) : run.pull(image, of: rig, to: memory)
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        if report.isGood {
            #expect(try [UInt8](contentsOf: image) == bytes)
            #expect(memory.bytes == bytes)
        }
        let counters = proxy.counters
        return Result(
            seconds: seconds,
            wire: direction == .push ? counters.bytesToServer : counters.bytesToClient,
            corruptions: counters.corruptions, report: report)
    }

    @Test(arguments: Direction.allCases)
    private func `at 100 Mbit/s a compressible disk is copied at least twice as fast`(
        direction: Direction
    ) throws {
        let bytes = Self.compressible(Self.size, seed: 1)
        let plain = try copy(bytes, direction, .none, bytesPerSecond: 12_500_000)
        #expect(plain.report.isGood && plain.wire > Self.size)
        // Other tests of this process may take the processors meanwhile; then it may not pay.
        var seconds: [Double] = []
        repeat {
            let auto = try copy(bytes, direction, .auto, bytesPerSecond: 12_500_000)
            #expect(auto.report.isGood)
            seconds.append(auto.wire < Self.size / 2 ? auto.seconds : .infinity)
        } while seconds.count < 5 && seconds[seconds.count - 1] >= plain.seconds / 2
        #expect(seconds.contains { $0 < plain.seconds / 2 }, "\(seconds), \(plain.seconds) s")
    }

    @Test(arguments: Direction.allCases)
    private func `random bytes at 100 Mbit/s cost at most two percent more on the wire`(
        direction: Direction
    ) throws {
        var random = SeededGenerator(seed: 2)
        let bytes = random.bytes(8 << 20)
        let auto = try copy(bytes, direction, .auto, bytesPerSecond: 12_500_000)
        #expect(auto.report.isGood)
        #expect(auto.wire < bytes.count + bytes.count / 50)
    }

    @Test(arguments: Direction.allCases, [1, 3, 9])
    private func `zstd compresses every payload that becomes smaller`(
        direction: Direction, level: Int
    ) throws {
        let bytes = Self.compressible(6 << 20, seed: 3)
        let result = try copy(bytes, direction, .zstd(level: level))
        #expect(result.report.isGood && result.wire < bytes.count / 3)
        var random = SeededGenerator(seed: 4)
        let other = try copy(random.bytes(6 << 20), direction, .zstd(level: level))
        #expect(other.report.isGood && other.wire < (6 << 20) + (128 << 10))
    }

    @Test(arguments: Direction.allCases, [ProxyDirection.toServer, .toClient])
    private func `flipped bits of compressed payloads are noticed, and the data is sent again`(
        direction: Direction, flipped: ProxyDirection
    ) throws {
        let bytes = Self.compressible(12 << 20, seed: 5)
        let result = try copy(bytes, direction, .zstd(level: 1)) { _, proxy in
            proxy.corruptDirection = flipped
            proxy.corruptions = 2
        }
        #expect(result.report.isGood, "\(result.report)")
        let isOfData = (direction == .push) == (flipped == .toServer)
        #expect(!isOfData || result.corruptions > 0)
    }

    @Test(arguments: Direction.allCases)
    private func `compressed payloads survive connections that are cut`(direction: Direction) throws
    {
        let bytes = Self.compressible(12 << 20, seed: 6)
        let result = try copy(bytes, direction, .zstd(level: 1)) { _, proxy in
            proxy.cutEvery = 1...300_000
            proxy.cutsLeft = 3
        }
        #expect(result.report.isGood, "\(result.report)")
    }

    @Test(arguments: Direction.allCases)
    private func `without libzstd on one side, auto copies without compression and says so`(
        direction: Direction
    ) throws {
        let bytes = Self.compressible(4 << 20, seed: 7)
        for isServer in [false, true] {
            let notes = Mutex<[String]>([])
            let rig = try ServerRig(findsZstd: !isServer)
            let result = try copy(bytes, direction, .auto, rig: rig) { run, _ in
                run.client = RemoteServer.Options(log: { text in
                    notes.withLock { $0.append(text) }
                })
                run.client.findsZstd = isServer
            }
            #expect(result.report.isGood && result.wire > bytes.count)
            #expect(notes.withLock { $0.contains { $0.contains("not compressed") } })
        }
    }

    @Test(arguments: Direction.allCases)
    private func `without libzstd on one side, zstd ends the run before anything is opened`(
        direction: Direction
    ) throws {
        for (isServer, reason) in [(false, "libzstd cannot be loaded"), (true, "cannot compress")] {
            let rig = try ServerRig(findsZstd: !isServer)
            let error = #expect(throws: LinuxIO.IOError.self) {
                try copy([UInt8](repeating: 1, count: 4096), direction, .zstd(level: 3), rig: rig) {
                    run, _ in run.client.findsZstd = isServer
                }
            }
            #expect(error?.kind == .network && error?.reason.contains(reason) == true)
            #expect(rig.requests(to: "sessions") == 0)
        }
    }

    @Test func `a comparison and a dry run work in a session that compresses`() throws {
        let rig = try ServerRig()
        let bytes = Self.compressible(4 << 20, seed: 8)
        let image = rig.image("image")
        try makeImage(image, bytes)
        var other = bytes
        other[1_000_000] ^= 1
        var run = RemoteRun()
        run.client.compression = .zstd(level: 3)
        let report = try run.verify(image, of: rig, against: MemoryDevice(other))
        #expect(report.tally.differentBlocks == 1)
        run.options.isDryRun = true
        let dry = try run.push(MemoryDevice(other), to: image, of: rig)
        #expect(dry.tally.differentBlocks == 1)
    }
}
