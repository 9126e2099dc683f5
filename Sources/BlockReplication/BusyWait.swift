// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import SyncEngine

/// Waits for a busy target.
struct BusyWait {
    private let end: ContinuousClock.Instant?
    private let seconds: Int
    private let control: RunControl
    private let events: @Sendable (Replication.Event) -> Void
    private var isReported = false

    /// - Parameters:
    ///   - duration: the total time; `nil` not to wait.
    ///   - control: ends the wait if it is cancelled.
    ///   - events: gets one event, which says what the wait is for.
    init(
        _ duration: Duration?, _ control: RunControl,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) {
        end = duration.map { ContinuousClock.now + $0 }
        seconds = duration.map { Int(clamping: $0.components.seconds) } ?? 0
        self.control = control
        self.events = events
    }

    static func isBusy(_ cause: String?) -> Bool {
        cause == IOError.Refusal.inUse.rawValue || cause == IOError.Refusal.locked.rawValue
    }

    /// Waits up to a second; `false` if the failure is permanent, the time is over, or the run is
    /// cancelled.
    mutating func pauses(after message: String, _ cause: String?) -> Bool {
        guard let end, Self.isBusy(cause), ContinuousClock.now < end, !control.isCancelled else {
            return false
        }
        if !isReported {
            isReported = true
            events(.waiting("waiting for up to \(seconds) s: \(message)"))
        }
        let next = min(end, ContinuousClock.now + .seconds(1))
        return pause(until: next) { control.isCancelled }
    }
}
