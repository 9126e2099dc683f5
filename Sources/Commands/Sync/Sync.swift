// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// Public, as the conformance of the library's type to the parser's protocol is.
public import ArgumentParser
public import BlockReplication
internal import Glibc
internal import WireProtocol

/// `blkferry sync`: makes the target equal to the source.
struct Sync: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make TARGET equal to SOURCE (the default).",
        discussion: """
            Only blocks that differ are written. The target is checked first: one that is \
            mounted, in use, read-only or part of the source is refused, and so is one that holds \
            something else than the source, unless --overwrite says that it may be lost.
            """)

    @OptionGroup var common: ComparisonOptions
    @OptionGroup var sourceVolume: SourceVolumeOptions

    @Option(
        help: ArgumentHelp(
            "With - as SOURCE: its size; a stream of another size is an error.",
            valueName: "size"))
    var size: ByteSize?

    @Flag(name: [.customShort("W"), .long], help: "Write everything without comparing.")
    var wholeFile = false

    @Flag(name: [.customShort("n"), .long], help: "Write nothing; print what would be done.")
    var dryRun = false

    @Flag(help: "With --dry-run: end with 1 when there are differences.")
    var exitCode = false

    @OptionGroup var consent: ConsentOptions
    @OptionGroup var changeLimit: ChangeLimitOption

    @OptionGroup var patience: WaitOption
    @OptionGroup var stop: StopOption
    @OptionGroup var compression: CompressOption

    @OptionGroup var backupTable: BackupTableOptions

    @OptionGroup var volume: TargetVolumeOptions
    @OptionGroup var undo: UndoOptions
    @OptionGroup var rescue: MapOptions
    @OptionGroup var replica: ReplicaOption
    @OptionGroup var checkpoint: CheckpointOption

    @Flag(help: "Read both sides again after the flush and compare.")
    var verify = false

    @Flag(help: "Leave unreadable blocks of the source out and end with 6.")
    var skipUnreadable = false

    @Option(
        name: [.customShort("B"), .long],
        help: ArgumentHelp(
            "Measure syncs at growing change instead, in so many steps: see blkferry benchmark.",
            valueName: "n"))
    var benchmark: Int?

    func validate() throws {
        if let benchmark { try validateBenchmark(steps: benchmark) }
        try volume.validate(consent.sizePolicy)
        try backupTable.validate(consent.sizePolicy)
        if exitCode && !dryRun { throw ValidationError("--exit-code goes with --dry-run") }
        try validateVolume()
        if changeLimit.maxChange != nil && wholeFile {
            throw ValidationError("--max-change does not go with --whole-file")
        }
        if dryRun && replica.replica != nil {
            throw ValidationError("--replica does not go with --dry-run")
        }
        if dryRun && verify { throw ValidationError("--verify does not go with --dry-run") }
    }

    private func validateVolume() throws {
        try undo.validate(common)
        if checkpoint.checkpoint != nil, try common.operands.source.isStandardInput {
            throw ValidationError("--checkpoint does not go with standard input")
        }
        try rescue.validate(
            common,
            [
                ("--whole-file", wholeFile), ("--verify", verify), ("--undo", undo.undo != nil),
                ("--checkpoint", checkpoint.checkpoint != nil), ("--size", size != nil),
                ("standard input", try common.operands.source.isStandardInput),
                ("--max-change", changeLimit.maxChange != nil),
                ("--move-backup-gpt", backupTable.moveBackupGpt),
                (sourceVolume.firstUsed ?? "", sourceVolume.firstUsed != nil),
            ])
        guard let option = sourceVolume.firstUsed else { return }
        if checkpoint.checkpoint != nil {
            throw ValidationError("--checkpoint does not go with \(option)")
        }
        if try common.operands.source.remote != nil {
            throw ValidationError("\(option): SOURCE must be a logical volume of this machine")
        }
        if sourceVolume.since != nil && wholeFile {
            throw ValidationError("--since does not go with --whole-file")
        }
    }

    private func validateBenchmark(steps: Int) throws {
        try Benchmark.validate(steps: steps, common)
        let others = [
            ("--dry-run", dryRun), ("--whole-file", wholeFile), ("--verify", verify),
            ("--skip-unreadable", skipUnreadable), ("--exit-code", exitCode),
            ("--max-change", changeLimit.maxChange != nil),
            ("--move-backup-gpt", backupTable.moveBackupGpt), ("--undo", undo.undo != nil),
            ("--replica", replica.replica != nil), ("--size", size != nil),
            ("--stop-after", stop.stopAfter != nil),
            ("--checkpoint", checkpoint.checkpoint != nil), ("--map", rescue.map != nil),
        ]
        if let other = others.first(where: \.1) {
            throw ValidationError("\(other.0) does not go with --benchmark")
        }
        if let other = sourceVolume.firstUsed ?? volume.firstUsed {
            throw ValidationError("\(other) does not go with --benchmark")
        }
    }

    func run() throws {
        var options = common.options()
        consent.apply(to: &options)
        options.wait = patience.wait?.duration
        options.compression = compression.compress
        backupTable.apply(to: &options)
        volume.apply(to: &options)
        undo.apply(to: &options)
        rescue.apply(to: &options)
        if let benchmark { try BenchmarkRun(common, options, .init(steps: benchmark)).run() }
        options.wholeFile = wholeFile
        options.streamSize = size?.bytes
        options.maximumChange = changeLimit.maxChange?.value
        options.verifies = verify
        options.skipsUnreadable = skipUnreadable
        sourceVolume.apply(to: &options)
        let start = time(nil)
        let command = try RunCommand(
            common, dryRun ? .dryRun : .synchronize, stopAfter: stop.stopAfter)
        let recorded = try replica.recorded(common)
        // A volume's snapshot and a stream are other ones in the next run, and a map is enough.
        let isRepeatable =
            try sourceVolume.firstUsed == nil && rescue.map == nil
            && !common.operands.source.isStandardInput
        checkpoint.apply(to: &options, isRepeatable ? recorded : nil)
        recorded?.begin(start)
        let outcome = command.outcome(options, endsWithDifferent: exitCode)
        recorded?.end(since: start, outcome)
        throw CommandEnd(status: outcome.status)
    }
}

extension Replication.Options.SizePolicy: ExpressibleByArgument {}
