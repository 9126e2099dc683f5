// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import LinuxIO
import NIOCore
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// The memory of payloads that are read, and what is in it.
@Suite(.blocking, .timeLimit(.minutes(60))) struct PayloadMemoryTests {
    private func address(_ buffer: ByteBuffer) -> UInt {
        buffer.withUnsafeReadableBytes { UInt(bitPattern: $0.baseAddress) }
    }

    @Test func `a payload's memory is used again once the payload has been sent`() {
        let memory = PayloadMemory()
        var sent: ByteBuffer? = memory.take()
        sent?.writeInteger(UInt8(1))
        let first = sent.map(address)
        if let sent { memory.keep(sent) }

        // The answer still has the payload.
        var other = memory.take()
        other.writeInteger(UInt8(2))
        #expect(address(other) != first)
        #expect(sent?.readInteger() == UInt8(1))
        memory.keep(other)
        let second = address(other)
        other = ByteBuffer()

        sent = nil
        var again = memory.take()
        again.writeInteger(UInt8(3))
        #expect(address(again) == second && again.readableBytes == 1)
    }

    @Test func `payloads begin where direct input and output may, and have room for a body`() {
        for _ in 0..<3 {
            var buffer = PayloadMemory().take()
            #expect(buffer.writableBytes >= Limits.body && buffer.readableBytes == 0)
            buffer.writeInteger(UInt8(1))
            #expect(address(buffer) % UInt(AlignedBuffer.alignment) == 0)
        }
    }

    @Test(.enabled(if: isRoot), arguments: [512, 4096])
    func `ranges with and without zeros are read, the last of them up to within a sector`(
        sector: Int
    ) throws {
        // Of each four blocks the first three are read: data, zeros, data; each fourth time zeros.
        let (block, count) = (4096, 150)
        let content = (0..<4 * block * count).map { index in
            index / block % 4 == 1 || index / block % 16 < 4 ? 0 : UInt8(index / 7 % 255) + 1
        }
        let scratch = try ScratchDirectory()
        let file = scratch.file("disk")
        try Data(content).write(to: URL(filePath: file))
        let loop = try LoopDevice(backingFile: file, sectorSize: sector)
        let server = try TestServer(loop.path)
        let session = try server.session(loop.path, .read).session
        var ranges = (0..<count).map { ByteRange(offset: $0 * 4 * block, length: 3 * block) }
        ranges[count - 1] = ByteRange(offset: ranges[count - 1].offset, length: 2 * block + 100)
        // The second answer is made in the memory of the first.
        for ranges in [ranges, Array(ranges.dropFirst(count / 2))] {
            let answer = try server.ask(
                "POST", Route.session(session).path + "/read", [Wire.frames],
                body: try Wire.extents(ranges.map { Extent($0, .data) }))
            #expect(answer.status == 200)
            var found = [UInt8](repeating: 0xEE, count: ranges.reduce(0) { $0 + $1.length })
            try answer.body.withUnsafeBytes { bytes in
                let sealed = UnsafeRawBufferPointer(rebasing: bytes.dropLast(32))
                let payload = try ExtentFrame.readPayload(sealed, size: content.count, unit: 1)
                #expect(payload.extents.contains { $0.kind == .zero })
                found.withUnsafeMutableBytes { payload.copy(to: $0) }
            }
            #expect(found == ranges.flatMap { content[$0.offset..<$0.end] })
        }
    }
}
