// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization

/// Gives signs of life in time, while the client may be busy with its own side.
final class SessionKeeper: Sendable {
    private let isStopped = Atomic(false)

    /// Starts a thread that lives until it is stopped.
    ///
    /// - Parameters:
    ///   - seconds: between two signs.
    ///   - sign: gives one; may block.
    func start(every seconds: Double, _ sign: @escaping @Sendable () -> Void) {
        _ = Threads.start(count: 1, orInline: false) { [self] _ in
            let clock = ContinuousClock()
            var next = clock.now + .seconds(seconds)
            while !isStopped.load(ordering: .relaxed) {
                usleep(50_000)
                guard clock.now >= next, !isStopped.load(ordering: .relaxed) else { continue }
                sign()
                next = clock.now + .seconds(seconds)
            }
        }
    }

    /// Ends the thread soon; does not wait for it.
    func stop() { isStopped.store(true, ordering: .relaxed) }
}
