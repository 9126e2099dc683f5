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
    let replication = try Replication(from: source, to: target, options: options) { event in
        if case .warning(let text) = event { print("warning: \(text)") }
    }
    let report = replication.run { progress in
        print("\(progress.phase.rawValue): \(progress.done) of \(progress.total) bytes")
    }
    if let error = report.error { throw error }
    print("\(report.written) bytes written, \(report.zeroed) zeroed")
    return report.isDone
}

guard CommandLine.arguments.count == 3 else {
    print("usage: replicate SOURCE TARGET")
    exit(64)
}
do throws(ReplicationError) {
    let isDone = try replicate(CommandLine.arguments[1], CommandLine.arguments[2])
    print(isDone ? "a replica" : "not a replica")
    exit(isDone ? 0 : 1)
} catch {
    print(error.message)
    if let advice = error.advice { print(advice) }
    exit(error.kind == .refused ? 2 : 3)
}
