// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import Synchronization

/// What other processes did to files, as a descriptor of fanotify(7) reports it.
final class ForeignEvents: Sendable {
    struct Kinds: OptionSet, Sendable {
        let rawValue: Int

        static let write = Self(rawValue: 1)
        /// A close after opening for writing.
        static let close = Self(rawValue: 2)
        /// A write that may have been the kernel's own.
        static let possibleWrite = Self(rawValue: 4)
    }

    /// Bits of an event's mask (linux/fanotify.h): `FAN_MODIFY` and `FAN_CLOSE_WRITE`.
    static let modify: UInt64 = 0x2
    static let closeWrite: UInt64 = 0x8

    let descriptor: Int32
    private let kinds: @Sendable (_ mask: UInt64, _ process: Int32) -> Kinds
    private let seen = Mutex(Kinds())

    /// Makes a descriptor that watches nothing yet; `nil` if the kernel has no such events.
    ///
    /// - Parameter kinds: of an event that another process caused. Without privileges that process
    ///   is 0 (Linux 5.13 and later).
    init?(_ kinds: @escaping @Sendable (_ mask: UInt64, _ process: Int32) -> Kinds) {
        descriptor = clb_create_watch()
        guard descriptor >= 0 else { return nil }
        self.kinds = kinds
    }

    /// Closes the descriptor in another thread, because the kernel first waits some milliseconds
    /// until no processor uses the watch any more (`fsnotify_wait_marks_destroyed` in the kernel's
    /// fs/notify/mark.c).
    deinit {
        let close = { @Sendable [descriptor] in _ = OwnedDescriptor(owning: descriptor) }
        if !Threads.startDetached(close) { close() }
    }

    /// Whether there was an event of one of these kinds since the last call for that kind.
    func take(_ wanted: Kinds) -> Bool {
        seen.withLock { seen in
            seen.formUnion(newKinds())
            defer { seen.subtract(wanted) }
            return !seen.isDisjoint(with: wanted)
        }
    }

    /// Takes all events that the kernel has reported by now.
    ///
    /// The kernel merges the events of a process, so their number stays small during a long run.
    private func newKinds() -> Kinds {
        var new: Kinds = []
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 8)
        defer { memory.deallocate() }
        while true {
            let count = read(descriptor, memory.baseAddress, memory.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return new }
            var rest = UnsafeRawBufferPointer(rebasing: memory[..<count])
            // struct fanotify_event_metadata: event_len at 0, mask at 8, pid at 20.
            while rest.count >= 24 {
                let length = Int(rest.loadUnaligned(fromByteOffset: 0, as: UInt32.self))
                let mask = rest.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
                let process = rest.loadUnaligned(fromByteOffset: 20, as: Int32.self)
                if process != getpid() { new.formUnion(kinds(mask, process)) }
                guard length >= 24, length <= rest.count else { break }
                rest = UnsafeRawBufferPointer(rebasing: rest[length...])
            }
        }
    }
}
