// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// `blkferry apply`: writes a delta of `blkferry diff` to a replica of its base.
struct Apply: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a DELTA of blkferry diff to TARGET.",
        discussion: """
            TARGET must be the base of the delta, byte for byte, or what an interrupted apply has \
            left. Everything is checked before the first write. A target that is the result \
            already is left as it is.
            """)

    @Flag(
        help: """
            Also apply an rbd diff of another program, whose base is unknown; also overwrite bytes \
            that neither the base nor the result has.
            """)
    var overwrite = false

    @Option(
        help: ArgumentHelp(
            "What to do about another size: refuse (default for devices), resize (for images) or "
                + "prefix.", valueName: "policy"))
    var sizePolicy: Replication.Options.SizePolicy?

    @OptionGroup var undo: UndoOptions

    @Flag(help: "Read TARGET again after the flush, and compare its digest.")
    var verify = false

    @Option(
        help: ArgumentHelp(
            "With - as DELTA: where it is kept until it is checked (default: TMPDIR or /var/tmp).",
            valueName: "directory"), completion: .directory)
    var spool: String?

    @Flag(help: "Print the result as one JSON object.")
    var json = false

    @Flag(name: .shortAndLong, help: "Tell more.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Print errors and warnings only.")
    var quiet = false

    @Argument(help: "The file of blkferry diff; - is standard input.", completion: .file())
    var delta: String

    @Argument(
        help: "A replica of the delta's base.", completion: .file(), transform: Location.parsed)
    var target: Result<Location, WireError>

    func validate() throws {
        if delta.isEmpty { throw ValidationError("DELTA: a file is missing") }
        if delta == "-", isatty(STDIN_FILENO) == 1 {
            throw ValidationError("-: a delta is not read from a terminal")
        }
        if spool != nil, delta != "-" { throw ValidationError("--spool goes with - as DELTA") }
        do throws(ReplicationError) { _ = try application(Replication.Control()) { _ in } } catch {
            throw ValidationError(error.message)
        }
    }

    func run() throws {
        let console = Console(isVerbose: verbose, isQuiet: quiet)
        let name = (try? target.get()).map { "\($0)" } ?? ""
        let report = try DeltaWork(
            command: "apply", object: name,
            messages: .init(
                first: "interrupted, finishing the write in work",
                second: "\(name): apply: interrupted twice before it had finished",
                advice: "Another apply of the same delta finishes the job."),
            console: console, json: json
        ).run { control, events throws(ReplicationError) in
            try application(control, events).run()
        }
        throw CommandEnd(status: show(report, console))
    }

    private func application(
        _ control: Replication.Control,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(ReplicationError) -> DeltaTarget {
        var options = DeltaTarget.Options()
        options.sizePolicy = sizePolicy
        options.overwrites = overwrite
        options.verifies = verify
        options.spool = spool
        var settings = Replication.Options()
        undo.apply(to: &settings)
        options.undo = settings.undo
        return try DeltaTarget(
            delta, to: target, options: options, control: control, events: events)
    }
}

extension Apply {
    /// The result for `--json`; see docs/json.md.
    private struct Record: Encodable {
        var command = "apply"
        var delta: String
        var target: String
        var state: String
        var written: Int
        var zeroed: Int
        var undo: UndoResult?
        var verified: Bool?
        var seconds: Double
        var warnings: [String]
        var errors: [String]
        var exitStatus: Int32
    }

    private func show(_ report: DeltaTarget.Report, _ console: Console) -> ExitStatus {
        for warning in report.closingWarnings { console.warning(warning) }
        let failure = report.failure.map { CommandFailure($0) }
        if let failure { console.error(failure.message, advice: failure.advice) }
        let status = failure?.status ?? .done
        if json {
            let record = Record(
                delta: delta, target: report.target, state: report.state.rawValue,
                written: report.written, zeroed: report.zeroed,
                undo: report.undo.map { UndoResult($0) },
                verified: report.isVerified, seconds: report.seconds,
                warnings: report.warnings + report.closingWarnings,
                errors: [failure?.message].compactMap(\.self), exitStatus: status.rawValue)
            console.result(JSON.line(record))
        } else if !quiet {
            console.result(text(report))
        }
        return status
    }

    private func text(_ report: DeltaTarget.Report) -> String {
        let verdict =
            switch report.state {
            case .applied: "is the result of the delta, flushed"
            case .completed: "is the result of the delta, as an interrupted apply is completed"
            case .unchanged: "was the result of the delta before, nothing was written"
            case .overwritten: "overwritten, flushed; its base was not checked"
            }
        var lines = ["\(report.target): \(report.failure == nil ? verdict : "incomplete")"]
        if report.state != .unchanged {
            lines.append(
                "written     \(Format.exactBytes(report.written)), "
                    + "zeroed \(Format.exactBytes(report.zeroed))")
        }
        if report.isVerified == true { lines.append("read back   identical") }
        if let undo = report.undo { lines.append(undo.line) }
        lines.append("time        \(Format.seconds(report.seconds))")
        return lines.joined(separator: "\n")
    }
}
