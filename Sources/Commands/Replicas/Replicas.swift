// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import LinuxIO
internal import SystemPackage

/// `blkferry replicas`: what `refresh --config` has last done for each target.
struct Replicas: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List the replicas that have a file, their last runs, and what is wrong.",
        discussion: """
            The list has each target of the files in /etc/blkferry/replicas. The exit status is 1 \
            if the last refresh of one has failed, if there was none, or if a file is wrong.
            """)

    @Flag(help: "Print the list as one JSON object.")
    var json = false

    @Option(
        help: ArgumentHelp(
            "A replica that is older, such as 26h or 2d, is wrong, too.", valueName: "duration"))
    var maxLag: TimeSpan?

    @Argument(help: "List only this file, named as for refresh --config.")
    var name: String?

    func run() throws {
        let console = Console()
        let timers = RefreshTimer.active()
        var entries: [ReplicaEntry] = []
        for name in try name.map({ [$0] }) ?? allNames(console) {
            entries += listed(name, timers)
        }
        let text =
            json
            ? JSON.line(["replicas": entries])
            : entries.isEmpty
                ? "no file in \(ReplicaFile.directory)" : ReplicaEntry.table(of: entries)
        guard console.result(text) else { throw CommandEnd(status: .deviceError) }
        if !json {
            for entry in entries { entry.printProblems(console) }
        }
        guard entries.allSatisfy(\.problems.isEmpty) else { throw CommandEnd(status: .different) }
    }

    /// The names of all files; none without the directory.
    private func allNames(_ console: Console) throws -> [String] {
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
            if let maxLag, let lag = entry.lag, .seconds(lag) > maxLag.duration {
                entry.problems.append("the replica is older than --max-lag")
            }
            return entry
        }
    }
}
