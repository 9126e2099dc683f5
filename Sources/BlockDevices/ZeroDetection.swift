// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Whether every byte of a buffer is zero.
///
/// The first word is looked at; then the buffer is compared with itself, one word on, which
/// memcmp(3) does as wide as the processor can, stopping at the first byte that is not zero.
package func isZero(_ buffer: UnsafeRawBufferPointer) -> Bool {
    let word = MemoryLayout<UInt64>.size
    guard let base = buffer.baseAddress, buffer.count > word else {
        return buffer.allSatisfy { $0 == 0 }
    }
    return base.loadUnaligned(as: UInt64.self) == 0
        && memcmp(base, base + word, buffer.count - word) == 0
}
