// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CTransferRing
internal import Glibc
internal import Synchronization
internal import SystemPackage

/// A piece of a file and its place in memory, which is read from or written to.
package struct Transfer {
    /// In the file, in bytes.
    package var offset: Int
    package var memory: UnsafeMutableRawBufferPointer

    package init(into memory: UnsafeMutableRawBufferPointer, at offset: Int) {
        self.offset = offset
        self.memory = memory
    }

    /// The memory is only read where the transfer is a write.
    package init(of memory: UnsafeRawBufferPointer, at offset: Int) {
        self.init(into: UnsafeMutableRawBufferPointer(mutating: memory), at: offset)
    }

    package enum Direction: Hashable, Sendable {
        case read
        case write
    }
}

/// Many small transfers for the price of a few: a call for each would mostly wait to be woken up.
///
/// Where the kernel has no io_uring(7), or does not let this program use it, nothing is done, and
/// the caller does without.
package enum TransferRing {
    /// How many transfers go at once.
    private static let capacity: UInt32 = 64

    /// Rings that nobody uses at the moment; never more than there were threads at once.
    private static let idle = Mutex<[Ring]>([])
    /// The kernel has refused once: it will again.
    private static let isRefused = Atomic(false)

    private final class Ring: @unchecked Sendable {
        let ring: OpaquePointer
        init(_ ring: OpaquePointer) { self.ring = ring }
        deinit { ctr_free(ring) }
    }

    private static func take() -> Ring? {
        if let ring = idle.withLock({ $0.popLast() }) { return ring }
        if isRefused.load(ordering: .relaxed) { return nil }
        guard let ring = ctr_make(capacity) else {
            // Without descriptors or memory for the moment there may be one the next time.
            let refusals: [Errno] = [
                .noFunction, .notPermitted, .permissionDenied, .invalidArgument,
            ]
            if refusals.contains(currentErrno()) { isRefused.store(true, ordering: .relaxed) }
            return nil
        }
        return Ring(ring)
    }

    /// Whether the kernel lets this program have one.
    package static var isAvailable: Bool {
        guard let ring = take() else { return false }
        idle.withLock { $0.append(ring) }
        return true
    }

    /// Does transfers together, and returns when all of them have ended.
    ///
    /// - Parameters:
    ///   - transfers: in any order; what they need to be aligned to is up to the file.
    ///   - direction: of all of them.
    ///   - file: which.
    /// - Returns: for each whether all of it was transferred. The others failed, or were shorter,
    ///   or were not tried: by doing them one by one the caller learns why.
    package static func perform(
        _ transfers: [Transfer], _ direction: Transfer.Direction,
        on file: borrowing OwnedDescriptor
    ) -> [Bool] {
        guard let ring = take() else { return transfers.map { _ in false } }
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
                // On a disk that fails every transfer may take long: those that follow are left to
                // the caller, who ends at the first.
                isFailing = isFailing || Self.mediumErrors.contains(-entry.result)
            }
            start = part.endIndex
        }
        idle.withLock { $0.append(ring) }
        return done + transfers[start...].map { _ in false }
    }

    /// As `IOError.isMediumError` has them.
    private static let mediumErrors: Set<Int32> = [EIO, ENODATA, EILSEQ, 121]
}
