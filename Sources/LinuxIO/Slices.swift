// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The bytes from one offset to another one.
package func slice(
    _ buffer: UnsafeMutableRawBufferPointer, _ start: Int, _ end: Int
) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: buffer[start..<end])
}

package func slice(
    _ buffer: UnsafeRawBufferPointer, _ start: Int, _ end: Int
) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: buffer[start..<end])
}
