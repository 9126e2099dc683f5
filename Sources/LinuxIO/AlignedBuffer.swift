// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Memory for direct I/O: whole pages, and so aligned for every device.
package struct AlignedBuffer: ~Copyable, @unchecked Sendable {
    /// The memory's length in bytes, a multiple of `AlignedBuffer.alignment`.
    package let count: Int
    private let base: UnsafeMutableRawPointer

    /// Bytes; no device asks for more than a page (`blk_queue_dma_alignment` in the kernel is at
    /// most `PAGE_SIZE - 1`, and 64 KiB pages are the largest that Linux runs with).
    package static let alignment = max(4096, Int(sysconf(Int32(_SC_PAGESIZE))))

    /// Allocates zeroed memory.
    ///
    /// - Parameter count: bytes wanted; rounded up to whole pages.
    package init(count: Int) {
        precondition(count > 0)
        self.count = (count + Self.alignment - 1) / Self.alignment * Self.alignment
        guard
            let memory = mmap(
                nil, self.count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            memory != MAP_FAILED
        else { fatalError("cannot allocate \(count) bytes") }
        base = memory
    }

    deinit { munmap(base, count) }

    /// The memory; it must not be used after the buffer is gone.
    package var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base, count: count)
    }
}
