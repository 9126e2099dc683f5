// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeltaFile
import Digests
import LinuxIO

/// A delta in memory.
private struct MemoryBytes: DeltaBytes {
    let bytes: [UInt8]

    var count: Int { bytes.count }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        require(offset >= 0 && buffer.count <= count - offset, "reads are within the delta")
        buffer.copyBytes(from: bytes[offset..<offset + buffer.count])
    }

    func checkUnchanged() {}
}

/// A device of zeros that checks what is written.
private final class Zeros: BlockDevice {
    let name = "zeros"
    let geometry: Geometry

    init(size: Int) { geometry = Geometry(size: size, logicalSector: 512, alignment: 1) }

    private func check(_ offset: Int, _ count: Int) {
        require(
            offset >= 0 && count <= geometry.size - offset, "transfers are within the device")
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) {
        check(offset, buffer.count)
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) { check(offset, buffer.count) }
    func zero(_ range: ByteRange) { check(range.offset, range.length) }
    func nextData(from offset: Int) -> ByteRange? { nil }
    func flush() {}
    func checkIdentity() {}
    func hasForeignWrites() -> Bool { false }
    func hadOtherWriters() -> Bool { false }
    func changeCounter() -> ChangeCounter? { nil }
    func persistentChangeCounter() -> ChangeCounter? { nil }
    var reasonForNoCounter: String? { nil }
}

/// Reads a delta, compares it with a device of zeros, and writes it there.
func fuzzDelta(_ bytes: UnsafeRawBufferPointer) {
    guard
        let reader = try? DeltaReader(
            MemoryBytes(bytes: sealed(Array(bytes))), name: "delta", unless: { false })
    else { return }
    // Larger ones only take longer.
    let largest = 16 << 20
    guard let size = reader.size, size <= largest else { return }
    if let statement = reader.statement {
        require(statement.result.size == size, "both sizes are the same")
        guard statement.base.size <= largest else { return }
        _ = try? DeltaCheck(
            reader, statement, target: Zeros(size: max(size, statement.base.size)),
            hasResultSize: true, unless: { false }
        ).run()
    }
    try? DeltaApplication(reader, target: Zeros(size: size), unless: { false }).run()
}

/// A delta with the right digest at its end, so that it is read further.
private func sealed(_ bytes: [UInt8]) -> [UInt8] {
    let content = bytes.dropLast(32)
    guard content.suffix(8).elementsEqual("BLKFDEND".utf8),
        let digest = try? sha256(of: Array(content))
    else { return bytes }
    return content + digest
}
