// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
internal import SystemPackage

/// A read-only view of a device with another size, for a dry run; added bytes read as zeros.
package final class ZeroExtendedDevice: BlockDevice {
    package let name: String
    package let geometry: Geometry
    private let base: (any BlockDevice)?
    /// Bytes of the base that are visible.
    private let kept: Int

    /// - Parameter base: `nil` for a device that does not exist yet.
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

    /// Checks nothing, because a dry run writes nothing.
    package func checkIdentity() throws(IOError) {}

    package func hasForeignWrites() -> Bool { base?.hasForeignWrites() ?? false }

    package func hadOtherWriters() -> Bool { base?.hadOtherWriters() ?? false }

    package func changeCounter() -> ChangeCounter? { base?.changeCounter() }

    package func persistentChangeCounter() -> ChangeCounter? { base?.persistentChangeCounter() }

    package var fileStatus: FileStatus? { base?.fileStatus }

    package var reasonForNoCounter: String? { base?.reasonForNoCounter }
}
