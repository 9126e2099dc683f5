// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
internal import SystemPackage

/// A device as it would be after it was given another size, for a dry run to compare with.
///
/// What is added reads as zeros, nothing can be written.
package final class ZeroExtendedDevice: BlockDevice {
    package let name: String
    package let geometry: Geometry
    private let base: (any BlockDevice)?
    /// How many bytes of the base are still to be seen.
    private let kept: Int

    /// Looks at a device as if it had another size.
    ///
    /// - Parameters:
    ///   - base: the device; `nil` for one that is yet to be created.
    ///   - name: what the user calls it.
    ///   - size: the size it would get, in bytes.
    package init(_ base: (any BlockDevice)?, name: String, size: Int) {
        self.base = base
        self.name = name
        kept = min(base?.geometry.size ?? 0, size)
        geometry = Geometry(
            size: size, logicalSector: base?.geometry.logicalSector ?? 512,
            alignment: base?.geometry.alignment ?? 1)
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        let fromBase = max(0, min(buffer.count, kept - offset))
        if fromBase > 0, let base {
            try base.read(
                into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<fromBase]), at: offset)
        }
        UnsafeMutableRawBufferPointer(rebasing: buffer[fromBase...])
            .initializeMemory(as: UInt8.self, repeating: 0)
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        guard let base, offset < kept, let run = try base.nextData(from: offset) else { return nil }
        return run.intersection(ByteRange(0, to: kept))
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        throw IOError(name, "write", .readOnlyFileSystem)
    }

    package func zero(_ range: ByteRange) throws(IOError) {
        throw IOError(name, "zero", .readOnlyFileSystem)
    }

    package func flush() throws(IOError) {}

    package func contentStamp() -> ContentStamp? { base?.contentStamp() }

    package func lastingStamp() -> ContentStamp? { base?.lastingStamp() }
}
