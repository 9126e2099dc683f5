// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockReplication
import Foundation
import Synchronization
import TestSupport
import Testing

/// The library as its users see it: nothing here is imported from the layers below.
///
/// A run compares again if another program had the target open for writing, and a process that
/// another test has just forked is one, until it executes its program.
@Suite(.blocking) struct ReplicationTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let size = (5 << 20) + 777

    init() throws {
        scratch = try ScratchDirectory()
        source = scratch.file("source")
        var random = SeededGenerator(seed: 1)
        try Data(random.bytes(size)).write(to: URL(fileURLWithPath: source))
    }

    private func bytes(_ path: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: path))
    }

    private func error(
        _ action: Replication.Action = .synchronize, from: String, to: String,
        _ change: (inout Replication.Options) -> Void = { _ in }
    ) -> ReplicationError? {
        var options = Replication.Options()
        change(&options)
        do throws(ReplicationError) {
            _ = try Replication(action, from: from, to: to, options: options)
            return nil
        } catch {
            return error
        }
    }

    @Test func `a target becomes the replica, and the report has the figures of the run`() throws {
        let target = scratch.file("target")
        var options = Replication.Options()
        options.verifies = true
        let first = try Replication(from: source, to: target, options: options).run()
        #expect(first.isDone && first.error == nil && first.verifiedDifferent == 0)
        #expect(first.wasCreated && first.targetSize == 0 && first.resizedTo == size)
        #expect(first.sourceSize == size && first.compared == size)
        #expect(first.written == size && first.similarity == 0 && first.traffic == nil)
        #expect(try bytes(target) == bytes(source))

        var changed = try bytes(target)
        changed[100_000] ^= 1
        changed[3_000_000] ^= 1
        try changed.write(to: URL(fileURLWithPath: target))
        let comparison = try Replication(.compare, from: source, to: target).run()
        #expect(comparison.isDone && comparison.differentBlocks == 2 && comparison.written == 0)
        #expect(comparison.firstDifferences == [98304..<102400, 2_998_272..<3_002_368])
        let dryRun = try Replication(.dryRun, from: source, to: target).run()
        #expect(dryRun.isDone && dryRun.different == 8192 && dryRun.written == 0)
        #expect(try bytes(target) == changed)
        let second = try Replication(from: source, to: target).run()
        #expect(second.isDone && second.written == 8192 && !second.wasCreated)
        #expect(second.verifiedDifferent ?? 0 == 0)
        #expect(try bytes(target) == bytes(source))
    }

    @Test func `progress is reported during the run, and not after it`() throws {
        let calls = Mutex<[Replication.Progress]>([])
        // A run may end before the thread that reports gets a processor.
        for attempt in 0..<20 where calls.withLock({ $0.isEmpty }) {
            let replication = try Replication(from: source, to: scratch.file("target\(attempt)"))
            let report = replication.run(every: .zero) { progress in
                calls.withLock { $0.append(progress) }
            }
            let count = calls.withLock { $0.count }
            #expect(report.isDone)
            usleep(50_000)
            #expect(calls.withLock { $0.count } == count)
            #expect(calls.withLock { $0.allSatisfy { $0.done <= $0.total && $0.total <= size } })
            let last = replication.control.progress
            #expect(last.done == size)
            if report.verifiedDifferent == nil {
                #expect(last.phase == .flush && last.different == size)
            } else {
                #expect(last.phase == .verify && last.different == 0)
            }
        }
        #expect(calls.withLock { !$0.isEmpty })
    }

    @Test func `a cancelled run is not done, and its report says so`() throws {
        let replication = try Replication(from: source, to: scratch.file("target"))
        replication.control.cancel()
        let report = replication.run()
        #expect(replication.control.isCancelled && report.wasInterrupted && !report.isDone)
        #expect(report.error == nil && report.compared == 0)
    }

    @Test func `a refusal of the gate is an error of its kind, with its cause`() throws {
        let foreign = try scratch.sparseFile("foreign", size: 8 << 20)
        try must("mkfs.ext4", "-q", "-F", "-L", "precious", foreign)
        let before = try bytes(foreign)
        let refusal = try #require(error(from: source, to: foreign))
        #expect(refusal.kind == .refused && refusal.cause == "signature")
        #expect(refusal.message.hasPrefix("\(foreign): refused: it holds ext4"))
        #expect(refusal.advice?.contains("--overwrite") == true)
        let sizes = try #require(
            error(from: source, to: foreign) {
                $0.overwrites = true
                $0.sizePolicy = .refuse
            })
        #expect(sizes.kind == .refused && sizes.cause == "size")
        #expect(try bytes(foreign) == before)
        #expect(error(from: source, to: foreign) { $0.overwrites = true } == nil)
    }

    @Test func `an impossible request is an error before anything is opened or created`() throws {
        let target = scratch.file("target")
        let wrong: [(String, String, (inout Replication.Options) -> Void)] = [
            (source, target, { $0.blockSize = 1000 }), (source, target, { $0.concurrency = 0 }),
            (source, target, { $0.bytesPerSecond = 1 }), (source, target, { $0.digest = "none" }),
            (source, target, { $0.retryFor = .seconds(-1) }),
            ("", target, { _ in }), (source, "http://127.0.0.1", { _ in }),
            ("http://127.0.0.1/a", "http://127.0.0.1/b", { _ in }), ("ftp://a/b", target, { _ in }),
        ]
        for (from, to, change) in wrong {
            #expect(error(from: from, to: to, change)?.kind == .invalid, "\(from) \(to)")
        }
        #expect(error(from: scratch.file("missing"), to: target)?.kind == .device)
        // The kernel assigns this port to no program that asks for any port.
        let lost = try #require(error(from: source, to: "http://127.0.0.1:1/x"))
        #expect(lost.kind == .network)
        #expect(!FileManager.default.fileExists(atPath: target))
    }

    @Test func `snapshot options that do not go together are an error before LVM is asked`() {
        let target = scratch.file("target")
        let wrong: [(Replication.Action, String, (inout Replication.Options) -> Void)] = [
            (.refresh, source, { $0.since = "vg0/s" }), (.refresh, source, { $0.wholeFile = true }),
            (.compare, source, { $0.snapshotsSource = true }),
            (.compare, source, { $0.since = "vg0/s" }),
            (.refresh, "http://127.0.0.1:1/vg0/a", { _ in }),
            (.synchronize, "ssh://127.0.0.1/vg0/a", { $0.since = "vg0/s" }),
            (.synchronize, source, { ($0.since, $0.wholeFile) = ("vg0/s", true) }),
            (.refresh, source, { $0.snapshotSize = .percent(101) }),
            (.refresh, source, { $0.snapshotSize = .bytes(0) }),
        ]
        for (index, (action, from, change)) in wrong.enumerated() {
            #expect(error(action, from: from, to: target, change)?.kind == .invalid, "\(index)")
        }
    }

    @Test func `a refresh of what is no logical volume is an error, and creates no target`() {
        let target = scratch.file("target")
        let wanted: [(Replication.Action, (inout Replication.Options) -> Void)] = [
            (.refresh, { _ in }), (.synchronize, { $0.snapshotsSource = true }),
            (.dryRun, { $0.since = "vg0/s" }),
        ]
        for (action, change) in wanted {
            let error = error(action, from: source, to: target, change)
            #expect(error?.kind == .device)
            #expect(error?.message == "\(source): find volume: it is no logical volume")
        }
        #expect(!FileManager.default.fileExists(atPath: target))
    }

    @Test func `a control that was cancelled before says that nothing was written`() {
        let control = Replication.Control()
        control.cancel()
        do throws(ReplicationError) {
            _ = try Replication(
                .refresh, from: source, to: scratch.file("target"), control: control)
            Issue.record("it opened an image as a logical volume")
        } catch {
            #expect(error.kind == .interrupted && error.message.hasSuffix("nothing was written"))
        }
    }

    @Test func `a run that is cancelled while a server does not answer counts as interrupted`() {
        let server = ScriptedServer.streams { stream in
            while try !stream.receive().isEmpty {}
        }
        let control = Replication.Control()
        control.cancel()
        do throws(ReplicationError) {
            _ = try Replication(from: source, to: "\(server.base)/dev/a", control: control)
            Issue.record("it opened a device of a server that does not answer")
        } catch {
            #expect(error.kind == .interrupted, "\(error)")
        }
        withExtendedLifetime(server) {}
    }

    @Test func `events carry the warnings for the user`() throws {
        let events = Mutex<[Replication.Event]>([])
        let report = try Replication(from: source, to: scratch.file("target")) { event in
            events.withLock { $0.append(event) }
        }.run()
        #expect(report.warnings.isEmpty)
        let notes = events.withLock { $0 }
        let access = notes.filter {
            if case .note(let text) = $0 { text.contains(" I/O, units of ") } else { false }
        }
        #expect(access.count == 2)
    }
}
