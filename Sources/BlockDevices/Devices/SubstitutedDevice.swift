// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

/// A device that shows other bytes in one place than it has, and translates writes there back.
package final class SubstitutedDevice: BlockDevice {
    private let base: any BlockDevice
    private let real: Patch
    private let shown: Patch

    /// - Parameters:
    ///   - real: bytes that may be on the device, within one logical sector.
    ///   - shown: as many bytes, which reads return instead.
    package init(_ base: any BlockDevice, _ real: Patch, as shown: [UInt8]) {
        precondition(real.bytes.count == shown.count)
        self.base = base
        self.real = real
        self.shown = Patch(shown, at: real.offset)
    }

    package var name: String { base.name }
    package var geometry: Geometry { base.geometry }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try base.read(into: buffer, at: offset)
        substitute(in: buffer, at: offset, real, by: shown)
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        let range = ByteRange(offset: offset, length: buffer.count)
        guard range.overlaps(real.range) else { return try base.write(buffer, at: offset) }
        let copy = AlignedBuffer(count: max(buffer.count, 1))
        let bytes = UnsafeMutableRawBufferPointer(rebasing: copy.bytes[..<buffer.count])
        bytes.copyMemory(from: buffer)
        substitute(in: bytes, at: offset, shown, by: real)
        try base.write(UnsafeRawBufferPointer(bytes), at: offset)
    }

    package func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        let touched = transfers.map {
            ByteRange(offset: $0.offset, length: $0.memory.count).overlaps(real.range)
        }
        if direction == .write && touched.contains(true) { return transfers.map { _ in false } }
        let done = base.attempt(transfers, direction)
        for (transfer, isTouched) in zip(transfers, touched) where isTouched {
            substitute(in: transfer.memory, at: transfer.offset, real, by: shown)
        }
        return done
    }

    private func substitute(
        in buffer: UnsafeMutableRawBufferPointer, at offset: Int, _ old: Patch, by new: Patch
    ) {
        let start = old.offset - offset
        guard start >= 0, start + old.bytes.count <= buffer.count else { return }
        let place = slice(buffer, start, start + old.bytes.count)
        if place.elementsEqual(old.bytes) { place.copyBytes(from: new.bytes) }
    }

    package var shortZeros: Int { base.shortZeros }

    package func zero(_ range: ByteRange) throws(IOError) { try base.zero(range) }
    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        try base.nextData(from: offset)
    }
    package func resize(to size: Int) throws(IOError) { try base.resize(to: size) }
    package var zeroedByFlush: ByteRange? { base.zeroedByFlush }
    package func flush() throws(IOError) { try base.flush() }
    package func checkIdentity() throws(IOError) { try base.checkIdentity() }
    package func hasForeignWrites() -> Bool { base.hasForeignWrites() }
    package func hadOtherWriters() -> Bool { base.hadOtherWriters() }
    package func changeCounter() -> ChangeCounter? { base.changeCounter() }
    package func persistentChangeCounter() -> ChangeCounter? { base.persistentChangeCounter() }
    package var reasonForNoCounter: String? { base.reasonForNoCounter }
}
