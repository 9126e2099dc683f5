// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import SystemPackage
import TestSupport

/// What two devices hold, made from a seed: they differ in some places, and both have zeros.
struct RemotePair {
    var source: [UInt8]
    var target: [UInt8]
    let block: Int
    /// `nil` for the fastest that both sides have.
    let method: String?

    /// Makes a pair.
    ///
    /// - Parameters:
    ///   - seed: determines everything.
    ///   - size: in bytes; `nil` for any up to 5 MiB.
    init(seed: UInt64, size: Int? = nil) {
        var random = SeededGenerator(seed: seed)
        block = [512, 1024, 1536, 4096, 5120, 65536, 66048][Int(seed % 7)]
        method = [nil, "poly1305", "gmac", "sha1", "sha256", "blake2b512"][Int(seed / 7 % 6)]
        let size = size ?? Int.random(in: 1...(5 << 20), using: &random)
        source = random.bytes(size)
        target = source
        for _ in 0..<Int.random(in: 0...40, using: &random) {
            let start = Int.random(in: 0..<size, using: &random)
            let end = min(size, start + Int.random(in: 1...200_000, using: &random))
            switch Int.random(in: 0..<4, using: &random) {
            case 0: for index in start..<end { source[index] = 0 }
            case 1: for index in start..<end { target[index] = 0 }
            case 2:
                for index in start..<end {
                    source[index] = 0
                    target[index] = 0
                }
            default: for index in start..<end { target[index] &+= 3 }
            }
        }
    }

    /// Bytes of the blocks in which the two differ.
    ///
    /// - Parameter block: their size, in bytes.
    /// - Returns: the blocks, ascending.
    func differing(block: Int) -> [ByteRange] {
        stride(from: 0, to: source.count, by: block).compactMap { start in
            let end = min(source.count, start + block)
            return source[start..<end] == target[start..<end] ? nil : ByteRange(start, to: end)
        }
    }
}

extension [ByteRange] {
    var length: Int { reduce(0) { $0 + $1.length } }
}

/// Makes an image; pages of zeros are holes.
///
/// - Throws: what the system says.
func makeImage(_ path: String, _ bytes: [UInt8]) throws {
    try must("rm", "-f", path)
    try must("truncate", "-s", "\(bytes.count)", path)
    let image = try ImageFile(path: path, name: path, access: .readWrite)
    var start = 0
    while start < bytes.count {
        let end = min(bytes.count, start + 65536)
        let piece = Array(bytes[start..<end])
        if piece.contains(where: { $0 != 0 }) { try image.write(piece, at: start) }
        start = end
    }
    try image.flush()
}
