// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// Reads windows of a device and computes the digests of their regions and blocks, for one thread.
package struct WindowHasher: ~Copyable {
    /// One digest for each region, in the slots that `hashRegions` was given.
    package let regionDigests: UnsafeMutableRawBufferPointer
    /// One digest for each block that `hashBlocks` was given last; all zeros for a zero block.
    package let blockDigests: UnsafeMutableRawBufferPointer
    /// The same for the flags of zero blocks.
    package let zeroBlocks: UnsafeMutableBufferPointer<Bool>
    /// The digest of a whole region of zeros; empty until first use.
    package private(set) var zeroDigest: [UInt8]
    private let layout: BlockLayout
    private var hasher: BlockHasher

    /// - Parameters:
    ///   - window: bytes that `regionDigests` has slots for.
    ///   - zeroDigest: from an earlier hasher with the same layout, method and key.
    package init(
        _ layout: BlockLayout, window: Int, _ method: DigestMethod, key: DigestKey?,
        zeroDigest: [UInt8] = []
    ) throws(IOError) {
        hasher = try BlockHasher(method, key: key)
        self.layout = layout
        self.zeroDigest = zeroDigest
        let size = method.byteCount
        let blocks = layout.region / layout.block
        regionDigests = .allocate(byteCount: window / layout.region * size, alignment: 8)
        blockDigests = .allocate(byteCount: blocks * size, alignment: 8)
        zeroBlocks = .allocate(capacity: blocks)
        zeroBlocks.initialize(repeating: false)
    }

    deinit {
        regionDigests.deallocate()
        blockDigests.deallocate()
        zeroBlocks.deallocate()
    }

    /// Bytes of a digest.
    package var digestSize: Int { hasher.method.byteCount }

    /// Reads regions of a device, and computes one digest for each.
    ///
    /// - Parameters:
    ///   - range: starts with a region. It should be no longer than `BlockLayout.window`, so that
    ///     its bytes stay in the processor's cache between reading and hashing.
    ///   - isHole: whether the device has only zeros there; then nothing is read.
    ///   - memory: gets the bytes.
    ///   - slot: where the digest of the first region goes.
    package mutating func hashRegions(
        of range: ByteRange, on device: any BlockDevice, isHole: Bool,
        memory: UnsafeMutableRawBufferPointer, slot: Int = 0
    ) throws(IOError) {
        let digests = UnsafeMutableRawBufferPointer(
            rebasing: regionDigests[(slot * digestSize)...])
        guard isHole else {
            let bytes = slice(memory, 0, range.length)
            try device.read(into: bytes, at: range.offset)
            return try hasher.regionDigests(
                of: UnsafeRawBufferPointer(bytes), regionSize: layout.region, into: digests)
        }
        if zeroDigest.isEmpty { zeroDigest = try hasher.digest(ofZeros: layout.region) }
        try hasher.regionDigests(
            ofZeros: range.length, regionSize: layout.region, whole: zeroDigest, into: digests)
    }

    /// Computes one digest for each block of a region; `nil` for a region of zeros.
    package mutating func hashBlocks(of region: UnsafeRawBufferPointer?) throws(IOError) {
        guard let region else {
            zeroBlocks.update(repeating: true)
            blockDigests.initializeMemory(as: UInt8.self, repeating: 0)
            return
        }
        try hasher.blockDigests(
            of: region, blockSize: layout.block, into: blockDigests, zeroBlocks: zeroBlocks)
    }
}
