// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// Sends keepalives on time, even while the client is busy with its own side.
final class SessionKeepalive: Sendable {
    private let isStopped = Guarded(false)

    /// Starts a thread that calls `send` every so many seconds, until `stop()`; `send` may block.
    func start(every seconds: Double, _ send: @escaping @Sendable () -> Void) {
        _ = Threads.start(count: 1, orInline: false) { [isStopped] _ in
            let stopped = { isStopped.wait(until: .now + .seconds(seconds)) { $0 ? true : nil } }
            while stopped() == nil { send() }
        }
    }

    /// Stops the thread soon, without waiting for it.
    func stop() { isStopped.withLock { $0 = true } }
}
