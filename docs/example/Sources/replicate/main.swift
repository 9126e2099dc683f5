// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockReplication
import Glibc

/// Tells how far two devices differ, makes the second equal to the first, and reads it back.
///
/// - Returns: whether the second is a replica of the first, on the medium.
func replicate(_ source: String, _ target: String) throws(ReplicationError) -> Bool {
    let comparison = try Replication(.dryRun, from: source, to: target).run()
    print("\(comparison.differentBlocks) blocks of \(comparison.blockSize) bytes differ")

    var options = Replication.Options()
    options.verifies = true
    let replication = try Replication(from: source, to: target, options: options, events: show)
    let report = replication.run { progress in
        print("\(progress.phase.rawValue): \(progress.done) of \(progress.total) bytes")
    }
    if let error = report.error { throw error }
    print("\(report.written) bytes written, \(report.zeroed) zeroed")
    return report.isDone
}

/// Brings the replica of a logical volume up to date, and reads only what has changed.
///
/// - Parameter snapshot: the one that the target is the replica of; `nil` for the one that the last
///   refresh left.
func refresh(
    _ volume: String, _ target: String, since snapshot: String? = nil
) throws(ReplicationError) -> Bool {
    var options = Replication.Options()
    options.snapshotsSource = true
    options.snapshotSize = .percent(20)
    options.since = snapshot
    let report = try Replication(
        snapshot == nil ? .refresh : .synchronize, from: volume, to: target, options: options,
        events: show
    ).run()
    if let error = report.error { throw error }
    print("\(report.compared) bytes compared, \(report.unchanged) left unread")
    return report.isDone
}

func show(_ event: Replication.Event) {
    switch event {
    case .warning(let text): print("warning: \(text)")
    case .advice(let text): print("  \(text)")
    case .failure(let error): print(error.message)
    case .note, .waiting: break
    }
}

do throws(ReplicationError) {
    let arguments = Array(CommandLine.arguments.dropFirst())
    let isDone: Bool
    switch (arguments.first, arguments.count) {
    case ("--refresh", 3): isDone = try refresh(arguments[1], arguments[2])
    case ("--since", 4): isDone = try refresh(arguments[2], arguments[3], since: arguments[1])
    case (_, 2): isDone = try replicate(arguments[0], arguments[1])
    default:
        print("usage: replicate [--refresh | --since SNAPSHOT] SOURCE TARGET")
        exit(64)
    }
    print(isDone ? "a replica" : "not a replica")
    exit(isDone ? 0 : 1)
} catch {
    print(error.message)
    if let advice = error.advice { print(advice) }
    exit(error.kind == .refused ? 2 : 3)
}
