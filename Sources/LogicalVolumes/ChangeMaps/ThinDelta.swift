// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// The data blocks that two volumes of a thin pool do not share, as thin_delta reports them.
///
/// Source: thin_delta(8), and `base/thin/delta` of thin-provisioning-tools. It compares the
/// location of blocks, not their content. A rewritten block counts as different even if its content
/// is equal.
package struct ThinDelta: Hashable, Sendable {
    /// Bytes of one data block of the pool.
    package let blockSize: Int
    /// The ranges that differ, in bytes of the volumes and in the order of the XML; adjacent ranges
    /// are joined.
    package let changed: [ByteRange]
    /// The ranges that at least one of the volumes maps, in the same form.
    package let allocated: [ByteRange]

    /// Parses the complete output of `thin_delta -m --thin1 OLD --thin2 NEW`.
    ///
    /// - Throws: if any part of it is unknown, or it describes other volumes.
    package init(xml: [UInt8], from old: Int, to new: Int) throws(IOError) {
        var reader = Reader(scanner: ThinDeltaXML(xml, of: "thin_delta"), left: old, right: new)
        (blockSize, changed, allocated) = try reader.read()
    }

    /// Makes the map of the volume on the right.
    ///
    /// - Parameter isOldAsMade: whether the volume on the left is certainly unchanged since it was
    ///   made. If not, the map includes the ranges that neither volume maps, since they may have
    ///   been discarded in both.
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

private struct Reader {
    var scanner: ThinDeltaXML
    let left: Int
    let right: Int
    /// The open elements, the outermost first.
    private var open: [String] = []
    private var blockSize = 0
    private var hasDiff = false
    private var changed: [ByteRange] = []
    private var allocated: [ByteRange] = []

    init(scanner: ThinDeltaXML, left: Int, right: Int) {
        self.scanner = scanner
        self.left = left
        self.right = right
    }

    mutating func read() throws(IOError) -> (Int, [ByteRange], [ByteRange]) {
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

    private mutating func start(_ element: ThinDeltaXML.Element) throws(IOError) {
        switch (open.count, element.name) {
        case (0, "superblock") where blockSize == 0: blockSize = try dataBlockSize(of: element)
        case (0, _): throw scanner.fault("<\(element.name)> beside <superblock>")
        case (1, "diff"): try startDiff(element)
        case (2, _) where open[1] == "diff": try add(element)
        case (3..., _) where open[1] == "diff":
            throw scanner.fault("<\(element.name)> is not known within <\(open[2])>")
        // A later version may add elements.
        default: break
        }
    }

    private mutating func startDiff(
        _ element: ThinDeltaXML.Element
    ) throws(IOError) {
        guard !hasDiff else { throw scanner.fault("a second <diff>") }
        hasDiff = true
        for (name, id) in [("left", left), ("right", right)] {
            if let found = element[name], found != String(id) {
                throw scanner.fault("\(name) is volume \(found), not \(id)")
            }
        }
    }

    /// Reads the bytes of a data block.
    ///
    /// The attribute counts sectors of 512 bytes. The kernel accepts multiples of 64 KiB
    /// (`DATA_DEV_BLOCK_SIZE_MIN_SECTORS` in drivers/md/dm-thin.c).
    private func dataBlockSize(
        of element: ThinDeltaXML.Element
    ) throws(IOError) -> Int {
        let sectors = try number("data_block_size", of: element)
        let (bytes, isTooMuch) = sectors.multipliedReportingOverflow(by: 512)
        guard sectors > 0, sectors % 128 == 0, !isTooMuch else {
            throw scanner.fault("data blocks of \(sectors) sectors")
        }
        return bytes
    }

    private mutating func add(_ element: ThinDeltaXML.Element) throws(IOError) {
        let isChanged: Bool
        switch element.name {
        case "same": isChanged = false
        // A block that only the left volume maps reads as zeros on the right.
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
        _ name: String, of element: ThinDeltaXML.Element
    ) throws(IOError) -> Int {
        guard let text = element[name] else {
            throw scanner.fault("<\(element.name)> without \(name)")
        }
        guard let value = Int(text), text.allSatisfy(\.isASCII), text.first?.isNumber == true else {
            throw scanner.fault("\(name) is \(text.prefix(32)), which is no number here")
        }
        return value
    }
}
