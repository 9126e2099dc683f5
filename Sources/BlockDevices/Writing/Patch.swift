// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

/// Bytes and their place on a device, which need not be aligned.
package struct Patch: Hashable, Sendable {
    package var offset: Int
    package var bytes: [UInt8]

    package init(_ bytes: [UInt8], at offset: Int) {
        self.bytes = bytes
        self.offset = offset
    }

    package var range: ByteRange { ByteRange(offset: offset, length: bytes.count) }

    /// The part at and behind a place in bytes.
    package func dropping(before place: Int) -> Patch {
        let count = min(max(0, place - offset), bytes.count)
        return Patch(Array(bytes.dropFirst(count)), at: offset + count)
    }
}

extension BlockDevice {
    package func bytes(of range: ByteRange) throws(IOError) -> [UInt8] {
        try withUnits(around: range) { (memory, inner, _) throws(IOError) in Array(memory[inner]) }
    }

    /// Writes bytes by rewriting the units around them, unless the device already has them.
    package func apply(_ patch: Patch) throws(IOError) {
        guard !patch.bytes.isEmpty else { return }
        try withUnits(around: patch.range) { (memory, inner, start) throws(IOError) in
            if memory[inner].elementsEqual(patch.bytes) { return }
            UnsafeMutableRawBufferPointer(rebasing: memory[inner]).copyBytes(from: patch.bytes)
            try write(UnsafeRawBufferPointer(memory), at: start)
        }
    }

    /// Reads the whole units around a range; `body` gets them, the range's place in them, and their
    /// offset.
    private func withUnits<Result>(
        around range: ByteRange,
        _ body: (UnsafeMutableRawBufferPointer, Swift.Range<Int>, Int) throws(IOError) -> Result
    ) throws(IOError) -> Result {
        let unit = max(geometry.alignment, 512)
        let start = range.offset / unit * unit
        let end = min(range.end.roundedUp(to: unit), geometry.size)
        let buffer = AlignedBuffer(count: max(end - start, 1))
        let memory = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<(end - start)])
        try read(into: memory, at: start)
        let inner = range.offset - start
        return try body(memory, inner..<inner + range.length, start)
    }
}
