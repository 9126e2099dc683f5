// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import WireProtocol

/// A superblock, and behind it a seal.
func fuzzVerity(_ bytes: [UInt8]) {
    guard let block = try? VeritySuperblock(bytes) else { return }
    let shape = VerityShape(size: block.blocks * VerityShape.block)
    require(shape.end <= 1 << 56, "places within a file")
    require(shape.levels.count <= 7, "few levels")
    require((try? VeritySuperblock(block.bytes)) == block, "the same superblock again")
    let start = Array(bytes[..<VeritySuperblock.size])
    let rest = Array(bytes.dropFirst(VeritySuperblock.size))
    guard let seal = try? VeritySeal(rest, after: start) else { return }
    require((try? seal.bytes(after: start)) == rest, "the same seal again")
}
