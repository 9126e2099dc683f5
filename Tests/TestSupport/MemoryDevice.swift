// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import Synchronization
internal import SystemPackage

package final class MemoryDevice: SteadyDevice {
    package let name: String
    private let content: Mutex<[UInt8]>
    private let alignment: Int
    private let knowsHoles: Bool

    /// Makes a device.
    ///
    /// - Parameters:
    ///   - content: what it holds.
    ///   - name: what messages call it.
    ///   - alignment: what offsets must be multiples of, in bytes; others trap.
    ///   - knowsHoles: whether `nextData` tells 4 KiB pages of zeros from data.
    package init(
        _ content: [UInt8], name: String = "memory", alignment: Int = 512, knowsHoles: Bool = false
    ) {
        self.content = Mutex(content)
        self.name = name
        self.alignment = alignment
        self.knowsHoles = knowsHoles
    }

    package var bytes: [UInt8] { content.withLock { $0 } }

    package var geometry: Geometry {
        Geometry(
            size: content.withLock { $0.count }, logicalSector: alignment, alignment: alignment)
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        check(offset, buffer.count)
        content.withLock { bytes in
            bytes.withUnsafeBytes {
                buffer.copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: $0[offset..<offset + buffer.count]))
            }
        }
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        check(offset, buffer.count)
        content.withLock { bytes in
            bytes.withUnsafeMutableBytes {
                UnsafeMutableRawBufferPointer(rebasing: $0[offset..<offset + buffer.count])
                    .copyMemory(from: buffer)
            }
        }
    }

    package func zero(_ range: ByteRange) throws(IOError) {
        check(range.offset, range.length)
        content.withLock { bytes in
            for index in range.offset..<range.end { bytes[index] = 0 }
        }
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        content.withLock { bytes in
            guard knowsHoles else {
                return offset < bytes.count ? ByteRange(offset, to: bytes.count) : nil
            }
            var start = offset
            while start < bytes.count, Self.isHole(bytes, page: start / 4096) {
                start = (start / 4096 + 1) * 4096
            }
            guard start < bytes.count else { return nil }
            var end = start
            while end < bytes.count, !Self.isHole(bytes, page: end / 4096) {
                end = (end / 4096 + 1) * 4096
            }
            return ByteRange(start, to: min(end, bytes.count))
        }
    }

    package func resize(to size: Int) throws(IOError) {
        content.withLock { bytes in
            bytes = Array(bytes.prefix(size))
            bytes += [UInt8](repeating: 0, count: size - bytes.count)
        }
    }

    package func flush() throws(IOError) {}

    private static func isHole(_ bytes: [UInt8], page: Int) -> Bool {
        bytes[(page * 4096)..<min(bytes.count, (page + 1) * 4096)].allSatisfy { $0 == 0 }
    }

    private func check(_ offset: Int, _ length: Int) {
        let size = content.withLock { $0.count }
        precondition(offset % alignment == 0, "\(name): offset \(offset)")
        precondition(offset + length <= size, "\(name): beyond the end")
    }
}
