// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
package import SystemPackage

/// The size of a device and the units in which it is addressed, all in bytes.
package struct Geometry: Hashable, Sendable {
    package var size: Int
    /// The smallest addressable unit (`BLKSSZGET`); 512 for an image.
    package var logicalSector: Int
    /// The unit of offsets and memory addresses of transfers.
    ///
    /// It is also the unit of lengths, except at the end of the source, where the rest goes through
    /// the page cache.
    package var alignment: Int

    package init(size: Int, logicalSector: Int, alignment: Int) {
        self.size = size
        self.logicalSector = logicalSector
        self.alignment = alignment
    }

    /// Bytes; larger than any device, and no rounding up from here overflows.
    ///
    /// It limits the sizes that another machine reports, and those of images.
    package static let maximumSize = 1 << 60

    /// Source: `blk_validate_block_size` in the kernel's include/linux/blkdev.h; some drivers
    /// report other sizes.
    package static func isLogicalSector(_ bytes: Int) -> Bool {
        (512...(64 << 10)).contains(bytes) && bytes.nonzeroBitCount == 1
    }

    /// Bytes of 512-byte sectors from sysfs; 0 if the text is not a number.
    ///
    /// The result is at most half of `Int.max`, so that a start and a size can be added.
    package static func bytes(ofSectors text: String?) -> Int {
        guard let sectors = text.flatMap({ UInt64($0) }) else { return 0 }
        return Int(min(sectors, UInt64(Int.max / 1024))) * 512
    }
}

extension Int {
    /// Rounds up to a multiple of a unit, or down if rounding up would overflow.
    package func roundedUp(to unit: Int) -> Int {
        let over = self % unit
        guard over > 0 else { return self }
        let (sum, isTooFar) = addingReportingOverflow(unit - over)
        return isTooFar ? self - over : sum
    }
}

/// The least common multiple of two positive numbers, which must fit in an `Int`.
package func leastCommonMultiple(_ first: Int, _ second: Int) -> Int {
    var (a, b) = (first, second)
    while b != 0 { (a, b) = (b, a % b) }
    return first / a * second
}

/// A change counter; two different values prove a write between the two readings.
package struct ChangeCounter: Hashable, Sendable {
    package let marks: [Int]
    /// The lowest value of the last mark that still means no write; `nil` if all marks must be
    /// equal.
    package let since: Int?

    package init(_ marks: [Int], since: Int? = nil) {
        self.marks = marks
        self.since = since
    }

    /// All marks that mean no write between then and now, including these.
    package var equivalents: [[Int]] {
        guard let since, let last = marks.last, since > 0, since < last else { return [marks] }
        return (max(since, last - Self.furthest)...last).map { marks.dropLast() + [$0] }
    }

    /// More versions than any device keeps; it bounds the numbers that another machine sends.
    private static let furthest = 4096
}

