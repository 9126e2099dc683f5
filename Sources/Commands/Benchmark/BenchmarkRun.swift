// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import DeviceProbe
internal import LinuxIO
internal import SyncEngine
internal import SystemPackage
internal import WireProtocol

/// A benchmark from the question to the result; afterwards the target is equal to the source.
final class BenchmarkRun {
    struct Settings {
        var steps: Int
        var pattern = ChangePlan.Pattern.sequential
        var seed: UInt64 = 1
        var plot: String?
    }

    let given: ComparisonOptions
    let settings: Settings
    let console: Console
    let control = Replication.Control()

    /// Options of each sync; they keep the token, which can be read only once.
    var options: Replication.Options
    /// Local ones are paths, which stay valid when the content of the devices changes.
    var operands: Operands
    /// The target's identity; no other device or file is changed.
    var identity: FileStatus?
    var source: SourceFacts?
    private var plan: ChangePlan?
    private var rsync: BenchmarkRsync?
    /// Whether the benchmark has changed the target since the last sync.
    var isChanged = false
    var result: BenchmarkResult
    /// The failures; the last one determines the exit status.
    var failures: [CommandFailure] = []
    private let clock = ContinuousClock()
    var targetPath: String { operands.target.description }

    init(
        _ given: ComparisonOptions, _ options: Replication.Options, _ settings: Settings
    ) throws(ReplicationError) {
        self.given = given
        self.options = options
        operands = try given.operands
        self.settings = settings
        console = given.console
        result = BenchmarkResult(
            source: "\(operands.source)", target: "\(operands.target)", steps: settings.steps,
            pattern: settings.pattern, seed: settings.seed)
    }

    /// Runs the benchmark, prints the result, and always throws `CommandEnd`.
    func run() throws {
        do throws(CommandFailure) {
            try operands.refuseOwnOutput()
            if let path = settings.plot { try PlotFile(path).check() }
            try askPermission(source: result.source, target: result.target, console)
            options.access = try given.credentials.access()
            given.credentials.warn(of: options.access.token, to: operands.remotes, console)
            try pin()
        } catch {
            failures = [error]
            throw CommandEnd(status: conclude())
        }
        let progress = ProgressDisplay(given.progress == .auto ? .none : given.progress, console)
        RunWatcher.watch(
            control, progress, target: result.target, console,
            messages: .init(
                first: "interrupted, ending in order",
                second: "\(result.target): benchmark: interrupted twice, it may differ from "
                    + result.source,
                advice: repair)
        ) { measure() }
        throw CommandEnd(status: conclude())
    }

    /// Replaces names that a change of content would invalidate, such as UUID= and the links of
    /// udev.
    private func pin() throws(CommandFailure) {
        func pinned(_ location: Location) throws(IOError) -> Location {
            guard let selector = location.local else { return location }
            let path = try resolve(selector)
            return .local(.path((try? canonicalPath(path)) ?? path))
        }
        do throws(IOError) {
            operands.source = try pinned(operands.source)
            operands.target = try pinned(operands.target)
        } catch {
            throw CommandFailure(error)
        }
    }

    /// Makes the devices equal, measures the steps, and restores the target after a failed step.
    private func measure() {
        do throws(CommandFailure) {
            try begin()
            for step in 1...settings.steps { try measure(step) }
        } catch {
            failures = [error]
        }
        if failures.isEmpty && control.isCancelled { failures = [interruption] }
        if isChanged { restore() }
    }

    private func begin() throws(CommandFailure) {
        tell("making \(result.target) equal to \(result.source)")
        let sync = try sync(isFirst: true, control)
        // A new image has a real path only after the first sync.
        if let path = try? canonicalPath(targetPath) { operands.target = .local(.path(path)) }
        do throws(Errno) { identity = try FileStatus(path: targetPath) } catch {
            throw CommandFailure(IOError(result.target, "get status", error))
        }
        let plan = ChangePlan(
            steps: settings.steps, pattern: settings.pattern, seed: settings.seed,
            size: sync.sourceSize, block: sync.blockSize)
        (self.plan, source) = (plan, sync.sourceFacts)
        result.isEqual = true
        result.size = plan.size
        result.block = plan.block
        findRsync()
    }

    /// Finds rsync; warns if it cannot be compared.
    private func findRsync() {
        guard let source, let identity else { return }
        do throws(BenchmarkRsync.Absence) {
            let isTargetDevice = identity.kind == .blockDevice
            guard isTargetDevice || identity.size == source.size else {
                throw .init(reason: "it would cut \(result.target) to the size of the source")
            }
            rsync = try BenchmarkRsync(
                .init(
                    source: operands.source, target: targetPath,
                    isSourceDevice: source.logicalSector != nil, isTargetDevice: isTargetDevice),
                unless: { [control] in control.isCancelled })
            result.rsync = rsync?.version
        } catch {
            if let reason = error.reason { warn("rsync is left out: \(reason)") }
        }
    }

    /// Changes the target, and times the sync that restores it.
    private func measure(_ step: Int) throws(CommandFailure) {
        guard let plan else { return }
        let changed = try change(plan.runs(step), block: plan.block)
        let (sync, seconds) = try timed { () throws(CommandFailure) in
            try self.sync(control)
        }
        var row = BenchmarkResult.Row(
            percent: plan.percent(step), changed: changed, sync.engine.tally,
            wireBytes: sync.traffic.map { $0.sent + $0.received }, seconds: seconds)
        if let rsync { row.rsyncSeconds = try measure(rsync, step, of: plan) }
        result.rows.append(row)
        let other = row.rsyncSeconds.map { ", rsync \(BenchmarkResult.seconds($0))" } ?? ""
        tell(
            "step \(step) of \(settings.steps), \(BenchmarkResult.percent(row.percent)): blkferry "
                + BenchmarkResult.seconds(seconds) + other)
    }

    /// Times rsync on a change; then a sync checks and restores the target.
    private func measure(
        _ rsync: BenchmarkRsync, _ step: Int, of plan: ChangePlan
    ) throws(CommandFailure) -> Double? {
        _ = try change(plan.runs(step), block: plan.block)
        let (complaints, seconds) = try timed { () throws(CommandFailure) in
            rsync.run { self.control.isCancelled }
        }
        let check = try sync(control)
        for complaint in complaints { console.warning(complaint) }
        guard complaints.isEmpty else {
            result.warnings.append(complaints.joined(separator: "; "))
            return nil
        }
        let different = check.different
        guard different == 0 else {
            warn("rsync: it has left \(Format.exactBytes(different)) that differ")
            return nil
        }
        return seconds
    }

    /// Times work that starts without the two devices in the page cache.
    private func timed<Value>(
        _ work: () throws(CommandFailure) -> Value
    ) throws(CommandFailure) -> (Value, seconds: Double) {
        if control.isCancelled { throw interruption }
        dropCaches()
        let start = clock.now
        let value = try work()
        return (value, (clock.now - start) / .seconds(1))
    }
}
