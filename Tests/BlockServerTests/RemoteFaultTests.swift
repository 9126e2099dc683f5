// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import BlockServer
import Glibc
import LinuxIO
import SyncEngine
import Synchronization
import TestSupport
import Testing

/// Push and pull over a bad network: equal in the end, or the promised error.
@Suite(.blocking, .timeLimit(.minutes(60)), .serialized) struct RemoteFaultTests {
    private let rig: ServerRig
    private let proxy: FaultProxy
    private let size = 12 << 20

    init() throws {
        rig = try ServerRig(timeout: 2)
        proxy = try FaultProxy(upstreamPort: rig.port)
    }

    /// Runs a push and a pull through a proxy; the fault is set before each.
    ///
    /// - Parameters:
    ///   - seed: of the data.
    ///   - run: how.
    ///   - isTolerated: whether a network error may end a run.
    ///   - proxy: other than the suite's own.
    ///   - fault: what is wrong with the network.
    /// - Throws: when the images cannot be made.
    private func bothWays(
        seed: UInt64, _ run: RemoteRun = RemoteRun(), isTolerated: Bool = false,
        through proxy: FaultProxy? = nil, _ fault: (FaultProxy) -> Void
    ) throws {
        let proxy = proxy ?? self.proxy
        var run = run
        run.port = proxy.port
        let pair = DevicePair(seed: seed, size: size)
        func judge(_ report: SyncReport, _ result: [UInt8], _ what: String) {
            if report.isGood {
                #expect(result == pair.source, "seed \(seed), \(what): success with a difference")
                return
            }
            #expect(isTolerated, "seed \(seed), \(what): \(report)")
            let error = report.failure ?? report.flushError
            #expect(error?.isNetwork == true, "seed \(seed), \(what): \(report)")
            // What is neither old nor new was made on the way.
            let blocks = stride(from: 0, to: size, by: 512).map { $0..<min($0 + 512, size) }
            #expect(
                blocks.allSatisfy {
                    result[$0] == pair.source[$0] || result[$0] == pair.target[$0]
                }, "seed \(seed), \(what): a wrong byte")
        }

        let image = rig.image("image-\(seed)")
        try makeImage(image, pair.target)
        fault(proxy)
        do {
            let report = try run.push(MemoryDevice(pair.source), to: image, of: rig)
            judge(report, try [UInt8](contentsOf: image), "push")
        } catch let error {
            #expect(isTolerated, "seed \(seed), push: \(error)")
        }
        let source = rig.image("source-\(seed)")
        try makeImage(source, pair.source)
        let memory = MemoryDevice(pair.target)
        fault(proxy)
        do {
            let report = try run.pull(source, of: rig, to: memory)
            judge(report, memory.bytes, "pull")
        } catch let error {
            #expect(isTolerated, "seed \(seed), pull: \(error)")
        }
    }

    @Test func `without faults a push and a pull make both sides equal`() throws {
        try bothWays(seed: 1) { _ in }
    }

    @Test func `a push and a pull survive a delay of 20 ms each way`() throws {
        for seed in UInt64(1)...3 { try bothWays(seed: seed) { $0.delay = 0.02 } }
    }

    @Test(arguments: seeds(16))
    func `a push and a pull survive connections that are cut at random bytes`(seed: UInt64) throws {
        let proxy = try FaultProxy(upstreamPort: rig.port, seed: seed)
        try bothWays(seed: seed, through: proxy) {
            $0.cutEvery = seed % 2 == 0 ? 1...500_000 : 100...20_000
            // Each makes the client wait twice as long before it comes back.
            $0.cutsLeft = 3
        }
        if seed % 2 == 1 { #expect(proxy.counters.cuts > 0) }
    }

    @Test(arguments: UInt64(1)...3)
    func `connections that keep being cut end the run with an error or with success`(seed: UInt64)
        throws
    {
        let proxy = try FaultProxy(upstreamPort: rig.port, seed: seed)
        var run = RemoteRun()
        run.client.retrySeconds = 1
        try bothWays(seed: seed, run, isTolerated: true, through: proxy) {
            $0.cutEvery = 1...200_000
        }
    }

    @Test(arguments: seeds(10))
    func `a new image is created once, whatever is cut`(seed: UInt64) throws {
        let proxy = try FaultProxy(upstreamPort: rig.port, seed: seed)
        let image = rig.image("new-\(seed)")
        var run = RemoteRun()
        run.port = proxy.port
        // The answer to the first request, which opens the session, is the first to be cut.
        proxy.cutEvery = 900...1500
        proxy.cutsLeft = 2
        var random = SeededGenerator(seed: seed)
        let content = random.bytes(1 << 20)
        let report = try run.push(MemoryDevice(content), to: image, of: rig)
        #expect(report.isGood, "seed \(seed): \(report)")
        #expect(try [UInt8](contentsOf: image) == content, "seed \(seed)")
        #expect(rig.server.sessionCount == 0)
    }

    @Test(arguments: seeds(10), [ProxyDirection.toServer, .toClient])
    func `flipped bits on the way are noticed, and the data is sent again`(
        seed: UInt64, direction: ProxyDirection
    ) throws {
        let proxy = try FaultProxy(upstreamPort: rig.port, seed: seed)
        try bothWays(seed: seed, through: proxy) {
            $0.corruptDirection = direction
            $0.corruptions = 1 + Int(seed % 2)
        }
        #expect(proxy.counters.corruptions > 0)
    }

    @Test(arguments: [ProxyDirection.toServer, .toClient])
    func `bits that keep flipping end the run with an error, and no wrong byte is written`(
        direction: ProxyDirection
    ) throws {
        for seed in UInt64(1)...3 {
            let proxy = try FaultProxy(upstreamPort: rig.port, seed: seed)
            try bothWays(seed: seed, isTolerated: true, through: proxy) {
                $0.corruptDirection = direction
                $0.corruptions = .max
            }
        }
    }

    @Test(arguments: [500, 502, 503, 504])
    func `the client waits out error answers of a proxy in between`(status: Int) throws {
        let run = RemoteRun()
        try bothWays(seed: UInt64(status), run) { proxy in
            proxy.answers = NetworkFaults.Answers(
                status: status, count: 3, retryAfter: status == 503 ? 1 : nil,
                isClosing: status == 502)
        }
    }

    @Test func `a run survives refused connections in the middle of it`() throws {
        for seed in UInt64(1)...3 {
            let trouble = Trouble(proxy)
            try bothWays(seed: seed) { _ in trouble.start() }
            trouble.wait()
        }
        #expect(proxy.counters.refused > 0)
    }

    @Test func `a network that stands still ends no run if it comes back in time`() throws {
        let image = rig.image("image")
        var random = SeededGenerator(seed: 5)
        let content = random.bytes(size)
        try makeImage(image, random.bytes(size))
        var run = RemoteRun()
        run.port = proxy.port
        proxy.stallAfter = 200_000
        let proxy = proxy
        let healing = Threads.start(count: 1, orInline: false) { _ in
            // Longer than the session's time: it is lost, and opened again.
            pauseSeconds(4)
            proxy.stallAfter = nil
            proxy.isStalled = false
        }
        let report = try run.push(MemoryDevice(content), to: image, of: rig)
        healing.wait()
        proxy.close()
        #expect(report.isGood, "\(report)")
        #expect(try [UInt8](contentsOf: image) == content)
    }

    @Test func `a network that stands still does not keep a cancelled run waiting`() throws {
        let image = rig.image("image")
        var random = SeededGenerator(seed: 5)
        let content = random.bytes(size)
        try makeImage(image, random.bytes(size))
        var run = RemoteRun()
        run.port = proxy.port
        let control = run.control
        run.client.isCancelled = { control.isCancelled }
        proxy.stallAfter = 200_000
        let cancelled = Mutex(ContinuousClock.now)
        let proxy = proxy
        let cancelling = Threads.start(count: 1, orInline: false) { _ in
            _ = becomesTrue { proxy.isStalled }
            pauseSeconds(1)
            cancelled.withLock { $0 = .now }
            control.cancel()
        }
        let report = try run.push(MemoryDevice(content), to: image, of: rig)
        cancelling.wait()
        // Before the server ends, which would wait for what hangs in it.
        proxy.close()
        let duration = ContinuousClock.now - cancelled.withLock { $0 }
        #expect(duration < .seconds(30))
        #expect(report.wasInterrupted && report.failure == nil, "\(report)")
        #expect(report.flushError?.isNetwork == true, "what was written may not be on the medium")
    }
}

/// Cuts what there is and refuses what comes, a moment after it was started and for a while.
private final class Trouble {
    private let proxy: FaultProxy
    private let running = Mutex<Threads.Running?>(nil)

    init(_ proxy: FaultProxy) { self.proxy = proxy }

    func start() {
        wait()
        running.withLock { $0 = run() }
    }

    private func run() -> Threads.Running {
        let proxy = proxy
        return Threads.start(count: 1, orInline: false) { _ in
            pauseSeconds(0.02)
            proxy.isRefusing = true
            proxy.cutEvery = 1...2
            pauseSeconds(0.8)
            proxy.cutEvery = nil
            proxy.isRefusing = false
        }
    }

    func wait() { running.withLock({ $0.take() })?.wait() }
}

private func pauseSeconds(_ seconds: Double) { usleep(UInt32(seconds * 1_000_000)) }
