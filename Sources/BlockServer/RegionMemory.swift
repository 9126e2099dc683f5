// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import NIOCore
internal import WireProtocol

/// Memory of a fixed size.
final class Scratch {
    let bytes: UnsafeMutableRawBufferPointer
    init(_ count: Int) { bytes = .allocate(byteCount: max(1, count), alignment: 8) }
    deinit { bytes.deallocate() }
}

/// The thread's memory where it is large enough, else memory of its own: for regions of many MiB.
struct RegionMemory: ~Copyable {
    private let own: AlignedBuffer?
    let bytes: UnsafeMutableRawBufferPointer

    init(_ memory: UnsafeMutableRawBufferPointer, atLeast count: Int) {
        guard count > memory.count else {
            own = nil
            bytes = memory
            return
        }
        let buffer = AlignedBuffer(count: count)
        bytes = buffer.bytes
        own = consume buffer
    }
}

/// The digests of a region's blocks.
final class RegionScratch {
    private let layout: WireLayout
    private let digests: Scratch
    private let zeroBlocks: UnsafeMutableBufferPointer<Bool>

    init(_ layout: WireLayout) {
        self.layout = layout
        let count = layout.region / layout.block
        digests = Scratch(count * layout.digestSize)
        zeroBlocks = .allocate(capacity: count)
        zeroBlocks.initialize(repeating: false)
    }

    deinit { zeroBlocks.deallocate() }

    /// - Parameters:
    ///   - bytes: the region's; `nil` where it has only zeros.
    ///   - length: of the region.
    ///   - hasher: of the request.
    /// - Throws: when libcrypto fails.
    func hash(
        _ bytes: Slice<UnsafeRawBufferPointer>?, length: Int, _ hasher: inout BlockHasher
    ) throws(Problem) {
        guard let bytes else {
            zeroBlocks.update(repeating: true)
            digests.bytes.initializeMemory(as: UInt8.self, repeating: 0)
            return
        }
        do throws(DigestError) {
            try hasher.blockDigests(
                of: UnsafeRawBufferPointer(rebasing: bytes), blockSize: layout.block,
                into: digests.bytes, zeroBlocks: zeroBlocks)
        } catch {
            throw Problem(error)
        }
    }

    func append(index: Int, _ region: ByteRange, to answer: inout ByteBuffer) {
        let count = layout.blocks(in: region)
        let size = CompareAnswer.entrySize(region, layout)
        answer.writeWithUnsafeMutableBytes(minimumWritableBytes: size) { memory in
            CompareAnswer.writeEntry(
                index: index,
                zeroBlocks: UnsafeBufferPointer(
                    rebasing: UnsafeBufferPointer(zeroBlocks)[..<count]),
                digests: UnsafeRawBufferPointer(
                    rebasing: digests.bytes[..<(count * layout.digestSize)]),
                to: memory)
            return size
        }
    }
}

/// The run of data that was asked for last.
struct DataRun {
    private var run: ByteRange?
    private var isKnown = false

    /// Whether a range may hold anything but zeros.
    mutating func overlaps(
        _ range: ByteRange, of device: any BlockDevice
    ) throws(Problem) -> Bool {
        if !isKnown || (run.map { $0.end <= range.offset } ?? false) {
            do throws(IOError) { run = try device.nextData(from: range.offset) } catch {
                throw Problem(error)
            }
            isKnown = true
        }
        return run?.overlaps(range) ?? false
    }
}
