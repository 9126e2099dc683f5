// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// The machine's rsync, doing the work of a sync.
struct BenchmarkRsync {
    /// The version that rsync prints, such as `3.5.0`.
    let version: String
    private let program: String
    private let arguments: [String]

    /// Why there is no rsync to compare with; the benchmark warns once.
    struct Absence: Error {
        /// `nil` if the user did not configure an rsync daemon.
        var reason: String?
    }

    struct Job {
        var source: Location
        /// A path.
        var target: String
        var isSourceDevice: Bool
        var isTargetDevice: Bool
    }

    /// Finds rsync, and the options that make it copy what a sync copies.
    init(_ job: Job, unless isCancelled: () -> Bool) throws(Absence) {
        guard let program = Program.find("rsync") else {
            throw Absence(reason: "it is not found on this machine")
        }
        // setpriv(1) ends rsync if this program is killed. Otherwise it would continue to write.
        let keeper = Program.find("setpriv")
        self.program = keeper ?? program
        version =
            try Self.ask(program, "--version", isCancelled)
            .split(whereSeparator: \.isWhitespace).dropFirst(2).first.map(String.init) ?? "?"
        let help = try Self.ask(program, "--help", isCancelled)
        func has(_ option: String) -> Bool { help.contains(option) }
        var arguments = ["--inplace", "--no-whole-file", "-I"]
        for (isNeeded, option) in [
            (job.isSourceDevice, "--copy-devices"), (job.isTargetDevice, "--write-devices"),
        ] where isNeeded {
            guard has(option) else {
                throw Absence(reason: "version \(version) has no \(option)")
            }
            arguments.append(option)
        }
        // rsync must also write to the medium, as a sync does.
        if has("--fsync") { arguments.append("--fsync") }
        let prefix = keeper == nil ? [] : ["--pdeathsig", "KILL", program]
        self.arguments = try prefix + arguments + [Self.source(job.source), job.target]
    }

    private static func ask(
        _ program: String, _ question: String, _ isCancelled: () -> Bool
    ) throws(Absence) -> String {
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                program, [question], reading: .outputAndErrors, unless: isCancelled)
        } catch {
            throw Absence(reason: "\(program): start: \(error)")
        }
        if let failure = run.failure {
            throw Absence(reason: "\(program) \(question): \(failure)")
        }
        return run.text
    }

    /// Returns rsync's name of the source; for a device on a server, its path in a module of an
    /// rsync daemon.
    private static func source(_ source: Location) throws(Absence) -> String {
        guard let location = source.remote else { return source.description }
        let families = ["BLKFERRY", "PDIFFCOPY"].map { family in
            ["SERVER", "MODULE", "ROOT"].compactMap { name in
                getenv("\(family)_BENCHMARK_RSYNC_\(name)").map { String(cString: $0) }
            }.filter { !$0.isEmpty }
        }
        guard let given = families.first(where: { $0.count == 3 }) else { throw Absence() }
        let root = given[2].hasSuffix("/") ? given[2] : given[2] + "/"
        guard let path = location.selector, path.begins(with: root),
            path.utf8.count > root.utf8.count
        else {
            throw Absence(reason: "\(source) is not below \(given[2]), the root of its module")
        }
        let name = String(decoding: path.utf8.dropFirst(root.utf8.count), as: UTF8.self)
        return "rsync://\(given[0])/\(given[1])/\(name)"
    }

    /// Copies; returns the messages of a failure, which are empty after a success.
    func run(unless isCancelled: () -> Bool) -> [String] {
        do throws(Errno) {
            let run = try ProgramRun(program, arguments, reading: .errors, unless: isCancelled)
            guard let failure = run.failure else { return [] }
            return run.lines.suffix(8).map { "rsync: \($0)" } + ["rsync: \(failure)"]
        } catch {
            return ["rsync: start: \(error)"]
        }
    }
}
