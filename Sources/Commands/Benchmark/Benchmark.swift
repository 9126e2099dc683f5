// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import DeviceProbe
internal import WireProtocol

/// `blkferry benchmark`: times syncs with a growing part of the target changed.
struct Benchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Time syncs, and rsync beside them, at growing change.",
        discussion: """
            Makes TARGET equal to SOURCE, then changes the first part of it, times a sync, changes \
            the same again and times rsync, where there is one; each time a larger part, up to all \
            of it. TARGET is a device or image of this machine. It is equal to SOURCE at the end, \
            also after an error or a signal. It asks first, unless BLKFERRY_BENCHMARK=allowed is \
            set.
            """)

    @Option(
        name: [.customShort("B"), .long],
        help: ArgumentHelp("Steps, from 1 to 100.", valueName: "n"))
    var benchmark = 10

    @Option(help: "What is changed: sequential, from the start, or random, single blocks.")
    var pattern = ChangePlan.Pattern.sequential

    @Option(help: ArgumentHelp("Determines the blocks that random changes.", valueName: "n"))
    var seed: UInt64 = 1

    @Option(
        help: ArgumentHelp("Draw a chart of the result into this SVG file.", valueName: "path"),
        completion: .file(extensions: ["svg"]))
    var plot: String?

    @OptionGroup var common: ComparisonOptions

    @OptionGroup var consent: ConsentOptions

    func validate() throws {
        try Self.validate(steps: benchmark, common)
        if plot?.isEmpty == true { throw ValidationError("--plot: the path is empty") }
    }

    static func validate(steps: Int, _ common: ComparisonOptions) throws {
        guard (1...100).contains(steps) else {
            throw ValidationError("benchmark \(steps): must be from 1 to 100 steps")
        }
        if try common.operands.source.isStandardInput {
            throw ValidationError("-: a benchmark reads its source several times")
        }
        if let target = try common.operands.target.remote {
            throw ValidationError(
                "\(target.text): a benchmark changes its target, which has to be a device of "
                    + "this machine")
        }
    }

    func run() throws {
        var options = common.options()
        consent.apply(to: &options)
        try BenchmarkRun(
            common, options,
            .init(steps: benchmark, pattern: pattern, seed: seed, plot: plot)
        ).run()
    }
}
