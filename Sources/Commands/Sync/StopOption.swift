// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import LinuxIO

struct StopOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "End the run in order after this time, such as 30m or 4h; end with 7 if it is not "
                + "finished.", valueName: "duration"))
    var stopAfter: TimeSpan?

    func validate() throws {
        if let stopAfter, stopAfter.duration == .zero {
            throw ValidationError("--stop-after 0: must be more than 0")
        }
    }
}

/// Stops a run when its time is over.
enum StopTimer {
    /// When the program was started; the runs of a replica's file share the time.
    static let programStart = ContinuousClock.now

    /// Does work that stops if it lasts longer than a time since the start of the program.
    ///
    /// - Parameters:
    ///   - time: `nil` for no limit.
    ///   - report: called before the work is stopped.
    static func limit<Value>(
        to time: TimeSpan?, _ control: Replication.Control, _ console: Console,
        report: @escaping @Sendable () -> Void, _ work: () throws(ReplicationError) -> Value
    ) throws(ReplicationError) -> Value {
        guard let time else { return try work() }
        let end = programStart + time.duration
        let hasEnded = Guarded(false)
        let thread = Threads.start(count: 1, orInline: false) { _ in
            guard hasEnded.wait(until: end, { $0 ? true : nil }) == nil else { return }
            report()
            control.stop()
        }
        if thread.isEmpty { console.warning("--stop-after: no thread could be started for it") }
        let result = Result { () throws(ReplicationError) in try work() }
        hasEnded.withLock { $0 = true }
        thread.wait()
        return try result.get()
    }
}
