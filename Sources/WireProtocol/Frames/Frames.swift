// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Writes little-endian numbers and bytes.
struct FrameWriter: ~Copyable {
    private let memory: UnsafeMutableRawBufferPointer
    private(set) var count = 0

    /// The memory must be large enough for everything.
    init(_ memory: UnsafeMutableRawBufferPointer) { self.memory = memory }

    mutating func put(_ value: UInt32) {
        memory.storeBytes(of: value.littleEndian, toByteOffset: count, as: UInt32.self)
        count += 4
    }

    mutating func put(_ value: UInt64) {
        memory.storeBytes(of: value.littleEndian, toByteOffset: count, as: UInt64.self)
        count += 8
    }

    mutating func put(_ byte: UInt8) {
        memory[count] = byte
        count += 1
    }

    mutating func put(_ bytes: UnsafeRawBufferPointer) {
        UnsafeMutableRawBufferPointer(rebasing: memory[count..<count + bytes.count])
            .copyMemory(from: bytes)
        count += bytes.count
    }
}

/// Reads the bytes of a peer, and never beyond their end.
struct FrameReader: ~Copyable {
    private let bytes: UnsafeRawBufferPointer
    private(set) var position = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var remaining: Int { bytes.count - position }

    mutating func u32() throws(WireError) -> Int {
        Int(UInt32(littleEndian: try take(4).loadUnaligned(as: UInt32.self)))
    }

    mutating func u64() throws(WireError) -> UInt64 {
        UInt64(littleEndian: try take(8).loadUnaligned(as: UInt64.self))
    }

    /// An offset or a length, which must fit in an `Int`.
    mutating func size() throws(WireError) -> Int {
        guard let value = Int(exactly: try u64()) else { throw WireError("a number is too large") }
        return value
    }

    mutating func take(_ count: Int) throws(WireError) -> UnsafeRawBufferPointer {
        guard count >= 0, count <= remaining else {
            throw WireError("it ends after \(bytes.count) bytes, in the middle of a frame")
        }
        defer { position += count }
        return UnsafeRawBufferPointer(rebasing: bytes[position..<position + count])
    }

    /// Throws if bytes follow.
    func end() throws(WireError) {
        guard remaining == 0 else {
            throw WireError("\(remaining) bytes follow the end of the frame")
        }
    }
}
