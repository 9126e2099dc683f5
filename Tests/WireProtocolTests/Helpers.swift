// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Digests
import Testing
import WireProtocol

/// Bytes that a function writes into memory of a size.
func written<Failure: Error>(
    _ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Void
) throws(Failure) -> [UInt8] {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, count), alignment: 8)
    defer { memory.deallocate() }
    try body(UnsafeMutableRawBufferPointer(rebasing: memory[..<count]))
    return Array(memory[..<count])
}

func sealed(_ content: [UInt8], _ hasher: inout BlockHasher) throws -> [UInt8] {
    try written(content.count + hasher.method.byteCount) { memory in
        memory.copyBytes(from: content)
        let count = try SealedFrame.seal(memory, count: content.count, &hasher)
        #expect(count == memory.count)
    }
}

func u32(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

func u64(_ value: UInt64) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

func u64(_ value: Int) -> [UInt8] { u64(UInt64(value)) }

func encodedTable(_ extents: [Extent]) -> [UInt8] {
    written(ExtentFrame.tableSize(count: extents.count)) { ExtentFrame.writeTable(extents, to: $0) }
}

func encodedEntry(_ index: Int, _ zeros: [Bool], _ digests: [UInt8]) -> [UInt8] {
    written(4 + (zeros.count + 7) / 8 + digests.count) { memory in
        zeros.withUnsafeBufferPointer { zeros in
            digests.withUnsafeBytes { digests in
                CompareAnswer.writeEntry(
                    index: index, zeroBlocks: zeros, digests: digests, to: memory)
            }
        }
    }
}

func decoded<Record: Decodable>(_ type: Record.Type, _ text: String) throws -> Record {
    try Array(text.utf8).withUnsafeBytes { try WireJSON.decode(type, from: $0) }
}

/// Why a parser rejects something; `nil` when it does not.
func rejection<Result>(_ body: () throws -> Result) -> String? {
    do {
        _ = try body()
        return nil
    } catch let error as WireError {
        return error.reason
    } catch {
        Issue.record("another error: \(error)")
        return "\(error)"
    }
}
