// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import LinuxIO
import TestSupport

@testable import DeltaFile

/// A delta in memory.
struct MemoryDelta: DeltaBytes {
    var bytes: [UInt8]

    var count: Int { bytes.count }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        guard offset >= 0, offset + buffer.count <= bytes.count else {
            throw IOError("memory", "read at \(offset)", reason: "behind the end")
        }
        buffer.copyBytes(from: bytes[offset..<offset + buffer.count])
    }

    func checkUnchanged() {}

    func reader() throws(IOError) -> DeltaReader {
        try DeltaReader(self, name: "delta") { false }
    }
}

/// A result and its base, and the delta between them.
struct DeltaCase {
    var base: [UInt8]
    var result: [UInt8]
    var block = 4096

    /// Random blocks, some of which are zeros in one or both, and some of which are equal.
    static func random(
        seed: UInt64, base: Int, result: Int, block: Int = 4096
    ) -> DeltaCase {
        var generator = SeededGenerator(seed: seed)
        var old = generator.bytes(base)
        var new = Array(old.prefix(result))
        new += [UInt8](repeating: 0, count: result - new.count)
        for start in stride(from: 0, to: max(base, result), by: block) {
            let kind = generator.next() % 8
            if kind < 2, start < base {
                for index in start..<min(start + block, base) { old[index] = 0 }
            }
            guard start < result, kind % 2 == 0 else { continue }
            let fresh = kind == 4 ? [UInt8](repeating: 0, count: block) : generator.bytes(block)
            for index in start..<min(start + block, result) { new[index] = fresh[index - start] }
        }
        return DeltaCase(base: old, result: new, block: block)
    }

    func make(in scratch: ScratchDirectory) throws -> MemoryDelta {
        let path = scratch.file("delta-\(UUID().uuidString)")
        let maker = DeltaMaker(
            result: MemoryDevice(result, alignment: 1), base: MemoryDevice(base, alignment: 1),
            names: ("result", "base"), block: block, directory: scratch.path
        ) { false }
        _ = try maker.write(to: DeltaSink(creating: path))
        return MemoryDelta(bytes: [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))))
    }
}

extension MemoryDelta {
    func state(of target: [UInt8], hasResultSize: Bool = true) throws -> DeltaCheck.State {
        let reader = try reader()
        guard let statement = reader.statement else { throw CocoaError(.fileReadCorruptFile) }
        return try DeltaCheck(
            reader, statement, target: MemoryDevice(target, alignment: 1),
            hasResultSize: hasResultSize
        ) { false }.run()
    }

    /// What a target has after the delta is written to it.
    func applied(to target: [UInt8], alignment: Int = 1) throws -> [UInt8] {
        let device = MemoryDevice(target, alignment: alignment)
        try DeltaApplication(try reader(), target: device) { false }.run()
        return device.bytes
    }
}
