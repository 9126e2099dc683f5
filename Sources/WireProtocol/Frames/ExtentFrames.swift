// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// The data and the table of one read or write; data comes first, aligned for direct I/O.
///
///         the data of the data extents, without gaps
///         count times: u64 offset, bytes; u64 kind (0 data, 1 zero) << 56 | length, bytes
///         u32  count
///         u32  0; in a read request, the coding that the answer may have
///
/// A read request has no data, and all its extents are of kind data.
package enum ExtentFrame {
    package static let footerSize = 8
    package static let entrySize = 16
    private static let kindShift: UInt64 = 56

    private struct Table {
        let extents: [Extent]
        /// The bytes before the table, and how many there should be.
        let data: UnsafeRawBufferPointer
        let length: Int
        let coding: PackedFrame.Coding
    }

    package static func tableSize(count: Int) -> Int { footerSize + entrySize * count }

    /// - Parameters:
    ///   - extents: lengths under 2^56.
    ///   - coding: of a read request, that of the answer.
    ///   - memory: at least `tableSize` bytes.
    package static func writeTable(
        _ extents: some Collection<Extent>, coding: PackedFrame.Coding = .plain,
        to memory: UnsafeMutableRawBufferPointer
    ) {
        var writer = FrameWriter(memory)
        for extent in extents {
            writer.put(UInt64(extent.range.offset))
            let kind: UInt64 = extent.kind == .data ? 0 : 1
            writer.put(kind << kindShift | UInt64(extent.range.length))
        }
        writer.put(UInt32(extents.count))
        writer.put(coding.rawValue)
    }

    /// Parses the table at the end of `bytes`, and throws if it does not fit the device.
    ///
    /// - Parameters:
    ///   - size: bytes of the device.
    ///   - unit: the unit in bytes of offsets, and of all lengths but the last.
    ///   - codings: what the last field may be.
    /// - Returns: ascending extents without overlap.
    private static func readTable(
        _ bytes: UnsafeRawBufferPointer, size: Int, unit: Int,
        codings: Set<PackedFrame.Coding> = [.plain]
    ) throws(WireError) -> Table {
        guard bytes.count >= footerSize else { throw WireError("a frame of \(bytes.count) bytes") }
        var footer = FrameReader(
            UnsafeRawBufferPointer(rebasing: bytes[(bytes.count - footerSize)...]))
        let count = try footer.u32()
        let number = try footer.u32()
        guard let coding = codings.first(where: { $0.rawValue == number }) else {
            throw WireError("a reserved field is not 0")
        }
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
            // The last extent may end where the source does.
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
        return Table(
            extents: extents, data: UnsafeRawBufferPointer(rebasing: bytes[..<start]),
            length: data, coding: coding)
    }

    /// Parses a whole body into ascending ranges of at most `Limits.payload` bytes.
    ///
    /// - Parameters:
    ///   - size: bytes of the device.
    ///   - unit: the unit of offsets in bytes.
    package static func readRequest(
        _ bytes: UnsafeRawBufferPointer, size: Int, unit: Int
    ) throws(WireError) -> [ByteRange] {
        try readRequest(bytes, size: size, unit: unit, codings: [.plain]).ranges
    }

    /// Parses a whole body into ascending ranges of at most `Limits.payload` bytes, and the coding
    /// that the answer may have.
    ///
    /// - Parameters:
    ///   - size: bytes of the device.
    ///   - unit: the unit of offsets in bytes.
    ///   - codings: those of the session.
    package static func readRequest(
        _ bytes: UnsafeRawBufferPointer, size: Int, unit: Int, codings: Set<PackedFrame.Coding>
    ) throws(WireError) -> (ranges: [ByteRange], coding: PackedFrame.Coding) {
        let table = try readTable(bytes, size: size, unit: unit, codings: codings)
        guard table.data.isEmpty else {
            throw WireError("\(table.data.count) bytes precede the table")
        }
        guard table.extents.allSatisfy({ $0.kind == .data }) else {
            throw WireError("a read request has an extent of zeros")
        }
        return (table.extents.map(\.range), table.coding)
    }

    /// Parses a payload; the result points into `bytes`.
    ///
    /// - Parameters:
    ///   - size: bytes of the device.
    ///   - unit: the unit of offsets in bytes.
    package static func readPayload(
        _ bytes: UnsafeRawBufferPointer, size: Int, unit: Int
    ) throws(WireError) -> ExtentData {
        let table = try readTable(bytes, size: size, unit: unit)
        guard table.data.count == table.length else {
            throw WireError("\(table.data.count) bytes of data, and extents of \(table.length)")
        }
        return ExtentData(extents: table.extents, data: table.data)
    }
}
