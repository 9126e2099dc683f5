// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import SyncEngine

/// `blkferry verify`: compares and writes nothing.
struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compare SOURCE and TARGET; end with 1 when they differ.")

    @OptionGroup var common: ComparisonOptions

    @Option(
        help: ArgumentHelp(
            "With prefix, a TARGET that is larger than SOURCE may be equal.", valueName: "policy"))
    var sizePolicy: SizePolicy?

    func validate() throws {
        if sizePolicy == .resize {
            throw ValidationError("--size-policy resize: verify writes nothing")
        }
    }

    func run() throws {
        try RunPrinter(common, kind: .verify).run { clock throws(CommandFailure) in
            let endpoints = try Endpoints(common, clock.control)
            let (source, target) = try endpoints.pair()
            defer {
                source.remote?.release(isComplete: false)
                target.remote?.release(isComplete: false)
            }
            let warnings = source.warnings + target.warnings
            let options = try common.options(
                for: [source.device, target.device], warnings: warnings,
                isRotational: source.isRotational || target.isRotational)
            clock.isOpen()
            let report = clock.watch { control in
                compare(
                    source: source.device, target: target.device, options: options,
                    control: control)
            }
            let isDone = report.failure == nil && !report.wasInterrupted
            source.remote?.release(isComplete: isDone)
            target.remote?.release(isComplete: isDone)
            let (size, targetSize) = (source.facts.size, target.facts.size)
            return RunOutcome(
                report: report, sourceSize: size, targetSize: targetSize, warnings: warnings,
                sizesDiffer: sizePolicy == .prefix ? targetSize < size : targetSize != size)
        }
    }
}
