// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Checks the first word, and compares the buffer with itself shifted by one word.
///
/// memcmp(3) uses the processor's widest instructions, and stops at the first difference.
package func isZero(_ buffer: UnsafeRawBufferPointer) -> Bool {
    let word = MemoryLayout<UInt64>.size
    guard let base = buffer.baseAddress, buffer.count > word else {
        return buffer.allSatisfy { $0 == 0 }
    }
    return base.loadUnaligned(as: UInt64.self) == 0
        && memcmp(base, base + word, buffer.count - word) == 0
}
