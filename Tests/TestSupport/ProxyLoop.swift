// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CTestSupport
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// A proxy's thread: waits for any of its sockets and lets the connections go on.
final class ProxyLoop {
    private let shared: ProxyState
    private let queueLimit: Int
    private let listener: OwnedDescriptor
    private let wake: OwnedDescriptor
    private var connections: [ProxyConnection] = []
    private var buffer = [UInt8](repeating: 0, count: ProxyConnection.readSize)

    init(_ shared: ProxyState, queueLimit: Int) {
        self.shared = shared
        self.queueLimit = queueLimit
        listener = shared.takeListener()
        wake = shared.takeWakeReceiver()
    }

    // The sockets are closed with this object, which no one else knows.
    deinit { shared.dropWakeSender() }

    /// Runs until the proxy is closed.
    func run() {
        while true {
            let (faults, isClosing) = shared.withLock { ($0.faults, $0.isClosing) }
            if isClosing { return }
            let hasNew = wait(faults)
            takeWakes()
            if hasNew { acceptAll() }
            let now = ContinuousClock.now
            for connection in connections { connection.advance(now, &buffer) }
            connections.removeAll { $0.isClosed }
            // Each is the first to use the allowance in its turn.
            if faults.bytesPerSecond != nil && !connections.isEmpty {
                let first = connections.removeFirst()
                connections.append(first)
            }
        }
    }

    /// Waits until there is something to do, and tells the connections what.
    ///
    /// - Returns: whether there are new connections.
    private func wait(_ faults: NetworkFaults) -> Bool {
        let now = ContinuousClock.now
        var polled = [
            Self.polled(wake.rawValue, POLLIN), Self.polled(listener.rawValue, POLLIN),
        ]
        var limit: Duration?
        for connection in connections {
            let needs = connection.needs(faults, now)
            polled.append(Self.polled(connection.clientDescriptor, needs.client))
            polled.append(Self.polled(connection.serverDescriptor, needs.server))
            if let pause = needs.pause { limit = min(limit ?? pause, pause) }
        }
        let nanoseconds = limit.map { max(0, $0 / .nanoseconds(1)) }
        let result = cts_poll(
            &polled, UInt(polled.count), nanoseconds.map { Int64(min($0, 1e15).rounded(.up)) } ?? -1
        )
        guard result >= 0 else {
            precondition(currentErrno() == .interrupted, "ppoll: \(currentErrno())")
            return false
        }
        for (index, connection) in connections.enumerated() {
            connection.isClientReady = polled[2 + 2 * index].revents != 0
            connection.isServerReady = polled[3 + 2 * index].revents != 0
        }
        return polled[1].revents != 0
    }

    /// A negative descriptor is skipped; without it a hung-up socket would end every wait.
    private static func polled(_ descriptor: Int32?, _ events: Int32) -> pollfd {
        pollfd(
            fd: events == 0 ? -1 : descriptor ?? -1, events: Int16(events), revents: 0)
    }

    private func takeWakes() {
        var bytes: UInt64 = 0
        while recv(wake.rawValue, &bytes, MemoryLayout<UInt64>.size, 0) > 0 {}
    }

    private func acceptAll() {
        while let client = try? Loopback.accept(listener) {
            let number = shared.withLock { state -> Int? in
                if state.faults.isRefusing {
                    state.counters.refused += 1
                    return nil
                }
                state.counters.connections += 1
                return state.counters.connections - 1
            }
            guard let number else { continue }
            connections.append(
                ProxyConnection(client, shared, number: number, queueLimit: queueLimit))
        }
    }
}
