// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import TestSupport
import Testing

@Suite(.blocking, .enabled(if: isRoot, "loop devices need root")) struct DeviceHolesTests {
    @Test func `a block device is one run of data until its holes are known`() throws {
        let loop = try LoopDevice(size: 256 << 10)
        let device = try BlockSpecialFile(path: loop.path, name: loop.path, access: .read)
        #expect(try device.nextData(from: 4096) == ByteRange(4096, to: 256 << 10))
        #expect(try device.nextData(from: 256 << 10) == nil)

        let data = ByteRange(64 << 10, to: 128 << 10)
        device.reportHoles { offset in
            offset < data.end ? ByteRange(max(offset, data.offset), to: data.end) : nil
        }
        #expect(try device.nextData(from: 0) == data)
        #expect(try device.nextData(from: 65 << 10) == ByteRange(65 << 10, to: 128 << 10))
        #expect(try device.nextData(from: 128 << 10) == nil)
    }

    @Test func `what is read of a hole is zeros, wherever a read begins and ends`() throws {
        let loop = try LoopDevice(size: 256 << 10)
        let device = try BlockSpecialFile(path: loop.path, name: loop.path, access: .readWrite)
        let memory = AlignedBuffer(count: 256 << 10)
        memory.bytes.initializeMemory(as: UInt8.self, repeating: 7)
        try device.write(UnsafeRawBufferPointer(memory.bytes), at: 0)
        // Data from 64 to 128 KiB, and the last 4 KiB.
        let runs = [ByteRange(64 << 10, to: 128 << 10), ByteRange(252 << 10, to: 256 << 10)]
        device.reportHoles { offset in
            runs.first { $0.end > offset }.map { ByteRange(max($0.offset, offset), to: $0.end) }
        }
        let edges = [0, 4, 60, 64, 68, 124, 128, 132, 248, 252, 256].map { $0 << 10 }
        for start in edges {
            for end in edges where end > start {
                memory.bytes.initializeMemory(as: UInt8.self, repeating: 9)
                let part = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<(end - start)])
                try device.read(into: part, at: start)
                let isRight = part.indices.allSatisfy { index in
                    let offset = start + index
                    let isData = runs.contains { $0.offset <= offset && offset < $0.end }
                    return part[index] == (isData ? 7 : 0)
                }
                #expect(isRight, "\(start) to \(end)")
            }
        }
    }
}
