// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import LinuxIO

/// A kind of device that passes the laws of `Conformance`.
package struct Implementation: Sendable, CustomStringConvertible {
    package let description: String
    package let needsRoot: Bool
    /// Makes an empty device, and an object that keeps its backing alive.
    package let make: @Sendable (_ size: Int) throws -> (any BlockDevice, Any?)

    package init(
        _ description: String, needsRoot: Bool = false,
        make: @escaping @Sendable (_ size: Int) throws -> (any BlockDevice, Any?)
    ) {
        self.description = description
        self.needsRoot = needsRoot
        self.make = make
    }

    /// Calls a function with an empty device, which is kept until the function returns.
    ///
    /// - Parameter size: in bytes.
    fileprivate func withDevice(
        size: Int, _ body: (any BlockDevice) throws -> [String]
    ) throws -> [String] {
        let (device, keeper) = try make(size)
        return try withExtendedLifetime(keeper) { try body(device) }
    }
}

/// What must hold for everything that can be copied.
///
/// Each law is a function that makes a device, and returns how that device breaks the law.
package enum Conformance {
    /// A block device keeps what is written, and nothing else.
    ///
    /// - Throws: what the device throws.
    package static func keepsWhatIsWritten(_ implementation: Implementation) throws -> [String] {
        try implementation.withDevice(size: 3 << 20) {
            try keepsWhatIsWritten($0, size: 3 << 20)
        }
    }

    private static func keepsWhatIsWritten(_ device: any BlockDevice, size: Int) throws -> [String]
    {
        var broken: [String] = []
        func expect(_ holds: Bool, _ law: String) { if !holds { broken.append(law) } }
        expect(device.geometry.size == size, "it has \(device.geometry.size) bytes, not \(size)")
        let alignment = device.geometry.alignment
        expect(alignment > 0 && 4096 % alignment == 0, "alignment \(alignment)")
        expect(try device.content().allSatisfy { $0 == 0 }, "it is not empty at first")

        var random = SeededGenerator(seed: 11)
        var expected = [UInt8](repeating: 0, count: size)
        for _ in 0..<40 {
            let start = Int.random(in: 0..<size / 4096, using: &random) * 4096
            let length = min(size - start, 4096 * Int.random(in: 1...64, using: &random))
            let range = ByteRange(offset: start, length: length)
            if Int.random(in: 0..<3, using: &random) == 0 {
                try device.zero(range)
                for index in start..<range.end { expected[index] = 0 }
            } else {
                let bytes = random.bytes(length)
                try device.write(bytes, at: start)
                expected.replaceSubrange(start..<range.end, with: bytes)
            }
            expect(try holesAreZero(device, expected), "a hole with data after a write")
        }
        expect(try device.content() == expected, "it holds something else")
        try device.flush()
        expect(try device.content() == expected, "it holds something else after the flush")
        expect(try holesAreZero(device, expected), "a hole with data after the flush")
        return broken
    }

    private static func holesAreZero(_ device: any BlockDevice, _ bytes: [UInt8]) throws -> Bool {
        var position = 0
        while let run = try device.nextData(from: position) {
            guard run.offset >= position, run.end <= bytes.count, !run.isEmpty,
                bytes[position..<run.offset].allSatisfy({ $0 == 0 })
            else { return false }
            position = run.end
        }
        return bytes[position...].allSatisfy { $0 == 0 }
    }

    /// A ragged end is read, written and zeroed like any other byte.
    ///
    /// - Throws: what the device throws.
    package static func hasRaggedEnds(_ implementation: Implementation) throws -> [String] {
        try implementation.withDevice(size: 1 << 20) { try hasRaggedEnds($0) }
    }

    private static func hasRaggedEnds(_ device: any BlockDevice) throws -> [String] {
        var broken: [String] = []
        var random = SeededGenerator(seed: 12)
        let bytes = random.bytes(8192 + 77)
        try device.write(bytes, at: 4096)
        var expected = [UInt8](repeating: 0, count: device.geometry.size)
        expected.replaceSubrange(4096..<4096 + bytes.count, with: bytes)
        if try device.content() != expected { broken.append("written") }
        try device.zero(ByteRange(offset: 8192, length: 4096 + 33))
        for index in 8192..<12288 + 33 { expected[index] = 0 }
        if try device.content() != expected { broken.append("zeroed") }
        try device.flush()
        if try device.content() != expected { broken.append("flushed") }
        return broken
    }

    /// Transfers that succeed together are complete, and the others can be done one by one.
    ///
    /// - Parameters:
    ///   - implementation: of the device.
    ///   - isTogether: whether it does small transfers together, as far as the kernel can.
    ///   - ragged: bytes of the device after its last whole block of 4096.
    /// - Throws: what the device throws.
    package static func transfersTogether(
        _ implementation: Implementation, isTogether: Bool = false, ragged: Int = 0
    ) throws -> [String] {
        try implementation.withDevice(size: (1 << 20) + 8192 + ragged) {
            try transfersTogether($0, isTogether: isTogether)
        }
    }

    private static func transfersTogether(
        _ device: any BlockDevice, isTogether: Bool
    ) throws -> [String] {
        var broken: [String] = []
        var count = 0
        var random = SeededGenerator(seed: 13)
        let size = device.geometry.size
        var expected = try device.content()
        let buffer = AlignedBuffer(count: size + 4096)
        for round in 0..<20 {
            // Small and long ones, far from each other or not.
            var transfers: [Transfer] = []
            var offset = 4096 * Int.random(in: 0..<8, using: &random)
            while offset < size {
                let length = 4096 * Int.random(in: 1...(round % 5 == 0 ? 80 : 4), using: &random)
                let end = min(size, offset + length)
                let memory = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[offset..<end])
                memory.copyBytes(from: random.bytes(memory.count))
                transfers.append(Transfer(into: memory, at: offset))
                offset = end + 4096 * Int.random(in: 0..<8, using: &random)
            }
            transfers.shuffle(using: &random)
            // One that must fail, in the middle of the others.
            let middle = transfers.count / 2
            let beyond = (size + 8191) / 4096 * 4096
            let spare = UnsafeMutableRawBufferPointer(
                rebasing: buffer.bytes[size / 4096 * 4096..<size / 4096 * 4096 + 4096])
            transfers.insert(Transfer(into: spare, at: beyond), at: middle)
            if device.attempt(transfers, .read)[middle] {
                broken.append("something was read beyond the end")
            }
            transfers.remove(at: middle)
            for transfer in transfers {
                transfer.memory.copyBytes(from: random.bytes(transfer.memory.count))
            }
            let done = device.attempt(transfers, .write)
            count += done.filter(\.self).count
            if done.count != transfers.count { broken.append("an answer for each write") }
            for (transfer, isDone) in zip(transfers, done) {
                let bytes = UnsafeRawBufferPointer(transfer.memory)
                if !isDone { try device.write(bytes, at: transfer.offset) }
                expected.replaceSubrange(
                    transfer.offset..<transfer.offset + bytes.count, with: bytes)
            }
            if try device.content() != expected { broken.append("written, round \(round)") }
            for transfer in transfers {
                transfer.memory.initializeMemory(as: UInt8.self, repeating: 0xA5)
            }
            try device.read(transfers)
            for transfer in transfers {
                let range = transfer.offset..<transfer.offset + transfer.memory.count
                if !transfer.memory.elementsEqual(expected[range]) {
                    broken.append("read, round \(round), at \(range)")
                }
            }
        }
        if isTogether && TransferRing.isAvailable && count < 100 {
            broken.append("\(count) transfers were done together")
        }
        return broken
    }

    /// Reading beyond the end is an error, not a short read.
    ///
    /// - Throws: what making the device throws.
    package static func failsBeyondTheEnd(_ implementation: Implementation) throws -> [String] {
        try implementation.withDevice(size: 1 << 20) { device in
            let buffer = AlignedBuffer(count: 8192)
            do throws(IOError) {
                try device.read(into: buffer.bytes, at: device.geometry.size - 4096)
            } catch {
                return []
            }
            return ["it was read beyond the end"]
        }
    }
}
