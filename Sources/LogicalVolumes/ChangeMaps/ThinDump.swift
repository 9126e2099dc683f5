// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// The mappings of one volume of a thin pool, as thin_dump reports them.
///
/// Source: thin_dump(8), and drivers/md/dm-thin-metadata.c (`__insert`, `__create_snap`). A pool's
/// time advances by one with each snapshot. A new snapshot has the time of its creation and its
/// origin's mappings, which are all older. Later mappings have that time or a later one.
package struct ThinDump: Hashable, Sendable {
    /// Bytes that the volume has mapped.
    package let mapped: Int
    /// The mapped ranges in bytes, ascending; adjacent ones are joined.
    package let ranges: [ByteRange]
    /// The pool's time at the volume's creation.
    package let made: Int
    /// The time of the newest mapping; `nil` if there is none.
    package let newest: Int?

    /// Returns whether a snapshot is unchanged since it was made.
    ///
    /// A write to a snapshot maps a chunk with a new time, because shared chunks are copied first.
    /// A discard removes a mapping.
    ///
    /// - Parameter mapped: bytes that the snapshot had mapped when it was made.
    func isUnchanged(since mapped: Int) -> Bool {
        self.mapped == mapped && newest.map { $0 < made } ?? true
    }

    /// Parses the complete XML that thin_dump writes.
    ///
    /// - Throws: if any part of it is unknown, or it describes other volumes.
    package init(xml: [UInt8], of volume: Int) throws(IOError) {
        var scanner = ThinDeltaXML(xml, of: "thin_dump")
        var open: [String] = []
        var (blockSize, declared, counted, made): (Int?, Int?, Int, Int?) = (nil, nil, 0, nil)
        var newest: Int?
        var blocks: [Range<Int>] = []
        func number(
            _ name: String, of element: ThinDeltaXML.Element
        ) throws(IOError) -> Int {
            guard let value = element[name].flatMap({ Int($0) }), (0..<1 << 48).contains(value)
            else { throw scanner.fault("<\(element.name)> without \(name)") }
            return value
        }
        while let tag = try scanner.next() {
            guard case .start(let element) = tag else {
                _ = open.popLast()
                continue
            }
            switch (open.count, element.name) {
            case (0, "superblock") where blockSize == nil:
                blockSize = try number("data_block_size", of: element) * 512
            case (1, "device") where declared == nil:
                guard try number("dev_id", of: element) == volume else {
                    throw scanner.fault("it is about another volume")
                }
                declared = try number("mapped_blocks", of: element)
                made = try number("creation_time", of: element)
            case (2, "single_mapping"), (2, "range_mapping"):
                let isSingle = element.name == "single_mapping"
                let begin = try number(isSingle ? "origin_block" : "origin_begin", of: element)
                let length = isSingle ? 1 : try number("length", of: element)
                let (sum, isTooMany) = counted.addingReportingOverflow(length)
                guard !isTooMany else { throw scanner.fault("more blocks than a device has") }
                counted = sum
                let end = blocks.last?.upperBound ?? 0
                guard begin >= end, length > 0 else {
                    throw scanner.fault("its mappings do not ascend")
                }
                if let last = blocks.last, begin == end {
                    blocks[blocks.count - 1] = last.lowerBound..<begin + length
                } else {
                    blocks.append(begin..<begin + length)
                }
                newest = max(try number("time", of: element), newest ?? 0)
            default: throw scanner.fault("<\(element.name)> is not known here")
            }
            if !element.isClosed { open.append(element.name) }
        }
        guard open.isEmpty, let blockSize, let made, declared == counted else {
            throw scanner.fault("it is not all of a volume")
        }
        // The kernel accepts multiples of 64 KiB. Blocks of no bytes would map nothing.
        guard blockSize > 0, blockSize % (64 << 10) == 0 else {
            throw scanner.fault("data blocks of \(blockSize) bytes")
        }
        let end = blocks.last?.upperBound ?? 0
        guard !end.multipliedReportingOverflow(by: blockSize).overflow else {
            throw scanner.fault("\(end) blocks of \(blockSize) bytes are beyond every device")
        }
        mapped = counted * blockSize
        ranges = blocks.map {
            ByteRange($0.lowerBound * blockSize, to: $0.upperBound * blockSize)
        }
        self.made = made
        self.newest = newest
    }
}
