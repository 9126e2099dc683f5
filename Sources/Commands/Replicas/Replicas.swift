// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// `blkferry replicas`: what the last runs of each replica have done.
struct Replicas: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List the replicas, their last runs, and what is wrong.",
        discussion: """
            The list has each target of the files in /etc/blkferry/replicas, and what was synced, \
            refreshed or verified with --replica. The exit status is 1 if the last run of one has \
            failed, if there was none, or if a file is wrong.
            """)

    @Flag(help: "Print the list as one JSON object.")
    var json = false

    @Flag(help: "Print the results of all runs as metrics for Prometheus; end with 0.")
    var metrics = false

    @Option(
        help: ArgumentHelp(
            "A replica that is older, such as 26h or 2d, is wrong, too.", valueName: "duration"))
    var maxLag: TimeSpan?

    @Argument(help: "List only this file, named as for refresh --config.")
    var name: String?

    func validate() throws {
        if metrics && json { throw ValidationError("--metrics does not go with --json") }
    }

    func run() throws {
        let console = Console()
        let states = ReplicaState.all().filter { name == nil || $0.name == name }
        if metrics {
            guard console.result(ReplicaMetrics.text(of: states, at: time(nil))) else {
                throw CommandEnd(status: .deviceError)
            }
            return
        }
        let timers = RefreshTimer.active()
        var entries: [ReplicaEntry] = []
        for name in try names(states, console) { entries += listed(name, timers) }
        for state in states
        where !entries.contains(where: { $0.source == state.source && $0.target == state.target }) {
            var entry = ReplicaEntry(name: state.name)
            entry.add(state)
            entries.append(checked(entry))
        }
        let text =
            json
            ? JSON.line(["replicas": entries])
            : entries.isEmpty
                ? "no replica, and no file in \(ReplicaFile.directory)"
                : ReplicaEntry.table(of: entries)
        guard console.result(text) else { throw CommandEnd(status: .deviceError) }
        if !json {
            for entry in entries { entry.printProblems(console) }
        }
        guard entries.allSatisfy(\.problems.isEmpty) else { throw CommandEnd(status: .different) }
    }

    /// The names of all files, or the given one; none without the directory, or if only states have
    /// the name.
    private func names(_ states: [ReplicaState], _ console: Console) throws -> [String] {
        if let name {
            return states.isEmpty || FileStatus.exists(ReplicaFile.path(of: name)) ? [name] : []
        }
        do throws(Errno) {
            return try bytesOfNamesInDirectory(KernelPath(ReplicaFile.directory))
                .map { String(decoding: $0, as: UTF8.self) }
                .filter { $0.hasSuffix(ReplicaFile.suffix) && !$0.hasPrefix(".") }
                .map { String($0.dropLast(ReplicaFile.suffix.count)) }.sorted()
        } catch .noSuchFileOrDirectory {
            return []
        } catch {
            console.error("\(ReplicaFile.directory): read: \(error)")
            throw CommandEnd(status: .deviceError)
        }
    }

    /// An entry for each target of a file, or one for a file that is wrong.
    private func listed(_ name: String, _ timers: [RefreshTimer]) -> [ReplicaEntry] {
        let file: ReplicaFile
        do throws(CommandFailure) {
            file = try ReplicaFile(named: name)
            try file.check()
        } catch {
            return [ReplicaEntry(name: name, problems: [error.message])]
        }
        let next = timers.first { $0.isOf(name) }?.seconds
        return file.targets.map { target in
            var entry = ReplicaEntry(name: name, nextRun: next)
            // `check` has parsed both.
            if let operands = try? Operands(file.source, target) { entry.addState(of: operands) }
            return checked(entry)
        }
    }

    private func checked(_ entry: ReplicaEntry) -> ReplicaEntry {
        var entry = entry
        if let maxLag, let lag = entry.lag, .seconds(lag) > maxLag.duration {
            entry.problems.append("the replica is older than --max-lag")
        }
        return entry
    }
}
