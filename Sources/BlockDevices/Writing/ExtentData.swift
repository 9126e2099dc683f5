// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

/// Extents with their bytes.
package struct ExtentData {
    /// Ascending, without overlap.
    package var extents: [Extent]
    /// The bytes of the data extents, without gaps.
    package var data: UnsafeRawBufferPointer

    package init(extents: [Extent], data: UnsafeRawBufferPointer) {
        self.extents = extents
        self.data = data
    }

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

    /// Copies the bytes of all extents, without gaps, and zeros for the extents of zeros.
    package func copy(to memory: UnsafeMutableRawBufferPointer) {
        var (place, position) = (0, 0)
        for extent in extents {
            let part = slice(memory, place, place + extent.range.length)
            if extent.kind == .zero {
                part.initializeMemory(as: UInt8.self, repeating: 0)
            } else {
                part.copyMemory(from: slice(data, position, position + part.count))
                position += part.count
            }
            place += part.count
        }
    }
}
