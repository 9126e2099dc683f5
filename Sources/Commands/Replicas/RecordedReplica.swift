// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import Glibc
internal import LinuxIO
internal import SyncEngine

struct ReplicaOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Leave the result as one of this replica, for blkferry replicas and Prometheus "
                + "(with --config: its name).", valueName: "name"))
    var replica: String?

    /// `nil` for a run whose result is not kept.
    func recorded(
        config: String? = nil, _ common: ComparisonOptions
    ) throws(ReplicationError) -> RecordedReplica? {
        guard let name = replica ?? config else { return nil }
        return RecordedReplica(name: name, operands: try common.operands, console: common.console)
    }
}

/// A replica whose runs leave their results.
///
/// A result that cannot be left is a warning, and does not change the result.
struct RecordedReplica {
    let name: String
    let operands: Operands
    let console: Console

    /// The file for the checkpoint of a run that ends early; `nil` if the state cannot be written.
    var checkpoint: String? { try? ReplicaState.checkpoint(of: operands) }

    /// Leaves a trace of a run that may be killed.
    func begin(_ start: Int) {
        update {
            $0.running = .init(start: start, process: processIdentity(of: getpid()))
        }
    }

    func end(since start: Int, _ outcome: RunCommand.Outcome) {
        let run = ReplicaState.Run(since: start, outcome)
        update { state in
            state.running = nil
            state.lastRun = run
            if run.exitStatus == 0 { state.lastSuccess = run }
            guard let verification = outcome.report?.engine.verification,
                let size = run.size, verification.compared == size
            else { return }
            // The run has read all of both sides again.
            state.lastVerify = run
            state.lastVerify?.compared = size
            state.lastVerify?.different = verification.different
            state.round = nil
        }
    }

    /// Records the end of a run that was killed; nothing if there is none.
    func endKilled() {
        guard let running = (try? ReplicaState.of(operands))?.running, !isRunning(running.process)
        else { return }
        update { state in
            state.running = nil
            state.lastRun = .init(
                start: running.start, end: time(nil), exitStatus: Hooks.killed, error: "killed")
        }
    }

    /// The samples of earlier verifications, which the next one continues.
    var round: Replication.Options.SampleRound? { (try? ReplicaState.of(operands))?.round }

    /// A verification that ended early says nothing, and leaves the result of the one before.
    func verified(since start: Int, _ outcome: RunCommand.Outcome) {
        guard ![.interrupted, .stopped].contains(outcome.status) else { return }
        let run = ReplicaState.Run(since: start, outcome)
        update { state in
            state.lastVerify = run
            guard let report = outcome.report else { return }
            // After a difference the next run compares the same windows again.
            switch outcome.status {
            case .done: state.round = report.round
            case .different: state.round = report.roundBefore
            default: break
            }
        }
    }

    private func update(_ change: (inout ReplicaState) -> Void) {
        do throws(IOError) { try ReplicaState.update(operands, named: name, change) } catch {
            console.warning("\(error)")
        }
    }
}

extension ReplicaState.Run {
    /// A run that has ended now.
    init(since start: Int, _ outcome: RunCommand.Outcome) {
        self.start = start
        end = time(nil)
        exitStatus = outcome.status.rawValue
        error = outcome.error
        guard let report = outcome.report else { return }
        size = report.sourceSize
        compared = report.compared
        unchanged = report.unchanged
        different = report.different
        written = report.written
        fullComparison = report.fullComparison
    }
}
