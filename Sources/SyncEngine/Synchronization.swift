// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import LinuxIO

/// Makes the target equal to the source.
///
/// It blocks while other threads do the work. The report contains the errors, because a failed run
/// may have written.
///
/// - Parameters:
///   - target: must have passed the safety gate; at least as large as the source, or resized by
///     `options`.
///   - rescue: for a failing source; both devices are on this machine, and the target is compared.
package func synchronize(
    source: any BlockDevice, target: any BlockDevice, options: SyncOptions, control: RunControl,
    rescue: Rescue? = nil
) -> SyncReport {
    let counter = options.sourceChangeCounter ?? source.changeCounter()
    var options = options
    // A stream cannot be compared again.
    if source is StreamSource { options.endsWhenLost = true }
    // The change map does not contain writes of other programs to the target.
    if !options.endsWhenLost, target.takeRestart() { options.changes = nil }
    var before = Tally()
    for attempt in 0... {
        var report = attemptSynchronization(source, target, options, control, rescue)
        let isLast = attempt == mostRestarts || control.isCancelled
        if !isLast, !options.endsWhenLost, target.takeRestart() {
            before.merge(report.tally)
            options.changes = nil
            continue
        }
        report.tally.add(writtenBefore: before)
        report.restarts = attempt
        report.sourceChanged = hasChanged(source, since: counter)
        return report
    }
    preconditionFailure("the last attempt returns")
}

/// A target that is lost repeatedly is given up.
private let mostRestarts = 3

private func attemptSynchronization(
    _ source: any BlockDevice, _ target: any BlockDevice, _ options: SyncOptions,
    _ control: RunControl, _ rescue: Rescue?
) -> SyncReport {
    var report = SyncReport(size: source.geometry.size, blockSize: options.layout.block)
    do throws(IOError) {
        // Grow before the first write. Shrink after the last, so that a failed run cuts nothing
        // off.
        if let size = options.resizeTo, size > target.geometry.size, !options.isDryRun {
            try target.resize(to: size)
        }
        precondition(target.geometry.size >= source.geometry.size)
        if let rescue {
            try transfer(source, target, options, control, rescue, &report)
        } else {
            try transfer(
                source: source, target: target, options: options,
                phase: options.isDryRun ? .compare : .sync, control, &report)
        }
        // The size of a stream is known only now.
        let size = options.resizesToStream ? report.size : options.resizeTo
        if let size, size < target.geometry.size, !options.isDryRun, report.isComplete {
            try target.resize(to: size)
        }
        if !options.isDryRun && report.isComplete {
            for patch in options.tail where patch.range.end > report.size {
                try target.apply(patch.dropping(before: report.size))
            }
        }
    } catch {
        report.failure = error
    }
    if !options.isDryRun {
        // A flush after one that failed would claim what is lost.
        if report.rescue?.hasFailedFlush != true { flush(target, control, &report) }
        check(source: source, target: target, options: options, control, &report)
    }
    return report
}

/// Compares both sides after the flush, if the user wants it or another program had the target open
/// for writing.
///
/// A program that has it open during a comparison may write to places that are already compared. So
/// the comparison is repeated, but only once.
private func check(
    source: any BlockDevice, target: any BlockDevice, options: SyncOptions, _ control: RunControl,
    _ report: inout SyncReport
) {
    // The comparison finds what was written before it.
    if options.verifies { report.targetWasOpened = target.hadOtherWriters() }
    var isDue = options.verifies
    var comparisons = 0
    repeat {
        if isDue && report.isComplete && report.flushError == nil {
            verify(source: source, target: target, options: options, control, &report)
            comparisons += 1
        }
        checkIdentity(of: target, &report)
        let wasOpened =
            report.isComplete && report.flushError == nil && target.hadOtherWriters()
        if wasOpened { report.targetWasOpened = true }
        isDue = wasOpened && report.verification?.different ?? 0 == 0
    } while isDue && comparisons < mostComparisons
    report.targetIsUnproven = isDue
    report.targetChanged = target.hasForeignWrites() || isDue
}

/// A target that other programs keep opening is given up.
private let mostComparisons = 2

/// Compares two devices over the length of the smaller one.
///
/// - Parameter options: only `layout`, `concurrency`, `skipsUnreadable`, `changes` and
///   `sourceChangeCounter` count.
package func compare(
    source: any BlockDevice, target: any BlockDevice, options: SyncOptions, control: RunControl,
    phase: RunControl.Phase = .verify
) -> SyncReport {
    let length =
        source is StreamSource
        ? target.geometry.size : min(source.geometry.size, target.geometry.size)
    var report = SyncReport(size: length, blockSize: options.layout.block)
    let counter = options.sourceChangeCounter ?? source.changeCounter()
    let targetCounter = target.changeCounter()
    var comparing = options
    comparing.isDryRun = true
    do throws(IOError) {
        try transfer(
            source: source, target: target, options: comparing, phase: phase, control, &report)
    } catch {
        report.failure = error
    }
    checkIdentity(of: target, &report)
    report.sourceChanged = hasChanged(source, since: counter)
    report.targetChanged = hasChanged(target, since: targetCounter)
    return report
}

/// Skipped after an error of the run or of the flush.
private func checkIdentity(of target: any BlockDevice, _ report: inout SyncReport) {
    guard report.failure == nil, report.flushError == nil else { return }
    do throws(IOError) { try report.checkIdentity(of: target) } catch { report.failure = error }
}

