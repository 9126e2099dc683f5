// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
internal import SystemPackage

/// The size of a device and the units in which it is addressed, all in bytes.
package struct Geometry: Hashable, Sendable {
    /// The device's size.
    package var size: Int
    /// The smallest unit the device addresses (`BLKSSZGET`); 512 for an image.
    package var logicalSector: Int
    /// What the start of a transfer, and of its memory, is a multiple of.
    ///
    /// Its length should be one as well, but for the end of the source: what is left over goes
    /// through the page cache.
    package var alignment: Int

    package init(size: Int, logicalSector: Int, alignment: Int) {
        self.size = size
        self.logicalSector = logicalSector
        self.alignment = alignment
    }

    /// Bytes: beyond all devices, and so far from `Int.max` that no rounding up overflows.
    ///
    /// What another machine says of its devices is held to it, and what a file system says of an
    /// image.
    package static let maximumSize = 1 << 60
}

extension Int {
    /// The smallest multiple of a unit that is not less; where an `Int` holds none, the largest that
    /// it holds.
    package func roundedUp(to unit: Int) -> Int {
        let over = self % unit
        guard over > 0 else { return self }
        let (sum, isTooFar) = addingReportingOverflow(unit - over)
        return isTooFar ? self - over : sum
    }
}

/// What changes when somebody writes to a device, and only then: two that differ, taken at two
/// moments, tell of a write in between.
package struct ContentStamp: Hashable, Sendable {
    package let marks: [Int]
    package init(_ marks: [Int]) { self.marks = marks }
}

/// Anything with a size that is read and written at offsets.
///
/// All offsets and lengths are bytes and within the device; transfers obey `geometry.alignment`.
/// Every operation may be called from several threads at once.
package protocol BlockDevice: AnyObject, Sendable {
    /// What the user calls it.
    var name: String { get }

    var geometry: Geometry { get }

    /// Fills the whole buffer.
    ///
    /// - Throws: when a byte of it cannot be read, the device's end within it included.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError)

    /// Writes the whole buffer.
    ///
    /// - Throws: when not all of it could be written; any part of it may have been.
    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError)

    /// Does several transfers at once where the device can, which makes small ones cheap.
    ///
    /// - Parameters:
    ///   - transfers: each as `read` and `write` want it; they do not overlap.
    ///   - direction: of all of them.
    /// - Returns: for each whether all of it is done. The others are to be done one by one, also to
    ///   learn what is wrong with them.
    func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool]

    /// Makes the range read back as zeros, the cheapest way that guarantees it.
    ///
    /// - Throws: when not all of it could be zeroed; any part of it may have been.
    func zero(_ range: ByteRange) throws(IOError)

    /// The first run at or after an offset that may hold anything but zeros.
    ///
    /// - Returns: the run, or `nil` where only zeros follow. A device that does not know its holes
    ///   answers with all of the rest.
    /// - Throws: when the device cannot tell because it fails.
    func nextData(from offset: Int) throws(IOError) -> ByteRange?

    /// Changes the size; what is added reads as zeros.
    ///
    /// - Throws: also where the device cannot be resized at all.
    func resize(to size: Int) throws(IOError)

    /// Waits until all that was written is on the medium, and leaves nothing of the device in the
    /// page cache that was put there by this program.
    ///
    /// - Throws: when a byte written since the last flush may be lost.
    func flush() throws(IOError)

    /// Makes sure that the device still has the size it had when it was opened.
    ///
    /// - Throws: when it was cut or has grown since, so that what was read is not all of it.
    func checkSize() throws(IOError)

    /// The stamp of this moment; `nil` where the device has none.
    func contentStamp() -> ContentStamp?

    /// A stamp that is kept from one run to another: it also changes when the device is given other
    /// content from below; `nil` where there is none that is worth keeping.
    func lastingStamp() -> ContentStamp?
}

extension BlockDevice {
    package func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        transfers.map { _ in false }
    }

    /// Fills the memory of several transfers.
    ///
    /// - Parameter transfers: what to read and where to.
    /// - Throws: when a byte of them cannot be read.
    package func read(_ transfers: [Transfer]) throws(IOError) {
        for (transfer, isDone) in zip(transfers, attempt(transfers, .read)) where !isDone {
            try read(into: transfer.memory, at: transfer.offset)
        }
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        offset < geometry.size ? ByteRange(offset, to: geometry.size) : nil
    }

    package func resize(to size: Int) throws(IOError) {
        throw IOError(name, "resize to \(size) bytes", .notSupported)
    }

    package func checkSize() throws(IOError) {}

    package func contentStamp() -> ContentStamp? { nil }

    package func lastingStamp() -> ContentStamp? { contentStamp() }
}
