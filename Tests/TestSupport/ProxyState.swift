// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage

/// What a proxy's thread shares with those who steer it.
///
/// All of it is behind one lock, which is also held while bytes are sent: so a fault that has been
/// set holds for every later byte, and what a peer has received is counted.
final class ProxyState: Sendable {
    struct Guarded: ~Copyable {
        var faults: NetworkFaults
        var counters = ProxyCounters()
        var generator: SeededGenerator
        /// What the rate permits to send at present, in each direction.
        var allowances: [ProxyDirection: ProxyAllowance] = [:]
        var isClosing = false
        /// Moved into the thread when it starts.
        var listener: OwnedDescriptor?
        var wakeReceiver: OwnedDescriptor?
        /// A byte written here wakes the thread; it goes when the thread ends.
        var wakeSender: OwnedDescriptor?
    }

    private let guarded: Mutex<Guarded>

    init(
        _ faults: NetworkFaults, seed: UInt64, listener: consuming OwnedDescriptor
    ) throws(Errno) {
        var pair: (Int32, Int32) = (-1, -1)
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        _ = try retryingInterrupts {
            withUnsafeMutableBytes(of: &pair) { bytes in
                bytes.withMemoryRebound(to: Int32.self) {
                    socketpair(AF_UNIX, type, 0, $0.baseAddress)
                }
            }
        }
        guarded = Mutex(
            Guarded(
                faults: faults, generator: SeededGenerator(seed: seed), listener: listener,
                wakeReceiver: OwnedDescriptor(owning: pair.0),
                wakeSender: OwnedDescriptor(owning: pair.1)))
    }

    func withLock<Result: Sendable>(_ body: (inout Guarded) -> Result) -> Result {
        guarded.withLock { body(&$0) }
    }

    /// Changes something that the thread must learn of.
    func change(_ body: (inout Guarded) -> Void) {
        guarded.withLock {
            body(&$0)
            guard let wake = $0.wakeSender?.rawValue else { return }
            // When the buffer is full, the thread is about to wake anyway.
            var byte: UInt8 = 0
            send(wake, &byte, 1, Int32(MSG_NOSIGNAL))
        }
    }

    /// The listening socket, for the thread that starts.
    func takeListener() -> OwnedDescriptor { guarded.withLock { Self.take(&$0.listener) } }

    /// Readable when something was changed.
    func takeWakeReceiver() -> OwnedDescriptor { guarded.withLock { Self.take(&$0.wakeReceiver) } }

    /// The thread ends.
    func dropWakeSender() { guarded.withLock { $0.wakeSender = nil } }

    private static func take(_ descriptor: inout OwnedDescriptor?) -> OwnedDescriptor {
        guard let descriptor = descriptor.take() else { preconditionFailure("started twice") }
        return descriptor
    }
}