/// Anything with a size that is read and written at offsets.
///
/// All offsets and lengths are bytes within the device. Transfers obey `geometry.alignment`. Every
/// operation may be called from several threads at once.
package protocol BlockDevice: AnyObject, Sendable {
    var name: String { get }

    var geometry: Geometry { get }

    /// Fills the whole buffer, and throws if a byte cannot be read or is beyond the device's end.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError)

    /// If it throws, any part of the buffer may have been written.
    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError)

    /// Does several transfers that do not overlap at once if the device can, which makes small ones
    /// cheap.
    ///
    /// - Returns: for each whether it was done completely. The caller does the others one by one,
    ///   and so learns the error.
    func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool]

    /// Shorter runs of zeros, in bytes, are cheaper to write than to zero; 0 if there are none.
    var shortZeros: Int { get }

    /// Makes the range read back as zeros, in the cheapest way that guarantees it.
    ///
    /// If it throws, any part may have been zeroed.
    func zero(_ range: ByteRange) throws(IOError)

    /// The first run at or after an offset that may contain other bytes than zeros; `nil` if there
    /// is none.
    ///
    /// A device that does not know its holes returns the whole rest.
    func nextData(from offset: Int) throws(IOError) -> ByteRange?

    /// Added bytes read as zeros; it throws if the device cannot be resized.
    func resize(to size: Int) throws(IOError)

    /// Waits until all written data is on the medium, and drops this program's pages from the page
    /// cache.
    ///
    /// If it throws, bytes written since the last flush may be lost.
    func flush() throws(IOError)

    /// What the next flush may zero besides, because it lies behind the replica; `nil` for nothing.
    var zeroedByFlush: ByteRange? { get }

    /// Throws if the name is gone or leads to another device, or if the size has changed.
    func checkIdentity() throws(IOError)

    /// Whether another process wrote since the device was locked for writing; `false` if unknown.
    func hasForeignWrites() -> Bool

    /// Whether another program had the target open for writing since the last call, so that only a
    /// comparison shows whether it wrote; `false` if unknown.
    ///
    /// After it was `true` it is `false` as long as the change counter stays the same.
    func hadOtherWriters() -> Bool

    /// Whether the kernel reports such writes and writers since the device was locked for writing.
    var reportsForeignWrites: Bool { get }

    /// The change counter now; `nil` if the device has none.
    func changeCounter() -> ChangeCounter?

    /// The persistent change counter, which is kept from run to run; `nil` if the device has none.
    ///
    /// Equal values prove that no program wrote, and that no layer below replaced the content.
    func persistentChangeCounter() -> ChangeCounter?

    /// Why there is no persistent change counter, such as `it is an md array`; `nil` if unknown.
    var reasonForNoCounter: String? { get }

    /// Whether it is on another machine, so that it is compared by digests.
    var isRemote: Bool { get }
    /// Whether it is known to be an image, here or on its server, and so can get any size.
    var isImage: Bool { get }
    /// Whether transfers bypass the page cache; `true` if unknown.
    var isDirect: Bool { get }
    /// Whether a flush is certain to reach the medium.
    var isFlushable: Bool { get }
    /// The block size in bytes if the user chose none; `nil` for the default.
    var preferredBlock: Int? { get }
    /// Bytes sent and received so far, including headers; `nil` for a local device.
    var traffic: (sent: Int, received: Int)? { get }
    /// The status of the open file; `nil` if it is no file of this machine or cannot be asked.
    var fileStatus: FileStatus? { get }
    /// The snapshot that was taken for the run, `group/volume`.
    var snapshot: String? { get }

    /// The same device, with blocks that suit the other device's alignment in bytes.
    func fitting(_ alignment: Int) -> any BlockDevice

    /// Whether other clients or programs may have written, so that earlier comparisons count no
    /// more.
    ///
    /// If so, every operation fails until this is called once.
    func takeRestart() -> Bool

    /// Throws if the name of an image leads to no file or to another one.
    ///
    /// This is for an image that was opened by the path of a descriptor, which stays valid when the
    /// file is renamed.
    ///
    /// - Parameter status: of the file that the name leads to now; ENOENT or ENOTDIR for none, and
    ///   ESTALE for another file.
    func checkName(_ status: Result<FileStatus, Errno>) throws(IOError)

    /// Ends the run, and a session with a server.
    ///
    /// A complete run keeps what was created for it, and older snapshots beyond the limit are
    /// removed. The result has a line for each thing that could not be done.
    @discardableResult func release(isComplete: Bool) -> [String]

    /// Ends the session without the client's request, so that the client may open it again.
    func leave()
}

/// The members that report other programs have no default, because a wrapper that does not ask its
/// base would hide them.
extension BlockDevice {
    package func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        transfers.map { _ in false }
    }

    package func read(_ transfers: [Transfer]) throws(IOError) {
        for (transfer, isDone) in zip(transfers, attempt(transfers, .read)) where !isDone {
            try read(into: transfer.memory, at: transfer.offset)
        }
    }

    package var shortZeros: Int { 0 }

    package var zeroedByFlush: ByteRange? { nil }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        offset < geometry.size ? ByteRange(offset, to: geometry.size) : nil
    }

    package func resize(to size: Int) throws(IOError) {
        throw IOError(name, "resize to \(size) bytes", .notSupported)
    }

    /// A device that does not say that it reports writes proves nothing.
    package var reportsForeignWrites: Bool { false }

    // A wrapper does not inherit these from its base.
    package var isRemote: Bool { false }
    package var isImage: Bool { false }
    package var isDirect: Bool { true }
    package var isFlushable: Bool { true }
    package var preferredBlock: Int? { nil }
    package var traffic: (sent: Int, received: Int)? { nil }
    package var fileStatus: FileStatus? { nil }
    package var snapshot: String? { nil }
    package func fitting(_ alignment: Int) -> any BlockDevice { self }
    package func takeRestart() -> Bool { false }
    package func checkName(_ status: Result<FileStatus, Errno>) throws(IOError) {}
    package func release(isComplete: Bool) -> [String] { [] }
    package func leave() {}
}
