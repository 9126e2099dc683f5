// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CTransferRing
internal import Glibc
internal import Synchronization
internal import SystemPackage

package struct Transfer {
    /// Bytes.
    package var offset: Int
    package var memory: UnsafeMutableRawBufferPointer

    package init(into memory: UnsafeMutableRawBufferPointer, at offset: Int) {
        self.offset = offset
        self.memory = memory
    }

    /// The memory is only read, so the transfer must be a write.
    package init(of memory: UnsafeRawBufferPointer, at offset: Int) {
        self.init(into: UnsafeMutableRawBufferPointer(mutating: memory), at: offset)
    }

    package enum Direction: Hashable, Sendable {
        case read
        case write
    }
}

/// Does many small transfers together through io_uring(7), because one call for each mostly waits.
///
/// Without io_uring, or if the kernel refuses it, `perform` does nothing and the caller uses single
/// calls.
package enum TransferRing {
    /// Transfers in flight.
    private static let capacity: UInt32 = 64

    /// Unused rings; never more than there were threads at once.
    private static let idle = Mutex<[Ring]>([])
    /// Whether the kernel refused a ring, which it will do again.
    private static let isRefused = Atomic(false)

    /// Safe to send, because a thread takes a ring out of `idle` before it uses it.
    private final class Ring: @unchecked Sendable {
        let ring: OpaquePointer
        init(_ ring: OpaquePointer) { self.ring = ring }
        deinit { ctr_free(ring) }
    }

    private static func take() -> Ring? {
        if let ring = idle.withLock({ $0.popLast() }) { return ring }
        if isRefused.load(ordering: .relaxed) { return nil }
        guard let ring = ctr_make(capacity) else {
            // A shortage of descriptors or memory may pass.
            let refusals: [Errno] = [
                .noFunction, .notPermitted, .permissionDenied, .invalidArgument,
            ]
            if refusals.contains(currentErrno()) { isRefused.store(true, ordering: .relaxed) }
            return nil
        }
        return Ring(ring)
    }

    package static var isAvailable: Bool {
        guard let ring = take() else { return false }
        idle.withLock { $0.append(ring) }
        return true
    }

    /// - Parameter transfers: in any order; their alignment depends on the file.
    /// - Returns: for each whether it was done completely. The others failed, were short, or were
    ///   not tried. The caller does them one by one, and so learns the error. `nil` without
    ///   io_uring; then none was tried.
    package static func perform(
        _ transfers: [Transfer], _ direction: Transfer.Direction,
        on file: borrowing OwnedDescriptor
    ) -> [Bool]? {
        guard let ring = take() else { return nil }
        var done: [Bool] = []
        done.reserveCapacity(transfers.count)
        var start = 0
        var isFailing = false
        while start < transfers.count && !isFailing {
            let part = transfers[start..<min(start + Int(capacity), transfers.count)]
            var entries = part.map {
                ctr_transfer(
                    offset: Int64($0.offset), memory: $0.memory.baseAddress,
                    length: UInt32($0.memory.count), result: 0)
            }
            ctr_perform(
                ring.ring, file.rawValue, direction == .write, &entries, UInt32(entries.count))
            for (entry, transfer) in zip(entries, part) {
                done.append(Int(entry.result) == transfer.memory.count)
                // Each transfer may take long on a failing disk, so the caller gets the rest and
                // stops at its first error.
                isFailing = isFailing || Self.mediumErrors.contains(-entry.result)
            }
            start = part.endIndex
        }
        idle.withLock { $0.append(ring) }
        return done + transfers[start...].map { _ in false }
    }

    /// As in `IOError.isMediumError`.
    private static let mediumErrors: Set<Int32> = [EIO, ENODATA, EILSEQ, 121]
}
