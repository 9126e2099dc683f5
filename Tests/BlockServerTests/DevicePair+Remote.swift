// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import SystemPackage
import TestSupport

extension DevicePair {
    /// The digest of a run; `nil` for the fastest that both sides have.
    var method: String? {
        [nil, "poly1305", "gmac", "sha1", "sha256", "blake2b512"][Int(seed / 7 % 6)]
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
