// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@Suite struct TransferRingTests {
    private let scratch: ScratchDirectory
    private let path: String
    private let size = 400 * 4096

    init() throws {
        scratch = try ScratchDirectory()
        path = try scratch.sparseFile("file", size: size)
    }

    /// Where the kernel lets us all must be done, else nothing.
    private func expectAll(_ done: [Bool], _ count: Int) {
        #expect(done.count == count)
        #expect(done.allSatisfy { $0 == TransferRing.isAvailable })
    }

    @Test func `a kernel that has io_uring and permits it gives a transfer ring`() throws {
        let release = try [UInt8](contentsOf: "/proc/sys/kernel/osrelease")
        let numbers = String(decoding: release, as: UTF8.self).split(separator: ".").prefix(2)
            .compactMap { Int($0) }
        let disabled = try? [UInt8](contentsOf: "/proc/sys/kernel/io_uring_disabled")
        guard numbers.count == 2, numbers[0] * 100 + numbers[1] >= 512, isRoot,
            disabled == nil || disabled?.first == UInt8(ascii: "0"),
            // A container may forbid it in a way that cannot be seen.
            (try? [UInt8](contentsOf: "/proc/self/status")).map({
                String(decoding: $0, as: UTF8.self).contains("Seccomp:\t0")
            }) == true
        else { return }
        #expect(TransferRing.isAvailable)
    }

    @Test func `more transfers than go at once are written and read in any order`() throws {
        let file = try OwnedDescriptor.open(path, flags: O_RDWR)
        let content = AlignedBuffer(count: size)
        let back = AlignedBuffer(count: size)
        var random = SeededGenerator(seed: 5)
        content.bytes.copyBytes(from: random.bytes(size))
        let order = (0..<400).shuffled(using: &random)
        let writes = order.map { Transfer(into: piece($0, content), at: $0 * 4096) }
        guard let written = TransferRing.perform(writes, .write, on: file) else { return }
        expectAll(written, 400)
        guard written.first == true else { return }
        #expect(try [UInt8](contentsOf: path) == Array(content.bytes))
        let reads = order.reversed().map { Transfer(into: piece($0, back), at: $0 * 4096) }
        let read = TransferRing.perform(reads, .read, on: file)
        expectAll(read ?? [], 400)
        #expect(back.bytes.elementsEqual(content.bytes))
    }

    @Test func `a short or failed transfer is not called done, and the others are`() throws {
        let file = try OwnedDescriptor.open(path, flags: O_RDWR)
        let buffer = AlignedBuffer(count: 8 * 4096)
        // The second ends behind the file's end, the third begins there, the fourth is nowhere.
        let offsets = [0, size - 100, size, -4096, size - 4096]
        let reads = offsets.enumerated().map { Transfer(into: piece($0, buffer), at: $1) }
        let done = TransferRing.perform(reads, .read, on: file)
        #expect(
            done
                == (TransferRing.isAvailable ? [true, false, false, false, true] : nil))

        let reader = try OwnedDescriptor.open(path, flags: O_RDONLY)
        let writes = [0, 4096].map { Transfer(into: piece(0, buffer), at: $0) }
        let refused = TransferRing.perform(writes, .write, on: reader)
        #expect(refused == (TransferRing.isAvailable ? [false, false] : nil))
    }

    @Test func `threads with transfers at once do not disturb each other`() throws {
        let path = path
        let size = size
        let file = try OwnedDescriptor.open(path, flags: O_RDWR)
        let number = file.rawValue
        Threads.start(count: 8) { index in
            // The number is open until all threads have ended.
            let own = OwnedDescriptor(owning: dup(number))
            let buffer = AlignedBuffer(count: 50 * 4096)
            buffer.bytes.initializeMemory(as: UInt8.self, repeating: UInt8(index + 1))
            for _ in 0..<20 {
                let writes = (0..<50).map {
                    Transfer(
                        into: UnsafeMutableRawBufferPointer(
                            rebasing: buffer.bytes[$0 * 4096..<($0 + 1) * 4096]),
                        at: (index * 50 + $0) * 4096)
                }
                _ = TransferRing.perform(writes, .write, on: own)
            }
        }.wait()
        guard TransferRing.isAvailable else { return }
        let expected = (0..<size).map { UInt8($0 / (50 * 4096) + 1) }
        #expect(try [UInt8](contentsOf: path) == expected)
    }

    private func piece(_ index: Int, _ buffer: borrowing AlignedBuffer)
        -> UnsafeMutableRawBufferPointer
    {
        UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[index * 4096..<(index + 1) * 4096])
    }
}
