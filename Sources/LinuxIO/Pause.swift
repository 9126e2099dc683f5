// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// The longest time between two looks at whether a wait is cancelled.
let cancellationInterval = Duration.milliseconds(20)

/// Waits until an instant; `false` if `isCancelled`, which is called every 20 ms, ended the wait.
///
/// This is for what neither a thread of this process nor a descriptor reports, such as a lock of
/// another process. Otherwise use `Guarded` or `poll`. The corresponding C function is `nanosleep`.
@discardableResult
package func pause(
    until end: ContinuousClock.Instant, unless isCancelled: () -> Bool = { false }
) -> Bool {
    while !isCancelled() {
        let left = end - .now
        guard left > .zero else { return true }
        let slice = min(left, cancellationInterval) / .nanoseconds(1)
        var time = timespec(tv_sec: 0, tv_nsec: Int(slice))
        // A signal ends the sleep early, so the loop checks the clock.
        nanosleep(&time, nil)
    }
    return false
}

/// Waits for a time as `pause(until:unless:)` does.
@discardableResult
package func pause(for time: Duration, unless isCancelled: () -> Bool = { false }) -> Bool {
    pause(until: .now + time, unless: isCancelled)
}
