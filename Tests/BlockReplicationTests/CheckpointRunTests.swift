// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import LinuxIO
import SyncEngine
import Synchronization
import TestSupport
import Testing

@testable import BlockReplication

/// Runs between images that are stopped, and continue from their checkpoint.
@Suite(.blocking, .timeLimit(.minutes(60))) struct CheckpointRunTests {
    let scratch: ScratchDirectory
    let source: String
    let target: String
    let file: String
    let size = 32 << 20
    let half = 16 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = scratch.file("source")
        target = try scratch.sparseFile("target", size: size)
        file = scratch.file("checkpoint")
        try write(seed: 1, to: source)
    }

    private func write(seed: UInt64, to path: String) throws {
        var random = SeededGenerator(seed: seed)
        try Data(random.bytes(size)).write(to: URL(fileURLWithPath: path))
    }

    /// - Parameter limit: bytes of progress at which the run stops.
    func run(
        stopsAt limit: Int? = nil, _ action: Replication.Action = .synchronize,
        to other: String? = nil, _ change: (inout Replication.Options) -> Void = { _ in }
    ) throws -> (report: Replication.Report, warnings: [String]) {
        var options = Replication.Options()
        options.concurrency = 1
        options.checkpoint = .init(file: file)
        change(&options)
        let warnings = Box()
        let replication = try Replication(
            action, from: source, to: other ?? target, options: options,
            control: .init(RunControl(stopsAt: limit))
        ) { event in
            if case .warning(let text) = event { warnings.add(text) }
        }
        let report = replication.run()
        return (report, warnings.all + report.closingWarnings)
    }

    private final class Box: Sendable {
        private let lines = Mutex<[String]>([])
        func add(_ line: String) { lines.withLock { $0.append(line) } }
        var all: [String] { lines.withLock { $0 } }
    }

    private var isEqual: Bool {
        FileManager.default.contentsEqual(atPath: source, andPath: target)
    }

    private var exists: Bool { FileManager.default.fileExists(atPath: file) }

    private func record() throws -> CheckpointRecord {
        guard case .record(let record) = try CheckpointFile(file).read() else {
            throw NoRecord()
        }
        return record
    }

    private struct NoRecord: Error {}

    private func patch(_ path: String, _ bytes: [UInt8], at offset: Int) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try handle.seek(toOffset: UInt64(offset))
        try handle.write(contentsOf: Data(bytes))
        try handle.close()
    }

    @Test(arguments: [false, true])
    func `three nights copy each byte once, and the last one verifies all`(isWhole: Bool) throws {
        var compared = 0
        for (night, limit) in [10 << 20, 20 << 20, nil].enumerated() {
            let (report, warnings) = try run(stopsAt: limit) {
                $0.verifies = true
                $0.wholeFile = isWhole
            }
            let use = try #require(report.checkpoint)
            #expect(warnings.isEmpty && use.fallback == nil)
            #expect(use.resumed == compared)
            #expect(use.sampled * 20 <= use.resumed && (use.sampled > 0) == (night > 0))
            compared += report.compared
            #expect(report.wasStopped == (limit != nil))
            if let limit {
                #expect(use.done == limit && exists && !isEqual)
                #expect(report.isFlushed && report.verifiedDifferent == nil)
            } else {
                #expect(report.isDone && use.done == nil)
                #expect(report.engine.verification?.compared == size)
            }
        }
        #expect(compared == size)
        #expect(isEqual && !exists)
    }

    @Test func `a run that is stopped while it reads back compares nothing again`() throws {
        // The limit is of each phase; the first one is complete with its last window.
        let first = try run(stopsAt: size) { $0.verifies = true }.report
        #expect(first.wasStopped && first.checkpoint?.done == size)
        #expect(isEqual && exists)
        let second = try run { $0.verifies = true }.report
        #expect(second.isDone && second.compared == 0 && second.checkpoint?.resumed == size)
        #expect(second.engine.verification?.compared == size)
        #expect(!exists)
    }

    enum Change: CaseIterable {
        case targetDone, targetRest, targetMapped, targetHole, targetTouched, targetReplaced
        case sourceDone, sourceRest, sourceReplaced
        case boot, sourceBoot, killed, cut, version, otherTarget, whole, prefix, grown
    }

    @Test(arguments: Change.allCases)
    func `after any change in between everything is compared, and the end is a replica`(
        change: Change
    ) throws {
        #expect(try run(stopsAt: half).report.checkpoint?.done == half)
        var words: Set = ["written"]
        var isWhole = false
        switch change {
        case .targetDone: try patch(target, [1, 2, 3], at: 5000)
        case .targetRest: try patch(target, [1, 2, 3], at: half + 5000)
        case .targetMapped:
            try must("python3", "-c", Self.store, target)
        case .targetHole: try must("fallocate", "-p", "-o", "1M", "-l", "1M", target)
        case .targetTouched: try must("touch", target)
        case .targetReplaced:
            try must("cp", "--sparse=always", target, scratch.file("copy"))
            try must("mv", scratch.file("copy"), target)
        case .sourceDone: try patch(source, [1, 2, 3], at: 5000)
        case .sourceRest: try patch(source, [1, 2, 3], at: half + 5000)
        case .sourceReplaced:
            try write(seed: 7, to: scratch.file("copy"))
            try must("mv", scratch.file("copy"), source)
        case .boot, .sourceBoot:
            var record = try record()
            if change == .boot { record.target.boot = "other" } else { record.source.boot = "x" }
            try CheckpointFile(file).write(record)
            words = ["restarted"]
        case .killed:
            let bytes = try CheckpointFile.sealed(Array(#"{"running":"boot.1.1"}"#.utf8))
            try Data(bytes).write(to: URL(fileURLWithPath: file))
            words = ["unfinished"]
        case .cut:
            try must("truncate", "-s", "-1", file)
            words = ["damaged"]
        case .version:
            try patch(file, Array("9".utf8), at: "blkferry checkpoint ".utf8.count)
            words = ["other-version"]
        case .otherTarget:
            try must("mv", target, scratch.file("other"))
            try must("cp", scratch.file("other"), target)
            try must("mv", scratch.file("other"), scratch.file("third"))
            var record = try record()
            record.target.identity += "x"
            try CheckpointFile(file).write(record)
            words = ["other-pair"]
        case .whole:
            isWhole = true
            words = ["other-options"]
        case .prefix: words = ["other-options"]
        case .grown:
            try must("truncate", "-s", "+1M", target)
            words = ["resized", "written"]
        }
        let (report, warnings) = try run {
            $0.wholeFile = isWhole
            if change == .prefix { $0.sizePolicy = .prefix }
        }
        #expect(report.isDone, "\(report)")
        #expect(words.contains(report.checkpoint?.fallback ?? ""))
        #expect(report.compared == size && report.checkpoint?.resumed == 0)
        let expected = warnings.filter { $0.hasPrefix("falls back to a full comparison: \(file)") }
        #expect(expected.count == 1, "\(warnings)")
        #expect(isEqual && !exists)
    }

    private static let store = """
        import mmap, os, sys
        f = os.open(sys.argv[1], os.O_RDWR)
        m = mmap.mmap(f, 0)
        m[8192:8195] = b"abc"
        """

    @Test(arguments: [true, false])
    func `a change that no counter shows is found by the samples`(isKept: Bool) throws {
        _ = try run(stopsAt: half)
        var record = try record()
        try patch(target, [UInt8](repeating: 9, count: half), at: 0)
        do {
            let pair = try OpenPair(
                .dryRun, Operands(source, target), options: .init(), control: RunControl()
            ) { _ in }
            record.target.counter = try #require(try pair.side(.target).record).counter
            if !isKept {
                let places = DoneSample.kept(
                    in: try #require(record.doneRanges), size: size, seed: record.sample.seed)
                record.sample.digest = try pair.sampleDigest(
                    of: .target, at: places.map { $0.offset..<$0.end })
            }
        }
        try CheckpointFile(file).write(record)
        let (report, warnings) = try run()
        #expect(report.checkpoint?.fallback == "not-the-replica")
        #expect(
            warnings.first?.contains(isKept ? "is not what that run has left" : "differs at")
                == true)
        #expect(report.isDone && report.compared == size && isEqual)
    }

    @Test func `from the first write on the file claims nothing`() throws {
        _ = try run(stopsAt: half)
        let seen = Mutex<CheckpointFile.Content?>(nil)
        var options = Replication.Options()
        options.concurrency = 1
        options.checkpoint = .init(file: file)
        let file = file
        let replication = try Replication(from: source, to: target, options: options)
        #expect(try CheckpointFile(file).read() != .missing, "opening changes nothing")
        let report = replication.run(every: .microseconds(100)) { progress in
            guard progress.done > 0, progress.phase == .sync else { return }
            seen.withLock { $0 = $0 ?? (try? CheckpointFile(file).read()) }
        }
        #expect(report.isDone)
        if case .record = seen.withLock({ $0 }) { Issue.record("it still claims something") }
    }

    @Test func `a source that is written during the run leaves no checkpoint`() throws {
        var options = Replication.Options()
        options.concurrency = 1
        options.checkpoint = .init(file: file)
        let replication = try Replication(
            from: source, to: target, options: options,
            control: .init(RunControl(stopsAt: half)))
        let source = source
        let isDone = Mutex(false)
        let report = replication.run(every: .microseconds(50)) { _ in
            isDone.withLock { isDone in
                guard !isDone else { return }
                isDone = true
                let handle = FileHandle(forUpdatingAtPath: source)
                try? handle?.write(contentsOf: Data([1]))
                try? handle?.close()
            }
        }
        // It may have been written before the run had begun, which then does not count.
        guard report.sourceChanged else { return }
        #expect(report.checkpoint?.done == nil && !exists)
        #expect(report.closingWarnings.contains { $0.contains("has written to \(source)") })
    }

    @Test func `a program with the target open for writing leaves no checkpoint`() throws {
        let holder = try RunningProgram([
            "sh", "-c", "exec 3<>\"$0\"; echo open; sleep 100", target,
        ])
        while try !holder.outputSoFar().contains("open") { usleep(2000) }
        let (report, warnings) = try run(stopsAt: half)
        holder.signal(SIGKILL)
        _ = try holder.wait()
        #expect(report.checkpoint?.done == nil && !exists)
        #expect(warnings.contains { $0.contains("other programs may have written to it") })
        #expect(try run().report.isDone)
        #expect(isEqual)
    }

    @Test func `an image without a change counter is copied without a checkpoint, said once`()
        throws
    {
        let memory = try ScratchDirectory(in: "/dev/shm")
        let other = try memory.sparseFile("target", size: size)
        let (report, warnings) = try run(stopsAt: half, to: other)
        #expect(report.wasStopped && report.checkpoint?.done == nil && !exists)
        #expect(warnings.count == 1 && warnings[0].contains("no persistent change counter"))
        let (quiet, none) = try run(stopsAt: half, to: other) { $0.checkpoint?.isAutomatic = true }
        #expect(quiet.wasStopped && none.isEmpty)
        #expect(try run(to: other).report.isDone)
        #expect(FileManager.default.contentsEqual(atPath: source, andPath: other))
    }
}
