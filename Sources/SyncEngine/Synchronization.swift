// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import LinuxIO

/// Makes the target equal to the source, and sees to it that it stays so.
///
/// Blocks until it is done; the work is that of threads of its own.
///
/// - Parameters:
///   - source: what is read.
///   - target: what is written; it must be admitted by the safety gate before. At least as large as
///     the source, or to be resized.
///   - options: how.
///   - control: to watch and to cancel the run.
/// - Returns: what was done. Errors are in it: a run that failed has done something all the same.
package func synchronize(
    source: any BlockDevice, target: any BlockDevice, options: SyncOptions, control: RunControl
) -> SyncReport {
    var report = SyncReport(size: source.geometry.size, blockSize: options.layout.block)
    let stamp = options.sourceStamp ?? source.contentStamp()
    do throws(IOError) {
        // Grown before the first write; shrunk after the last, so that a run that fails early has
        // not cut anything off.
        if let size = options.resizeTo, size > target.geometry.size, !options.isDryRun {
            try target.resize(to: size)
        }
        precondition(target.geometry.size >= source.geometry.size)
        try transfer(
            source: source, target: target, options: options,
            phase: options.isDryRun ? .compare : .sync, control, &report)
        if let size = options.resizeTo, size < target.geometry.size, !options.isDryRun,
            report.isComplete
        {
            try target.resize(to: size)
        }
    } catch {
        report.failure = error
    }
    if !options.isDryRun {
        flush(target, control, &report)
        if options.verifies && report.isComplete && report.flushError == nil {
            verify(source: source, target: target, options: options, control, &report)
        }
    }
    report.sourceChanged = hasChanged(source, since: stamp)
    return report
}

/// Compares two devices over the length of the smaller, and writes nothing.
///
/// - Parameters:
///   - source: one.
///   - target: the other.
///   - options: how; of `layout`, `concurrency`.
///   - control: to watch and to cancel the run.
/// - Returns: what was found.
package func compare(
    source: any BlockDevice, target: any BlockDevice, options: SyncOptions, control: RunControl
) -> SyncReport {
    let length = min(source.geometry.size, target.geometry.size)
    var report = SyncReport(size: length, blockSize: options.layout.block)
    let (stamp, targetStamp) = (source.contentStamp(), target.contentStamp())
    var comparing = options
    comparing.isDryRun = true
    do throws(IOError) {
        try transfer(
            source: source, target: target, options: comparing, phase: .verify, control, &report)
    } catch {
        report.failure = error
    }
    report.sourceChanged = hasChanged(source, since: stamp)
    report.targetChanged = hasChanged(target, since: targetStamp)
    return report
}

/// Whether somebody wrote to a device; not when it can no longer be asked.
private func hasChanged(_ device: any BlockDevice, since stamp: ContentStamp?) -> Bool {
    guard let stamp, let now = device.contentStamp() else { return false }
    return now != stamp
}

private func transfer(
    source: any BlockDevice, target: any BlockDevice, options: SyncOptions,
    phase: RunControl.Phase, _ control: RunControl, _ report: inout SyncReport
) throws(IOError) {
    let clock = ContinuousClock()
    let start = clock.now
    control.begin(phase, total: report.size)
    let mode: Pass.Mode =
        options.isDryRun ? .compare : options.wholeFile ? .replace : .update
    let result = Pass(
        source: source, target: target, length: report.size, mode: mode, options: options,
        control: control
    ).run(concurrency: options.concurrency)
    report.seconds.sync = (clock.now - start) / .seconds(1)
    report.tally = result.tally
    report.firstDifferences = result.differences.ranges
    report.unreadableRanges = result.unreadable.ranges
    if let failure = result.failure { throw failure }
    try source.checkSize()
    report.wasInterrupted = report.tally.compared + report.tally.unchanged < report.size
    // A pass that ends without a reason must have seen every byte.
    precondition(!report.wasInterrupted || control.isCancelled)
}

private func flush(_ target: any BlockDevice, _ control: RunControl, _ report: inout SyncReport) {
    let clock = ContinuousClock()
    let start = clock.now
    control.beginFlush()
    do throws(IOError) {
        try target.flush()
        report.isFlushed = (target as? any RemoteDevice)?.isFlushable ?? true
    } catch {
        report.flushError = error
    }
    report.seconds.flush = (clock.now - start) / .seconds(1)
}

/// Reads both sides again: the flush has left nothing of the target in the page cache.
private func verify(
    source: any BlockDevice, target: any BlockDevice, options: SyncOptions, _ control: RunControl,
    _ report: inout SyncReport
) {
    let clock = ContinuousClock()
    let start = clock.now
    control.begin(.verify, total: report.size)
    var everything = options
    everything.changes = nil
    let result = Pass(
        source: source, target: target, length: report.size, mode: .compare, options: everything,
        control: control
    ).run(concurrency: options.concurrency)
    report.seconds.verify = (clock.now - start) / .seconds(1)
    report.verification = .init(
        compared: result.tally.compared, different: result.tally.different,
        firstDifferences: result.differences.ranges)
    report.failure = result.failure
    if report.failure == nil {
        do throws(IOError) { try source.checkSize() } catch { report.failure = error }
    }
    report.wasInterrupted =
        result.failure == nil && result.tally.compared + result.tally.unchanged < report.size
}

extension SyncReport {
    /// Whether every window was worked on and every write succeeded.
    fileprivate var isComplete: Bool {
        failure == nil && !wasInterrupted && tally.writeErrorCount == 0
    }
}
