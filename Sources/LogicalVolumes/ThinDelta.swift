// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// What thin_delta tells of two volumes of a thin pool: the data blocks that they do not share.
///
/// Source: thin_delta(8), and `base/thin/delta` of thin-provisioning-tools. It compares where
/// blocks are, not what they hold, so that rewritten blocks are different even with equal content.
package struct ThinDelta: Hashable, Sendable {
    /// Bytes of the pool's data blocks.
    package let blockSize: Int
    /// What differs, in bytes of the volumes, as it came but with adjacent ranges joined.
    package let changed: [ByteRange]
    /// What at least one of the two has, in bytes, as it came but with adjacent ranges joined.
    package let allocated: [ByteRange]

    /// Reads the XML that thin_delta writes.
    ///
    /// - Parameters:
    ///   - xml: all of it.
    ///   - old: the thin id of the volume on the left (`--thin1`).
    ///   - new: that of the one on the right (`--thin2`).
    /// - Throws: where not all of it is understood, or it is about other volumes.
    package init(xml: [UInt8], from old: Int, to new: Int) throws(ChangeMapError) {
        var reader = Reader(scanner: MarkupScanner(xml), left: old, right: new)
        (blockSize, changed, allocated) = try reader.read()
    }

    /// Makes the map of the volume on the right.
    ///
    /// - Parameters:
    ///   - size: its bytes.
    ///   - oldSize: bytes of the one on the left.
    ///   - isOldAsMade: whether nobody can have written to the one on the left since it was made. Else
    ///     what neither of the two has may have been discarded in both, and is in the map.
    /// - Returns: the map.
    package func map(size: Int, oldSize: Int, isOldAsMade: Bool) -> ChangeMap {
        var ranges = changed
        if !isOldAsMade {
            var end = 0
            for range in allocated.sorted(by: { $0.offset < $1.offset }) {
                if range.offset > end { ranges.append(ByteRange(end, to: range.offset)) }
                end = max(end, range.end)
            }
            if end < size { ranges.append(ByteRange(end, to: size)) }
        }
        return ChangeMap(ranges, chunk: blockSize, size: size, oldSize: oldSize)
    }
}

/// Goes through the XML from its start to its end.
private struct Reader {
    var scanner: MarkupScanner
    let left: Int
    let right: Int
    /// The elements that the scanner is within, the outermost first.
    private var open: [String] = []
    private var blockSize = 0
    private var hasDiff = false
    private var changed: [ByteRange] = []
    private var allocated: [ByteRange] = []

    init(scanner: MarkupScanner, left: Int, right: Int) {
        self.scanner = scanner
        self.left = left
        self.right = right
    }

    mutating func read() throws(ChangeMapError) -> (Int, [ByteRange], [ByteRange]) {
        while let tag = try scanner.next() {
            switch tag {
            case .start(let element):
                try start(element)
                if !element.isClosed { open.append(element.name) }
            case .end(let name):
                guard open.popLast() == name else {
                    throw scanner.fault("</\(name)> closes what is not open")
                }
            }
        }
        guard blockSize > 0 else { throw scanner.fault("there is no <superblock>") }
        guard open.isEmpty else { throw scanner.fault("it is cut off within <\(open[0])>") }
        guard hasDiff else { throw scanner.fault("there is no <diff>") }
        return (blockSize, changed, allocated)
    }

    private mutating func start(_ element: MarkupScanner.Element) throws(ChangeMapError) {
        switch (open.count, element.name) {
        case (0, "superblock") where blockSize == 0: blockSize = try dataBlockSize(of: element)
        case (0, _): throw scanner.fault("<\(element.name)> beside <superblock>")
        case (1, "diff"): try startDiff(element)
        case (2, _) where open[1] == "diff": try add(element)
        case (3..., _) where open[1] == "diff":
            throw scanner.fault("<\(element.name)> is not known within <\(open[2])>")
        // What a later version may tell besides.
        default: break
        }
    }

    private mutating func startDiff(
        _ element: MarkupScanner.Element
    ) throws(ChangeMapError) {
        guard !hasDiff else { throw scanner.fault("a second <diff>") }
        hasDiff = true
        for (name, id) in [("left", left), ("right", right)] {
            if let told = element[name], told != String(id) {
                throw scanner.fault("\(name) is volume \(told), not \(id)")
            }
        }
    }

    /// Bytes of a data block.
    ///
    /// The kernel takes multiples of 64 KiB (`DATA_DEV_BLOCK_SIZE_MIN_SECTORS`
    /// in drivers/md/dm-thin.c), told in sectors of 512 bytes.
    private func dataBlockSize(
        of element: MarkupScanner.Element
    ) throws(ChangeMapError) -> Int {
        let sectors = try number("data_block_size", of: element)
        let (bytes, isTooMuch) = sectors.multipliedReportingOverflow(by: 512)
        guard sectors > 0, sectors % 128 == 0, !isTooMuch else {
            throw scanner.fault("data blocks of \(sectors) sectors")
        }
        return bytes
    }

    private mutating func add(_ element: MarkupScanner.Element) throws(ChangeMapError) {
        let isChanged: Bool
        switch element.name {
        case "same": isChanged = false
        // What only the left one has reads as zeros on the right.
        case "different", "right_only", "left_only": isChanged = true
        default: throw scanner.fault("<\(element.name)> is not known within <diff>")
        }
        let begin = try number("begin", of: element)
        let length = try number("length", of: element)
        let (end, isTooMuch) = begin.addingReportingOverflow(length)
        guard !isTooMuch, end <= Int.max / blockSize else {
            throw scanner.fault("\(length) blocks from \(begin) on are beyond every device")
        }
        guard length > 0 else { return }
        let range = ByteRange(begin * blockSize, to: end * blockSize)
        Self.append(range, to: &allocated)
        if isChanged { Self.append(range, to: &changed) }
    }

    private static func append(_ range: ByteRange, to ranges: inout [ByteRange]) {
        if let last = ranges.last, last.end == range.offset {
            ranges[ranges.count - 1].length += range.length
        } else {
            ranges.append(range)
        }
    }

    private func number(
        _ name: String, of element: MarkupScanner.Element
    ) throws(ChangeMapError) -> Int {
        guard let text = element[name] else {
            throw scanner.fault("<\(element.name)> without \(name)")
        }
        guard let value = Int(text), text.allSatisfy(\.isASCII), text.first?.isNumber == true else {
            throw scanner.fault("\(name) is \(text.prefix(32)), which is no number here")
        }
        return value
    }
}
