// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// The rsync of this machine, doing what a sync does.
struct BenchmarkRsync {
    /// What it tells of itself: `3.5.0`.
    let version: String
    private let program: String
    private let arguments: [String]

    /// Why there is nothing to compare with; a reason is said once.
    struct Absence: Error {
        /// `nil` where nobody has asked for it.
        var reason: String?
    }

    /// What it is to copy.
    struct Job {
        /// A path, or a URL of a server.
        var source: String
        var target: String
        var isSourceDevice: Bool
        var isTargetDevice: Bool
    }

    /// Finds rsync, and how it copies what a sync copies.
    ///
    /// - Parameters:
    ///   - job: what to copy.
    ///   - isOver: asked now and then.
    /// - Throws: why there is no way.
    init(_ job: Job, unless isOver: () -> Bool) throws(Absence) {
        guard let program = Program.find("rsync") else {
            throw Absence(reason: "it is not found on this machine")
        }
        // So that it does not go on writing where this program was killed; see setpriv(1).
        let keeper = Program.find("setpriv")
        self.program = keeper ?? program
        version =
            try Self.ask(program, "--version", isOver)
            .split(whereSeparator: \.isWhitespace).dropFirst(2).first.map(String.init) ?? "?"
        let help = try Self.ask(program, "--help", isOver)
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
        // So that what it has written is on the medium as well.
        if has("--fsync") { arguments.append("--fsync") }
        let prefix = keeper == nil ? [] : ["--pdeathsig", "KILL", program]
        self.arguments = try prefix + arguments + [Self.source(job.source), job.target]
    }

    private static func ask(
        _ program: String, _ question: String, _ isOver: () -> Bool
    ) throws(Absence) -> String {
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(program, [question], reading: .outputAndErrors, unless: isOver)
        } catch {
            throw Absence(reason: "\(program): start: \(error)")
        }
        if let failure = run.failure {
            throw Absence(reason: "\(program) \(question): \(failure)")
        }
        return run.text
    }

    /// What rsync calls the source: for a device on a server, its path in a module of a daemon.
    private static func source(_ text: String) throws(Absence) -> String {
        guard case .remote(let location)? = try? Location(text) else { return text }
        let families = ["BLKFERRY", "PDIFFCOPY"].map { family in
            ["SERVER", "MODULE", "ROOT"].compactMap { name in
                getenv("\(family)_BENCHMARK_RSYNC_\(name)").map { String(cString: $0) }
            }.filter { !$0.isEmpty }
        }
        guard let given = families.first(where: { $0.count == 3 }) else { throw Absence() }
        let root = given[2].hasSuffix("/") ? given[2] : given[2] + "/"
        guard let path = location.selector, path.hasPrefix(root), path != root else {
            throw Absence(reason: "\(text) is not below \(given[2]), the root of its module")
        }
        return "rsync://\(given[0])/\(given[1])/\(path.dropFirst(root.count))"
    }

    /// Copies.
    ///
    /// - Parameter isOver: asked now and then; it ends rsync.
    /// - Returns: what rsync and those who started it have to say; nothing where it went well.
    func run(unless isOver: () -> Bool) -> [String] {
        do throws(Errno) {
            let run = try ProgramRun(program, arguments, reading: .errors, unless: isOver)
            guard let failure = run.failure else { return [] }
            return run.lines.suffix(8).map { "rsync: \($0)" } + ["rsync: \(failure)"]
        } catch {
            return ["rsync: start: \(error)"]
        }
    }
}
