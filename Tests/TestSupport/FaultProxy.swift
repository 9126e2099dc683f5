// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization
package import SystemPackage

/// The two ways through a proxy.
package enum ProxyDirection: Hashable, Sendable {
    case toServer
    case toClient
}

/// What goes wrong on the way; all of it may be set at any time, each for itself.
package struct NetworkFaults: Sendable {
    /// Answers that the proxy gives itself.
    package struct Answers: Equatable, Sendable {
        /// The status of each, such as 503.
        package var status: Int
        /// How many requests are still to be answered so.
        package var count: Int
        /// The Retry-After header, in seconds.
        package var retryAfter: Int?
        /// Whether the connection is closed after each.
        package var isClosing: Bool

        package init(
            status: Int, count: Int, retryAfter: Int? = nil, isClosing: Bool = false
        ) {
            self.status = status
            self.count = count
            self.retryAfter = retryAfter
            self.isClosing = isClosing
        }
    }

    /// The port on 127.0.0.1 that new connections are forwarded to.
    package var upstreamPort: Int

    /// Seconds that each byte is on its way, in either direction.
    ///
    /// The server learns of a connection so much later, too. The bandwidth stays, up to what
    /// `queueLimit` bytes in that time make.
    package var delay = 0.0

    /// Bytes a second in each direction, over all connections; `nil` for no limit.
    package var bytesPerSecond: Int?

    /// A connection is cut when it has carried so many bytes in both directions, a random number
    /// out of these; it ends for both sides, at random with a reset or in order.
    package var cutEvery: ClosedRange<Int>?
    /// How many connections are still to be cut.
    package var cutsLeft = Int.max

    /// How many bits are still to be flipped: one in each read longer than
    /// `FaultProxy.shortestCorruptedRead`.
    package var corruptions = 0
    package var corruptDirection = ProxyDirection.toClient
    /// So many bytes at the start of a read are spared, for there the headers are.
    package var corruptAfter = 1024

    /// Answers to the next requests, which the server does not see.
    package var answers: Answers?

    /// Nothing is forwarded, not even the end of a connection; bytes are taken until the queues
    /// are full.
    package var isStalled = false
    /// Bytes over all connections, counted from now on, after which `isStalled` becomes true.
    package var stallAfter: Int?

    /// Connections before this one, counted from 0, carry nothing any more, not even their end, as
    /// when a NAT has forgotten them; later ones are as usual.
    var firstKnown = 0

    /// New connections are closed at once.
    package var isRefusing = false

    init(upstreamPort: Int) { self.upstreamPort = upstreamPort }
}

/// What a proxy has done since it was made.
package struct ProxyCounters: Equatable, Sendable {
    /// Bytes sent to the server, headers included.
    package var bytesToServer = 0
    /// Bytes sent to the client, headers and the proxy's own answers included.
    package var bytesToClient = 0
    /// Connections taken, without those that were refused.
    package var connections = 0
    package var refused = 0
    /// Heads of requests that were forwarded.
    package var requests = 0
    /// Requests that the proxy answered itself.
    package var answers = 0
    package var cuts = 0
    package var corruptions = 0

    package init() {}
}

/// A TCP proxy on 127.0.0.1 that behaves like a bad network, or like a bad proxy.
///
/// It reads and sets the members of `NetworkFaults` as its own: `proxy.delay = 0.05`. What is set
/// holds for all that is sent after that, also of connections that exist. One thread of its own
/// carries all connections.
@dynamicMemberLookup
package final class FaultProxy: Sendable {
    /// Reads that are not longer than this are never corrupted, in bytes.
    package static let shortestCorruptedRead = 4096

    /// The port on 127.0.0.1 where it listens.
    package let port: Int
    private let shared: ProxyState
    private let thread: Mutex<Threads.Running?>

    /// Starts a proxy.
    ///
    /// - Parameters:
    ///   - upstreamPort: the server's port on 127.0.0.1.
    ///   - seed: of everything random.
    ///   - queueLimit: bytes that it holds in each direction of a connection; when it holds more,
    ///     it reads no further.
    /// - Throws: what the system says.
    package init(
        upstreamPort: Int, seed: UInt64 = 1, queueLimit: Int = 16 << 20
    ) throws(Errno) {
        let listener = try Loopback.listen()
        try Loopback.stopBlocking(listener)
        port = try Loopback.port(of: listener)
        let shared = try ProxyState(
            NetworkFaults(upstreamPort: upstreamPort), seed: seed, listener: listener)
        self.shared = shared
        let running = Threads.start(count: 1, orInline: false) { _ in
            ProxyLoop(shared, queueLimit: queueLimit).run()
        }
        guard !running.isEmpty else {
            running.wait()
            throw .resourceTemporarilyUnavailable
        }
        thread = Mutex(running)
    }

    deinit { close() }

    /// Connects a client whose calls wait for 30 seconds at most.
    package func connect() throws(Errno) -> StreamSocket {
        let connection = try StreamSocket(port: port)
        connection.limitWaiting(to: 30)
        return connection
    }

    /// Forgets all connections that there are: their bytes vanish from now on.
    package func forgetConnections() {
        shared.change { $0.faults.firstKnown = $0.counters.connections }
    }

    /// Ends it; when this returns, its thread has ended and all its sockets are closed.
    package func close() {
        guard let running = thread.withLock({ $0.take() }) else { return }
        shared.change { $0.isClosing = true }
        running.wait()
    }

    package subscript<Value: Sendable>(
        dynamicMember member: WritableKeyPath<NetworkFaults, Value>
    ) -> Value {
        get { shared.withLock { $0.faults[keyPath: member] } }
        set { shared.change { $0.faults[keyPath: member] = newValue } }
    }

    /// What it has done so far; what a peer has received is counted here.
    package var counters: ProxyCounters { shared.withLock { $0.counters } }
}
