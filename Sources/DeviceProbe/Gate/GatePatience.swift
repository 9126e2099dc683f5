// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// How long the gate waits for a lock or claim that another program holds for a moment.
///
/// udev locks a device while it probes it, and programs that make partitions or file systems claim
/// it.
package struct GatePatience: Sendable {
    package var duration: Duration
    /// Whether the user has cancelled the wait.
    package var isCancelled: @Sendable () -> Bool
    /// Receives one message, which names the holder of the lock or claim.
    package var report: @Sendable (String) -> Void

    package init(
        _ duration: Duration = usual, isCancelled: @escaping @Sendable () -> Bool = { false },
        report: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.duration = duration
        self.isCancelled = isCancelled
        self.report = report
    }

    /// udev takes longest if it starts programs, such as those that assemble arrays.
    package static let usual = Duration.seconds(10)

    /// A program that is being started holds, until its exec, copies of descriptors that were just
    /// closed.
    fileprivate static let least = Duration.milliseconds(500)
}

struct GateWait {
    private let name: String
    private let patience: GatePatience
    private let start = ContinuousClock.now
    private var interval = Duration.milliseconds(20)
    private var isReported = false

    init(_ name: String, _ patience: GatePatience) {
        self.name = name
        self.patience = patience
    }

    /// Waits for up to 200 ms before the next attempt; `false` after the timeout or a cancellation.
    ///
    /// A cancellation during the wait allows one more attempt.
    ///
    /// - Parameter holder: names the holder after 250 ms; `nil` if it will not go away in a moment.
    mutating func pauses(_ holder: () -> String?) -> Bool {
        let elapsed = ContinuousClock.now - start
        let limit = max(patience.duration, GatePatience.least)
        guard elapsed < limit, !patience.isCancelled() else { return false }
        if !isReported, elapsed > GatePatience.least / 2 {
            guard let holder = holder() else { return false }
            isReported = true
            if limit > GatePatience.least {
                let seconds = Int((limit / .seconds(1)).rounded(.up))
                patience.report("\(name): waiting for up to \(seconds) s: \(holder)")
            }
        }
        pause(for: interval, unless: patience.isCancelled)
        interval = min(interval * 2, .milliseconds(200))
        return true
    }
}
