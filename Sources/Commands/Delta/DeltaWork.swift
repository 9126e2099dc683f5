// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication

/// The work of `diff` or `apply`, under watch for signals.
struct DeltaWork {
    var command: String
    /// What a message about a second signal is about.
    var object: String
    var messages: RunWatcher.Messages
    var console: Console
    var json: Bool

    /// - Throws: the end of the program, after an error that is printed here.
    func run<Report>(
        _ work: (Replication.Control, @escaping @Sendable (Replication.Event) -> Void)
            throws(ReplicationError) -> Report
    ) throws(CommandEnd) -> Report {
        let control = Replication.Control()
        let result = RunWatcher.watch(
            control, ProgressDisplay(.none, console), target: object, console, messages: messages
        ) {
            Result { () throws(ReplicationError) in
                try work(control) { [console] in console.show($0) }
            }
        }
        RunWatcher.endAtSignals()
        do throws(ReplicationError) { return try result.get() } catch {
            throw failed(CommandFailure(error))
        }
    }

    func failed(_ failure: CommandFailure) -> CommandEnd {
        console.error(failure.message, advice: failure.advice)
        if json { console.result(JSON.line(FailureRecord(failure, command: command))) }
        return CommandEnd(status: failure.status)
    }
}
