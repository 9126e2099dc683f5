// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import SyncEngine

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

    @Flag(name: [.customShort("W"), .long], help: "Write everything without comparing.")
    var wholeFile = false

    @Flag(name: [.customShort("n"), .long], help: "Write nothing; tell what would be done.")
    var dryRun = false

    @Flag(help: "With --dry-run: end with 1 when there are differences.")
    var exitCode = false

    @Option(
        help: ArgumentHelp(
            "What to do about another size: refuse (default for devices), resize (for images) or "
                + "prefix.", valueName: "policy"))
    var sizePolicy: SizePolicy?

    @Flag(help: "Write even though something else than the source is on the target.")
    var overwrite = false

    @Flag(help: "Read both sides again after the flush and compare.")
    var verify = false

    @Flag(help: "Leave unreadable blocks of the source out and end with 6.")
    var skipUnreadable = false

    func validate() throws {
        if exitCode && !dryRun { throw ValidationError("--exit-code goes with --dry-run") }
        if dryRun && verify { throw ValidationError("--verify does not go with --dry-run") }
    }

    func run() throws {
        try RunPrinter(common, kind: dryRun ? .dryRun : .sync).run { clock throws(CommandFailure) in
            let endpoints = try Endpoints(common, clock.control)
            var source = try endpoints.source(common.source)
            defer { source.remote?.release(isComplete: false) }
            let target = try endpoints.target(
                for: &source,
                policy: GatePolicy(sizePolicy: sizePolicy, overwrite: overwrite, isDryRun: dryRun))
            defer { target.remote?.release(isComplete: false) }
            let warnings = source.warnings + target.warnings
            var options = try common.options(
                for: [source.device, target.device], warnings: warnings,
                isRotational: source.isRotational || target.isRotational)
            options.wholeFile = wholeFile
            options.isDryRun = dryRun
            options.skipsUnreadable = skipUnreadable
            options.verifies = verify
            options.resizeTo = target.resizeTo
            clock.isOpen()
            let report = clock.watch { control in
                synchronize(
                    source: source.device, target: target.device, options: options,
                    control: control)
            }
            let isDone = report.failure == nil && !report.wasInterrupted
            source.remote?.release(isComplete: isDone)
            target.remote?.release(isComplete: isDone)
            for relative in target.relatives where !dryRun {
                BlockSpecialFile.writeBackCache(of: relative, dropping: true)
            }
            if let device = target.device as? BlockSpecialFile, report.tally.extents > 0 {
                // The kernel still has the partitions of what was there before.
                if device.rereadPartitions() {
                    common.console.note("\(device.name): partition table read again")
                }
            }
            return RunOutcome(
                report: report, sourceSize: source.facts.size, targetSize: target.sizeBefore,
                resizedTo: target.resizedTo, wasCreated: target.wasCreated, warnings: warnings,
                wouldResize: dryRun && target.resizedTo != nil,
                endsWithDifferent: exitCode)
        }
    }
}

extension SizePolicy: ExpressibleByArgument {}
