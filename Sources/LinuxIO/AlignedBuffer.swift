// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Memory for direct I/O: whole pages, and so aligned for every device.
///
/// Large buffers ask for huge pages. The kernel pins the pages of each direct transfer and copies
/// page by page: with pages of 2 MiB instead of 4 KiB it reads two loop devices in two thirds of
/// the time (`tools/bench local`).
package struct AlignedBuffer: ~Copyable, @unchecked Sendable {
    /// The memory's length in bytes, a multiple of `AlignedBuffer.alignment`.
    package let count: Int
    private let base: UnsafeMutableRawPointer
    /// What was mapped: more than is used, where the start had to be moved to a huge page.
    private let mapping: UnsafeMutableRawBufferPointer

    /// Bytes; no device asks for more than a page (the kernel's `dma_alignment` is less than that).
    package static let alignment = max(4096, Int(sysconf(Int32(_SC_PAGESIZE))))

    /// Bytes; that of x86-64, and of arm64 with pages of 4 KiB.
    private static let hugePage = 2 << 20

    /// Allocates zeroed memory, which takes up room only as it is used.
    ///
    /// - Parameter count: bytes wanted; rounded up to whole pages.
    package init(count: Int) {
        precondition(count > 0)
        self.count = (count + Self.alignment - 1) / Self.alignment * Self.alignment
        let isLarge = count >= Self.hugePage
        let length = self.count + (isLarge ? Self.hugePage : 0)
        guard
            let memory = mmap(
                nil, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            memory != MAP_FAILED
        else { fatalError("cannot allocate \(count) bytes") }
        mapping = UnsafeMutableRawBufferPointer(start: memory, count: length)
        base = isLarge ? memory.alignedUp(toMultipleOf: Self.hugePage) : memory
        // Advice: ordinary pages do as well.
        if isLarge { _ = madvise(base, self.count, Int32(MADV_HUGEPAGE)) }
    }

    deinit { munmap(mapping.baseAddress, mapping.count) }

    /// The memory; it must not be used after the buffer is gone.
    package var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base, count: count)
    }
}