/// `false` if the counter cannot be read.
private func hasChanged(_ device: any BlockDevice, since counter: ChangeCounter?) -> Bool {
    guard let counter, let now = device.changeCounter() else { return false }
    return now != counter
}

private func transfer(
    source: any BlockDevice, target: any BlockDevice, options: SyncOptions,
    phase: RunControl.Phase, _ control: RunControl, _ report: inout SyncReport
) throws(IOError) {
    let clock = ContinuousClock()
    let start = clock.now
    let stream = source as? StreamSource
    control.begin(phase, total: stream == nil ? report.size : target.geometry.size)
    let mode: Pass.Mode =
        options.isDryRun ? .compare : options.wholeFile ? .replace : .update
    let result = Pass(
        source: source, target: target, length: report.size, mode: mode, options: options,
        control: control
    ).run()
    report.seconds.sync = (clock.now - start) / .seconds(1)
    report.tally = result.tally
    report.done = result.done.ranges
    report.wasRestricted = options.changes != nil
    report.firstDifferences = result.differences.ranges
    report.unreadableRanges = result.unreadable.ranges
    if let stream { report.size = stream.loaded }
    if let failure = result.failure { throw failure }
    report.wasInterrupted =
        report.tally.compared + report.tally.unchanged < report.size
        || stream?.isComplete == false
    // A pass that ends without an error has processed every byte.
    precondition(!report.wasInterrupted || control.isCancelled)
    try report.checkIdentity(of: source)
}

private func transfer(
    _ source: any BlockDevice, _ target: any BlockDevice, _ options: SyncOptions,
    _ control: RunControl, _ rescue: Rescue, _ report: inout SyncReport
) throws(IOError) {
    let clock = ContinuousClock()
    let start = clock.now
    control.begin(.sync, total: report.size)
    var pass = RescuePass(
        rescue, source: source, target: target, layout: options.layout, control: control)
    var failure: IOError?
    do throws(IOError) { try pass.run() } catch { failure = error }
    report.seconds.sync = (clock.now - start) / .seconds(1)
    report.take(pass, hasFailed: failure != nil)
    if let failure { throw failure }
    try report.checkIdentity(of: source)
}

private func flush(_ target: any BlockDevice, _ control: RunControl, _ report: inout SyncReport) {
    let clock = ContinuousClock()
    let start = clock.now
    control.beginFlush()
    do throws(IOError) {
        try target.flush()
        report.isFlushed = target.isFlushable
    } catch {
        var error = error
        // Status 130 promises a flush, so a flush that a signal has ended counts as a lost server.
        if error.kind == .cancelled {
            (error.kind, error.reason) = (.network, "interrupted while the server was out of reach")
        }
        report.flushError = error
    }
    report.seconds.flush = (clock.now - start) / .seconds(1)
}

/// The flush has dropped the target's pages from the page cache.
private func verify(
    source: any BlockDevice, target: any BlockDevice, options: SyncOptions, _ control: RunControl,
    _ report: inout SyncReport
) {
    let clock = ContinuousClock()
    let start = clock.now
    control.begin(.verify, total: report.size)
    if let stream = source as? StreamSource {
        let (verification, failure) = stream.check(
            target, threads: options.concurrency, control)
        report.seconds.verify += (clock.now - start) / .seconds(1)
        report.verification = verification
        report.failure = failure
        if failure == nil { report.wasInterrupted = verification.compared < report.size }
        return
    }
    var everything = options
    everything.changes = nil
    everything.recordsDone = false
    let result = Pass(
        source: source, target: target, length: report.size, mode: .compare, options: everything,
        control: control
    ).run()
    report.seconds.verify += (clock.now - start) / .seconds(1)
    report.verification = .init(
        compared: result.tally.compared, read: result.tally.targetRead,
        different: result.tally.different,
        firstDifferences: result.differences.ranges)
    report.failure = result.failure
    guard result.failure == nil else { return }
    report.wasInterrupted = result.tally.compared + result.tally.unchanged < report.size
    do throws(IOError) { try report.checkIdentity(of: source) } catch { report.failure = error }
}

extension SyncReport {
    /// Throws if a device is not the same any more.
    ///
    /// A user who cancels does not wait for a server that is out of reach; the run is interrupted.
    fileprivate mutating func checkIdentity(of device: any BlockDevice) throws(IOError) {
        do throws(IOError) { try device.checkIdentity() } catch {
            guard error.kind == .cancelled else { throw error }
            wasInterrupted = true
        }
    }

    /// Takes the results of a rescue.
    ///
    /// What it has tried and could not read counts as compared. A run that failed has not tried
    /// everything.
    fileprivate mutating func take(_ pass: borrowing RescuePass, hasFailed: Bool) {
        let map = pass.saved
        tally = pass.tally
        firstDifferences = pass.differences.ranges
        wasInterrupted = pass.wasCancelled
        let finished = map.bytes(.finished)
        rescue = RescueResult(
            map, wasSilent: pass.wasSilent, hasFailedFlush: pass.hasFailedFlush)
        tally.compared = finished - tally.unchanged
        if wasInterrupted || hasFailed { return }
        tally.unreadable = map.size - finished
        tally.compared += tally.unreadable
        unreadableRanges = Array(map.unfinished.prefix(10_000))
    }

    /// Whether every window was processed and every write succeeded.
    fileprivate var isComplete: Bool {
        failure == nil && !wasInterrupted && tally.writeErrorCount == 0
    }
}
