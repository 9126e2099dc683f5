// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import Digests
package import LinuxIO

/// A device on another machine, which is compared by digests.
///
/// Errors of the connection have `isNetwork` set. Errors of the device are the same as for a local
/// device.
package protocol RemoteDevice: BlockDevice {
    var digestMethod: DigestMethod { get }
    var digestKey: DigestKey? { get }
    /// Bytes of data in one request.
    var requestLimit: Int { get }
    /// Extents in one request.
    var extentLimit: Int { get }

    /// Seconds of a round trip if more requests at once may move more, as on a long line; `nil`
    /// otherwise.
    var longRoundTrip: Double? { get }

    /// A connection for one thread, with its own memory.
    func openChannel() -> any RemoteChannel

    /// Writes extents of a window that starts at `offset`.
    ///
    /// - Parameters:
    ///   - extents: ascending.
    ///   - bytes: `nil` if all extents are zeros.
    func write(
        _ extents: [Extent], of bytes: UnsafeRawBufferPointer?, at offset: Int) throws(IOError)
}

extension RemoteDevice {
    package var isRemote: Bool { true }

    package var longRoundTrip: Double? { nil }

    /// Splits ascending extents into requests.
    ///
    /// - Parameters:
    ///   - unit: the unit of the pieces' lengths in bytes; one that exceeds `requestLimit` is
    ///     split.
    ///   - alignments: of the devices in bytes; pieces of a split unit are multiples of them.
    package func requests(
        for extents: [Extent], unit: Int, alignments: [Int]
    ) -> [ArraySlice<Extent>] {
        let limit = requestLimit
        var pieces: [Extent] = []
        for extent in extents {
            guard extent.kind == .data, extent.range.length > limit else {
                pieces.append(extent)
                continue
            }
            pieces += extent.range.pieces(of: pieceLength(unit, limit, alignments))
                .map { Extent($0, .data) }
        }
        var requests: [ArraySlice<Extent>] = []
        var (start, bytes) = (0, 0)
        for (index, piece) in pieces.enumerated() {
            let length = piece.kind == .data ? piece.range.length : 0
            if index > start && (bytes + length > limit || index - start == extentLimit) {
                requests.append(pieces[start..<index])
                (start, bytes) = (index, 0)
            }
            bytes += length
        }
        if start < pieces.count { requests.append(pieces[start...]) }
        return requests
    }
}

extension BlockDevice {
    /// A remote device's digests and messages; their types are in layers above `BlockDevice`.
    var remote: (any RemoteDevice)? { self as? any RemoteDevice }
}

/// One thread's connection to a remote device.
package protocol RemoteChannel: AnyObject {
    /// Whether each comparison reads the device again, so that its digests apply to the next read.
    var comparesAgain: Bool { get }

    /// Asks for the regions of a window that differ, which are ascending and valid until the next
    /// call.
    ///
    /// - Parameters:
    ///   - window: ascending, whole regions except for the end; at most
    ///     `BlockLayout.longestWindow` bytes.
    ///   - digests: one for each region.
    func compare(
        _ window: [ByteRange], digests: UnsafeRawBufferPointer
    ) throws(IOError) -> [RegionDifference]

    /// Writes ascending extents, within the device's `extentLimit` and `requestLimit`.
    ///
    /// - Parameter parts: the bytes of the data extents, in pieces of any size without gaps.
    func write(
        _ extents: ArraySlice<Extent>, _ parts: [UnsafeRawBufferPointer]) throws(IOError)

    /// Reads ascending ranges within the same limits, and checks the digest.
    ///
    /// - Returns: these bytes, perhaps with extents of zeros; valid until the next read or write.
    func read(_ ranges: [ByteRange]) throws(IOError) -> ExtentData
}

extension RemoteChannel {
    package var comparesAgain: Bool { true }
}

private func pieceLength(_ unit: Int, _ limit: Int, _ alignments: [Int]) -> Int {
    // An alignment that is no power of two is a block that was raised, and counts with its factor
    // of two.
    let powers = alignments.map { unit in
        unit.nonzeroBitCount == 1 ? unit : min(unit & -unit, 64 << 10)
    }
    let alignment = powers.filter { (1...limit).contains($0) }.max() ?? 1
    var length = unit
    while length > limit, length % 2 == 0, length / 2 % alignment == 0 { length /= 2 }
    return length <= limit ? limit / length * length : limit / alignment * alignment
}
