// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import NIOCore
internal import WireProtocol

/// Memory of a fixed size, freed with this object.
final class Scratch {
    let bytes: UnsafeMutableRawBufferPointer
    init(_ count: Int) { bytes = .allocate(byteCount: max(1, count), alignment: 8) }
    deinit { bytes.deallocate() }
}

extension Problem {
    /// A temporary shortage: other requests give memory back.
    static var noMemory: Problem {
        Problem(
            .busy, status: 503, "The server is out of memory",
            detail: "the server has not enough memory at the moment")
    }
}

/// The thread's memory, or an allocation of its own if a region of many MiB needs more.
struct RegionMemory: ~Copyable {
    private let own: AlignedBuffer?
    let bytes: UnsafeMutableRawBufferPointer

    init(_ memory: UnsafeMutableRawBufferPointer, atLeast count: Int) throws(Problem) {
        guard count > memory.count else {
            own = nil
            bytes = memory
            return
        }
        guard let buffer = AlignedBuffer(ifAvailable: count) else { throw .noMemory }
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

    /// - Parameter bytes: of the region; `nil` if all are zero.
    func hash(
        _ bytes: Slice<UnsafeRawBufferPointer>?, length: Int, _ hasher: inout BlockHasher
    ) throws(Problem) {
        guard let bytes else {
            zeroBlocks.update(repeating: true)
            digests.bytes.initializeMemory(as: UInt8.self, repeating: 0)
            return
        }
        do throws(IOError) {
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

/// Remembers the last run of data that the device reported.
struct DataRun {
    private var run: ByteRange?
    private var isKnown = false

    /// Whether a range may hold nonzero bytes.
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
