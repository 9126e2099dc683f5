// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// The data and the table of one read or write.
///
/// The data comes first, so that it lies in memory as direct I/O needs it.
///
///         the data of the data extents, one after the other
///         count times: u64 offset, bytes; u64 kind (0 data, 1 zero) << 56 | length, bytes
///         u32  count
///         u32  0
///
/// A read request is the same without data, and all of its extents are of kind data.
package enum ExtentFrame {
    package static let footerSize = 8
    package static let entrySize = 16
    private static let kindShift: UInt64 = 56

    /// Bytes of a table with its footer.
    package static func tableSize(count: Int) -> Int { footerSize + entrySize * count }

    /// Writes a table and its footer.
    ///
    /// - Parameters:
    ///   - extents: lengths under 2^56.
    ///   - memory: at least `tableSize` bytes.
    package static func writeTable(
        _ extents: some Collection<Extent>, to memory: UnsafeMutableRawBufferPointer
    ) {
        var writer = FrameWriter(memory)
        for extent in extents {
            writer.put(UInt64(extent.range.offset))
            let kind: UInt64 = extent.kind == .data ? 0 : 1
            writer.put(kind << kindShift | UInt64(extent.range.length))
        }
        writer.put(UInt32(extents.count))
        writer.put(UInt32(0))
    }

    /// Reads the table that ends with the bytes and checks it against the device.
    ///
    /// - Parameters:
    ///   - bytes: all up to the table's end.
    ///   - size: of the device, in bytes.
    ///   - unit: what offsets, and lengths but the last, are multiples of, in bytes.
    /// - Returns: the extents, ascending, without overlap; what is before the table; how much data
    ///   there should be.
    /// - Throws: when it is no table, or one of another device.
    private static func readTable(
        _ bytes: UnsafeRawBufferPointer, size: Int, unit: Int
    ) throws(WireError) -> (extents: [Extent], data: UnsafeRawBufferPointer, length: Int) {
        guard bytes.count >= footerSize else { throw WireError("a frame of \(bytes.count) bytes") }
        var footer = FrameReader(
            UnsafeRawBufferPointer(rebasing: bytes[(bytes.count - footerSize)...]))
        let count = try footer.u32()
        guard try footer.u32() == 0 else { throw WireError("a reserved field is not 0") }
        guard (1...Limits.extents).contains(count) else {
            throw WireError("\(count) extents in one request")
        }
        let start = bytes.count - tableSize(count: count)
        guard start >= 0 else { throw WireError("the table of \(count) extents is cut off") }
        var reader = FrameReader(UnsafeRawBufferPointer(rebasing: bytes[start...]))
        var extents: [Extent] = []
        extents.reserveCapacity(count)
        var position = 0
        var data = 0
        for _ in 0..<count {
            let offset = try reader.size()
            let word = try reader.u64()
            let length = Int(word & (1 << kindShift - 1))
            let kind: Extent.Kind
            switch word >> kindShift {
            case 0: kind = .data
            case 1: kind = .zero
            case let other: throw WireError("an extent's kind is \(other)")
            }
            let (end, isTooFar) = offset.addingReportingOverflow(length)
            guard !isTooFar, end <= size, length > 0 else {
                throw WireError(
                    "an extent at offset \(offset), length \(length): not within \(size) bytes")
            }
            guard offset >= position else {
                throw WireError("an extent at offset \(offset): overlaps the one before it")
            }
            guard offset % unit == 0 else {
                throw WireError("an extent at offset \(offset): not a multiple of \(unit)")
            }
            // The last one may end where the source does.
            guard length % unit == 0 || extents.count == count - 1 else {
                throw WireError(
                    "an extent at offset \(offset), length \(length): not a multiple of \(unit)")
            }
            position = end
            if kind == .data {
                data += length
                guard data <= Limits.payload else {
                    throw WireError("more than \(Limits.payload) bytes of data in one request")
                }
            }
            extents.append(Extent(ByteRange(offset: offset, length: length), kind))
        }
        return (extents, UnsafeRawBufferPointer(rebasing: bytes[..<start]), data)
    }

    /// Reads a read request.
    ///
    /// - Parameters:
    ///   - bytes: the whole body.
    ///   - size: of the device, in bytes.
    ///   - unit: what offsets are multiples of, in bytes.
    /// - Returns: what is to be read, ascending; at most `Limits.payload` bytes.
    /// - Throws: when it is no such request, or one of another device.
    package static func readRequest(
        _ bytes: UnsafeRawBufferPointer, size: Int, unit: Int
    ) throws(WireError) -> [ByteRange] {
        let (extents, data, _) = try readTable(bytes, size: size, unit: unit)
        guard data.isEmpty else { throw WireError("\(data.count) bytes precede the table") }
        guard extents.allSatisfy({ $0.kind == .data }) else {
            throw WireError("a read request has an extent of zeros")
        }
        return extents.map(\.range)
    }

    /// A write request, or the answer to a read request, that was taken apart.
    package struct Payload {
        /// Ascending, without overlap.
        package var extents: [Extent]
        /// The data of the data extents, one after the other.
        package var data: UnsafeRawBufferPointer

        package init(extents: [Extent], data: UnsafeRawBufferPointer) {
            self.extents = extents
            self.data = data
        }

        /// Where the data of each data extent goes.
        package var transfers: [Transfer] {
            var position = 0
            return extents.filter { $0.kind == .data }.map { extent in
                let end = position + extent.range.length
                defer { position = end }
                return Transfer(
                    of: UnsafeRawBufferPointer(rebasing: data[position..<end]),
                    at: extent.range.offset)
            }
        }
    }

    /// Takes a payload apart.
    ///
    /// - Parameters:
    ///   - bytes: the content of the frame; what is returned points into it.
    ///   - size: of the device, in bytes.
    ///   - unit: what offsets are multiples of, in bytes.
    /// - Returns: the extents and their data.
    /// - Throws: when it is no payload, or one of another device.
    package static func readPayload(
        _ bytes: UnsafeRawBufferPointer, size: Int, unit: Int
    ) throws(WireError) -> Payload {
        let (extents, data, length) = try readTable(bytes, size: size, unit: unit)
        guard data.count == length else {
            throw WireError("\(data.count) bytes of data, and extents of \(length)")
        }
        return Payload(extents: extents, data: data)
    }
}
