// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import LinuxIO
internal import LogicalVolumes
internal import Synchronization
internal import SystemPackage

/// The programs that one refresh starts before and after its parts.
///
/// A file in /run/blkferry records what is still to be started. If the run is killed, the next one
/// or `--finish-killed` starts that.
final class Hooks: Sendable {
    /// The raw value is the name of the option.
    enum Moment: String {
        case beforeSnapshot = "before-snapshot"
        case afterSnapshot = "after-snapshot"
        case afterRun = "after-run"
        case onFailure = "on-failure"
    }

    /// What is still to be started; the raw value is the note of the lock.
    private enum Pending: Int {
        case nothing
        /// The programs for the end of the run.
        case end
        /// The program after the snapshot, too.
        case afterSnapshot
    }

    private let commands: [Moment: HookCommand]
    /// The environment of each program.
    private let variables: [String]
    private let source: String
    private let console: Console
    private let lockName: String
    private let lockDirectory: String
    /// From the first program to the end of the run.
    private let lock = Mutex<RunLock?>(nil)

    /// The status of a killed run in BLKFERRY_EXIT_STATUS: that of SIGKILL in a shell.
    static let killed: Int32 = 137

    init(
        _ options: HookOptions, _ operands: Operands, config: String?, _ console: Console,
        lockDirectory: String = RunLock.usualDirectory
    ) throws(CommandFailure) {
        let source = "\(operands.source)"
        self.source = source
        commands = options.commands
        variables =
            ["BLKFERRY_SOURCE=\(source)", "BLKFERRY_TARGET=\(operands.target)"]
            + (config.map { ["BLKFERRY_CONFIG=\($0)"] } ?? [])
        self.console = console
        self.lockDirectory = lockDirectory
        do throws(IOError) { lockName = "hooks-\(try operands.fileName())" } catch {
            throw CommandFailure(error)
        }
    }

    /// Has the run start the programs before and after its snapshot.
    func apply(to options: inout Replication.Options, _ control: Replication.Control) {
        guard !commands.isEmpty else { return }
        options.beforeSnapshot = { [self] () throws(ReplicationError) in
            try beforeSnapshot { control.isCancelled }
        }
        options.afterSnapshot = { [self] snapshot throws(ReplicationError) in
            try afterSnapshot(snapshot)
        }
    }

    func beforeSnapshot(unless isCancelled: () -> Bool) throws(ReplicationError) {
        // A run that waits for its target takes several snapshots.
        if lock.withLock({ $0 == nil }) {
            guard let taken = try locked() else {
                throw ReplicationError(
                    .refused, "\(source): before-snapshot: another run is in progress")
            }
            startLeft(taken)
            lock.withLock { $0 = taken }
        }
        try setPending(.afterSnapshot)
        try start(.beforeSnapshot, unless: isCancelled)
    }

    func afterSnapshot(_ snapshot: String?) throws(ReplicationError) {
        // Without the lock no program was started before the snapshot.
        guard lock.withLock({ $0 != nil }) else { return }
        try start(.afterSnapshot, snapshot.map { ["BLKFERRY_SNAPSHOT=\($0)"] } ?? [])
        try setPending(.end)
    }

    /// Starts the programs for the end of the run; their failures do not change its status.
    func finish(_ outcome: RunCommand.Outcome) {
        startEnd(outcome.status.rawValue, outcome.error)
        report { () throws(ReplicationError) in try setPending(.nothing) }
        lock.withLock { $0 = nil }
    }

    /// Starts what a killed run has not started any more.
    func finishKilled() -> ExitStatus {
        guard !commands.isEmpty else { return .done }
        var status = ExitStatus.done
        report { () throws(ReplicationError) in
            // If a process holds the lock, its run has not been killed.
            if let lock = try locked(), !startLeft(lock) { status = .deviceError }
        }
        return status
    }

    private func locked() throws(ReplicationError) -> RunLock? {
        do throws(IOError) { return try RunLock(lockName, in: lockDirectory) } catch {
            throw ReplicationError(error)
        }
    }

    /// Records it in the lock of the run, if it has one.
    private func setPending(_ pending: Pending) throws(ReplicationError) {
        guard let lock = lock.withLock({ $0 }) else { return }
        try setPending(pending, lock)
    }

    private func setPending(_ pending: Pending, _ lock: RunLock) throws(ReplicationError) {
        do throws(IOError) { try lock.setNote(pending.rawValue) } catch {
            throw ReplicationError(error)
        }
    }

    /// Starts what the last holder of the lock has left; `false` if anything failed.
    @discardableResult
    private func startLeft(_ lock: RunLock) -> Bool {
        guard let pending = Pending(rawValue: lock.note), pending != .nothing else { return true }
        console.warning("\(source): hooks: a run was killed; what it has left is started now")
        var isDone = true
        if pending == .afterSnapshot {
            isDone = report { () throws(ReplicationError) in try start(.afterSnapshot) }
        }
        isDone = startEnd(Self.killed, nil) && isDone
        return report { () throws(ReplicationError) in try setPending(.nothing, lock) } && isDone
    }

    /// Starts the programs for the end of a run; `false` if one failed.
    @discardableResult
    private func startEnd(_ status: Int32, _ error: String?) -> Bool {
        let variables =
            ["BLKFERRY_EXIT_STATUS=\(status)"] + (error.map { ["BLKFERRY_ERROR=\($0)"] } ?? [])
        let moments: [Moment] = status == 0 ? [.afterRun] : [.afterRun, .onFailure]
        return moments.reduce(true) { isDone, moment in
            report { () throws(ReplicationError) in try start(moment, variables) } && isDone
        }
    }

    /// Prints an error; `false` after one.
    @discardableResult
    private func report(_ work: () throws(ReplicationError) -> Void) -> Bool {
        do throws(ReplicationError) {
            try work()
            return true
        } catch {
            console.error(error.message, advice: error.advice)
            return false
        }
    }

    /// Starts a program and waits for its end.
    ///
    /// - Throws: `refused` if it fails, `interrupted` if it was killed because of a signal.
    private func start(
        _ moment: Moment, _ more: [String] = [], unless isCancelled: () -> Bool = { false }
    ) throws(ReplicationError) {
        guard let command = commands[moment] else { return }
        let object = "\(moment.rawValue): \(command.program)"
        guard let path = Program.findOfSystem(command.program) else {
            throw ReplicationError(.refused, "\(object): start: there is no such program")
        }
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                path, command.arguments,
                variables: variables + ["BLKFERRY_HOOK=\(moment.rawValue)"] + more,
                reading: .outputAndErrors, unless: isCancelled)
        } catch {
            throw ReplicationError(.refused, "\(object): start: \(error)")
        }
        for line in run.lines { console.note("\(moment.rawValue): \(line)") }
        guard let failure = run.failure else { return }
        let last = run.lines.last.map { ": \($0)" } ?? ""
        throw ReplicationError(
            isCancelled() ? .interrupted : .refused, "\(object): run: \(failure)\(last)")
    }
}
