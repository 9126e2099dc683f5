// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import Digests
package import LinuxIO
package import WireProtocol

/// A device on another machine: what is there is compared by digests, so that only what differs
/// crosses the connection.
///
/// Errors of the device are as they would be here; those of the connection have `isNetwork` set.
package protocol RemoteDevice: BlockDevice {
    var digestMethod: DigestMethod { get }
    var digestKey: DigestKey? { get }
    /// Bytes of the blocks that it is compared by where the user has no wish; `nil` for the usual.
    var preferredBlock: Int? { get }
    /// Bytes sent and received so far, headers included.
    var traffic: (sent: Int, received: Int) { get }
    /// Whether a flush is known to reach the medium.
    var isFlushable: Bool { get }

    /// A way to the device for one thread, with memory of its own.
    func openChannel() -> any RemoteChannel

    /// Writes extents of a window.
    ///
    /// - Parameters:
    ///   - extents: ascending.
    ///   - bytes: the window's; `nil` where all extents are zeros.
    ///   - offset: where the window begins.
    /// - Throws: the device's error, or that of the connection.
    func write(
        _ extents: [Extent], of bytes: UnsafeRawBufferPointer?, at offset: Int) throws(IOError)
}

extension RemoteDevice {
    package var preferredBlock: Int? { nil }
    package var isFlushable: Bool { true }
}

/// One thread's way to a remote device.
package protocol RemoteChannel: AnyObject {
    /// Asks where a window differs.
    ///
    /// - Parameters:
    ///   - window: ascending ranges of whole regions, but for the end of what is compared; together
    ///     at most `Limits.window`.
    ///   - digests: one a region.
    /// - Returns: ascending; valid until the next comparison.
    /// - Throws: the device's error, or that of the connection.
    func compare(
        _ window: [ByteRange], digests: UnsafeRawBufferPointer
    ) throws(IOError) -> [RegionDifference]

    /// Writes extents.
    ///
    /// - Parameters:
    ///   - extents: ascending; their data is at most `Limits.payload`, and they are at most
    ///     `Limits.extents`.
    ///   - parts: the data of the data extents, one after the other, in pieces of any size.
    /// - Throws: the device's error, or that of the connection.
    func write(
        _ extents: ArraySlice<Extent>, _ parts: [UnsafeRawBufferPointer]) throws(IOError)

    /// Reads ranges.
    ///
    /// - Parameter ranges: ascending; at most `Limits.payload` and `Limits.extents`.
    /// - Returns: exactly these bytes, with zeros told apart from data where that pays, its digest
    ///   checked; valid until the channel writes or reads again.
    /// - Throws: the device's error, or that of the connection.
    func read(_ ranges: [ByteRange]) throws(IOError) -> ExtentFrame.Payload
}

extension [Extent] {
    /// The same bytes in pieces that fit in one request each.
    ///
    /// - Parameter unit: what the pieces' lengths are multiples of, in bytes.
    /// - Returns: ascending; all extents are in one of them.
    package func inRequests(unit: Int) -> [ArraySlice<Extent>] {
        var pieces: [Extent] = []
        for extent in self {
            guard extent.kind == .data, extent.range.length > Limits.payload else {
                pieces.append(extent)
                continue
            }
            let step = Swift.max(1, Limits.payload / unit) * unit
            var offset = extent.range.offset
            while offset < extent.range.end {
                let end = Swift.min(offset + step, extent.range.end)
                pieces.append(Extent(ByteRange(offset, to: end), .data))
                offset = end
            }
        }
        var requests: [ArraySlice<Extent>] = []
        var (start, bytes) = (0, 0)
        for (index, piece) in pieces.enumerated() {
            let length = piece.kind == .data ? piece.range.length : 0
            if index > start
                && (bytes + length > Limits.payload || index - start == Limits.extents)
            {
                requests.append(pieces[start..<index])
                (start, bytes) = (index, 0)
            }
            bytes += length
        }
        if start < pieces.count { requests.append(pieces[start...]) }
        return requests
    }
}
