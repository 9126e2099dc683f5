// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import Synchronization
package import SystemPackage

/// What was done to a device.
package enum Operation: Hashable, Sendable {
    case read(ByteRange)
    case write(ByteRange)
    case zero(ByteRange)
    case resize(Int)
    case flush
}

/// A device that passes the operations that it does not change to its base.
package protocol WrappingDevice: BlockDevice {
    var base: any BlockDevice { get }
}

extension WrappingDevice {
    package var name: String { base.name }
    package var geometry: Geometry { base.geometry }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        try base.nextData(from: offset)
    }

    package func checkIdentity() throws(IOError) { try base.checkIdentity() }
    package func hasForeignWrites() -> Bool { base.hasForeignWrites() }
    package func hadOtherWriters() -> Bool { base.hadOtherWriters() }
    package func changeCounter() -> ChangeCounter? { base.changeCounter() }
    package func persistentChangeCounter() -> ChangeCounter? { base.persistentChangeCounter() }
    package var reasonForNoCounter: String? { base.reasonForNoCounter }
}

/// A device that logs its operations.
package final class RecordingDevice: WrappingDevice {
    package let base: any BlockDevice
    private let log = Mutex<[Operation]>([])

    package init(_ base: any BlockDevice) { self.base = base }

    package var operations: [Operation] { log.withLock { $0 } }

    /// Bytes that were changed on purpose, write by write.
    package var modifications: [ByteRange] {
        operations.compactMap {
            switch $0 {
            case .write(let range), .zero(let range): return range
            default: return nil
            }
        }
    }

    package var reads: [ByteRange] {
        operations.compactMap { if case .read(let range) = $0 { range } else { nil } }
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        note(.read(ByteRange(offset: offset, length: buffer.count)))
        try base.read(into: buffer, at: offset)
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        note(.write(ByteRange(offset: offset, length: buffer.count)))
        try base.write(buffer, at: offset)
    }

    /// Does every other one.
    package func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        transfers.enumerated().map { index, transfer in
            index % 2 == 0 && does(transfer, direction)
        }
    }

    package func zero(_ range: ByteRange) throws(IOError) {
        note(.zero(range))
        try base.zero(range)
    }

    package func resize(to size: Int) throws(IOError) {
        note(.resize(size))
        try base.resize(to: size)
    }

    package func flush() throws(IOError) {
        note(.flush)
        try base.flush()
    }

    private func note(_ operation: Operation) { log.withLock { $0.append(operation) } }
}

/// A device with injected faults.
package final class FaultyDevice: WrappingDevice {
    /// Where and how it fails.
    package struct Faults: Sendable {
        /// Reads that touch one of these fail, and with what.
        package var unreadable: [ByteRange] = []
        package var readError = Errno.ioError
        /// Writes and zeroing that touch one of these fail, and with what.
        package var unwritable: [ByteRange] = []
        package var writeError = Errno.ioError
        package var flushError: Errno?
        /// Called before each read; it may change the world.
        package var onRead: (@Sendable (ByteRange) -> Void)?

        package init() {}
    }

    package let base: any BlockDevice
    private let faults: Mutex<Faults>

    package init(_ base: any BlockDevice, _ faults: Faults) {
        self.base = base
        self.faults = Mutex(faults)
    }

    /// Repairs the device, or breaks it in another way.
    package func change(_ newFaults: Faults) { faults.withLock { $0 = newFaults } }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        let range = ByteRange(offset: offset, length: buffer.count)
        let current = faults.withLock { $0 }
        current.onRead?(range)
        if current.unreadable.contains(where: range.overlaps) {
            throw IOError(name, "read at \(range)", current.readError)
        }
        try base.read(into: buffer, at: offset)
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        try failIfUnwritable(ByteRange(offset: offset, length: buffer.count), "write")
        try base.write(buffer, at: offset)
    }

    /// Does all but those that fail.
    package func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        transfers.map { does($0, direction) }
    }

    package func zero(_ range: ByteRange) throws(IOError) {
        try failIfUnwritable(range, "zero")
        try base.zero(range)
    }

    package func resize(to size: Int) throws(IOError) { try base.resize(to: size) }

    package func flush() throws(IOError) {
        if let error = faults.withLock({ $0.flushError }) { throw IOError(name, "flush", error) }
        try base.flush()
    }

    private func failIfUnwritable(_ range: ByteRange, _ operation: String) throws(IOError) {
        let current = faults.withLock { $0 }
        if current.unwritable.contains(where: range.overlaps) {
            throw IOError(name, "\(operation) at \(range)", current.writeError)
        }
    }
}

extension BlockDevice {
    /// Does one transfer that may be empty.
    fileprivate func does(_ transfer: Transfer, _ direction: Transfer.Direction) -> Bool {
        guard !transfer.memory.isEmpty else { return false }
        do throws(IOError) {
            switch direction {
            case .read: try read(into: transfer.memory, at: transfer.offset)
            case .write: try write(UnsafeRawBufferPointer(transfer.memory), at: transfer.offset)
            }
            return true
        } catch {
            return false
        }
    }
}
