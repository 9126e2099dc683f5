// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import Logging
internal import WireProtocol

/// `blkferry diff`: writes what leads from one device to another to a file.
struct Diff: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write what turns TARGET into SOURCE to a file, a delta.",
        usage: """
            blkferry diff [<options>] -o <delta> <source> <target>
            blkferry diff [<options>] -o <delta> --since <snapshot> <source>
            blkferry diff [<options>] -o <delta> --digest <file> <source>
            """,
        discussion: """
            The delta is an rbd diff of version 1, followed by digests of both sides. blkferry \
            apply makes SOURCE of any replica of TARGET with it. Nothing is written to SOURCE and \
            TARGET.
            """)

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "Write the delta to this new file; - is standard output.", valueName: "delta"),
        completion: .file())
    var output: String

    @Option(
        name: [.customShort("b"), .long],
        help: ArgumentHelp(
            "Unit of comparison and transfer, a multiple of 512 bytes.", valueName: "size"))
    var blockSize: ByteSize?

    @OptionGroup var sourceVolume: SourceVolumeOptions

    @Option(
        help: ArgumentHelp(
            "Start from the device that a file of blkferry digest was made of, in place of TARGET.",
            valueName: "file"), completion: .file())
    var digest: String?

    @Option(
        help: ArgumentHelp(
            "With --digest: refuse the file unless blkferry digest has printed this.",
            valueName: "hash"))
    var rootHash: VerityPin?

    @Flag(help: "Print the result as one JSON object.")
    var json = false

    @Flag(name: .shortAndLong, help: "Tell more.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Print errors and warnings only.")
    var quiet = false

    @Argument(
        help: "What the delta leads to.", completion: .file(), transform: Location.parsed)
    var source: Result<Location, WireError>

    @Argument(
        help: "What the delta starts from.", completion: .file(), transform: Location.parsed)
    var target: Result<Location, WireError>?

    private var isPipe: Bool { output == "-" }

    func validate() throws {
        if output.isEmpty { throw ValidationError("--output: a file is missing") }
        if isPipe, json { throw ValidationError("--json does not go with -o -") }
        if isPipe, isatty(STDOUT_FILENO) == 1 {
            throw ValidationError("-o -: a delta is not written to a terminal")
        }
        try validateBase()
        do throws(ReplicationError) { _ = try creation(Replication.Control()) { _ in } } catch {
            throw ValidationError(error.message)
        }
    }

    private func validateBase() throws {
        if rootHash != nil, digest == nil {
            throw ValidationError("--root-hash goes with --digest")
        }
        if digest == "" { throw ValidationError("--digest: a file is missing") }
        if digest != nil, blockSize != nil {
            throw ValidationError("--block-size does not go with --digest")
        }
        if digest != nil, sourceVolume.since != nil {
            throw ValidationError("--since does not go with --digest")
        }
        guard digest != nil || sourceVolume.since != nil else {
            if target == nil { throw ValidationError("Missing expected argument '<target>'") }
            return
        }
        if target != nil {
            throw ValidationError(
                "\(digest == nil ? "--since" : "--digest") does not go with a target")
        }
    }

    func run() throws {
        let console = Console(isVerbose: verbose, isQuiet: quiet)
        let work = DeltaWork(
            command: "diff", object: output,
            messages: .init(
                first: "interrupted, finishing the window in work",
                second: "\(output): diff: interrupted twice before it had finished",
                advice: "No delta was made."),
            console: console, json: json)
        do throws(CommandFailure) { try refuseOutput() } catch { throw work.failed(error) }
        let report = try work.run { control, events throws(ReplicationError) in
            try creation(control, events).run()
        }
        throw CommandEnd(status: show(report, console))
    }

    private func creation(
        _ control: Replication.Control,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(ReplicationError) -> DeltaCreation {
        var options = DeltaCreation.Options(output: output)
        options.blockSize = blockSize?.bytes
        options.since = sourceVolume.since
        options.digest = digest
        options.pinnedDigests = rootHash?.digests
        if sourceVolume.snapshot {
            options.snapshot = sourceVolume.size.room?.size ?? .percent(10)
        }
        let operands = try Operands(source, target ?? source)
        return try DeltaCreation(
            result: operands.source, base: target == nil ? nil : operands.target,
            options: options, control: control, events: events)
    }

    /// Refuses an output that goes to a device or an image: messages to it are thrown away.
    private func refuseOutput() throws(CommandFailure) {
        guard isPipe, StandardStreams.onDisks().contains(STDOUT_FILENO) else { return }
        throw CommandFailure(
            IOError.refusal(
                .wrongKind, "standard output", "it is a device, or within an image",
                advice: "Name a new file with -o."))
    }
}

extension Diff {
    /// The result for `--json`; see docs/json.md.
    private struct Record: Encodable {
        var command = "diff"
        var delta: String
        var source: String
        var target: String
        var sourceSize: Int
        var targetSize: Int
        var sourceDigest: String
        var targetDigest: String
        var records: Int
        var written: Int
        var zeroed: Int
        var bytes: Int
        var unchanged: Int
        var seconds: Double
        var warnings: [String]
        var errors: [String]
        var exitStatus: Int32
    }

    private func show(_ report: DeltaCreation.Report, _ console: Console) -> ExitStatus {
        for warning in report.closingWarnings { console.warning(warning) }
        let failures = report.failures.map { CommandFailure($0) }
        for failure in failures { console.error(failure.message, advice: failure.advice) }
        let status = failures.last?.status ?? .done
        if json {
            let record = Record(
                delta: output, source: report.result, target: report.base,
                sourceSize: report.resultSize, targetSize: report.baseSize,
                sourceDigest: report.resultDigest, targetDigest: report.baseDigest,
                records: report.records, written: report.data, zeroed: report.zeros,
                bytes: report.length, unchanged: report.unread, seconds: report.seconds,
                warnings: report.warnings + report.closingWarnings, errors: failures.map(\.message),
                exitStatus: status.rawValue)
            guard console.result(JSON.line(record)) || status != .done else { return .deviceError }
        } else if isPipe {
            if !quiet { console.log(.info, text(report)) }
        } else if !quiet {
            console.result(text(report).joined(separator: "\n"))
        }
        return status
    }

    private func text(_ report: DeltaCreation.Report) -> [String] {
        var lines = [
            "\(printable(report.base)) -> \(printable(report.result)): "
                + (isPipe ? "delta written" : "delta in \(printable(output))"),
            "different   \(Format.exactBytes(report.data)) of data, "
                + "\(Format.exactBytes(report.zeros)) of zeros, in "
                + Format.count(report.records, "record"),
            "delta       \(Format.exactBytes(report.length))",
            "sha256      \(report.resultDigest)",
            "  before    \(report.baseDigest)",
        ]
        if report.unread > 0 {
            lines.append(
                "unchanged   \(Format.exactBytes(report.unread)), as the snapshots show")
        }
        lines.append(
            "time        \(Format.seconds(report.seconds)), "
                + Format.rate(report.resultSize, report.seconds))
        return lines
    }
}
