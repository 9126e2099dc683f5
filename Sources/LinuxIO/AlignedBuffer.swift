// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Memory for direct I/O in whole pages, which satisfies the alignment of every device.
///
/// Large buffers ask for huge pages, because the kernel pins and copies page by page. Reading two
/// loop devices then takes two thirds of the time (`tools/bench local`).
///
/// It is safe to send, because its pointers are constant, and the owner decides which thread uses
/// the memory.
package struct AlignedBuffer: ~Copyable, @unchecked Sendable {
    /// Bytes; a multiple of `AlignedBuffer.alignment`.
    package let count: Int
    private let base: UnsafeMutableRawPointer
    /// Longer than `count` if the start was moved to a huge page.
    private let mapping: UnsafeMutableRawBufferPointer

    /// Bytes; the kernel's `dma_alignment` is less than a page, so no device needs more.
    package static let alignment = max(4096, Int(sysconf(Int32(_SC_PAGESIZE))))

    /// Bytes; the size on x86-64, and on arm64 with pages of 4 KiB.
    private static let hugePage = 2 << 20

    /// Maps zeroed memory, which is allocated as it is used, or ends the program if there is none.
    ///
    /// - Parameter count: in bytes; rounded up to whole pages.
    package init(count: Int) {
        guard let pages = Pages(count: count) else { Memory.end(needing: count) }
        self.init(pages)
    }

    /// Maps zeroed memory; `nil` if there is none.
    package init?(ifAvailable count: Int) {
        guard let pages = Pages(count: count) else { return nil }
        self.init(pages)
    }

    private init(_ pages: Pages) {
        count = pages.count
        base = pages.base
        mapping = pages.mapping
    }

    private struct Pages {
        let count: Int
        let base: UnsafeMutableRawPointer
        let mapping: UnsafeMutableRawBufferPointer

        init?(count: Int) {
            precondition(count > 0)
            self.count =
                (count + AlignedBuffer.alignment - 1) / AlignedBuffer.alignment
                * AlignedBuffer.alignment
            let isLarge = count >= AlignedBuffer.hugePage
            let length = self.count + (isLarge ? AlignedBuffer.hugePage : 0)
            guard
                let memory = mmap(
                    nil, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                memory != MAP_FAILED
            else { return nil }
            mapping = UnsafeMutableRawBufferPointer(start: memory, count: length)
            base = isLarge ? memory.alignedUp(toMultipleOf: AlignedBuffer.hugePage) : memory
            // Only advice: ordinary pages work as well.
            if isLarge { _ = madvise(base, self.count, Int32(MADV_HUGEPAGE)) }
        }
    }

    deinit { munmap(mapping.baseAddress, mapping.count) }

    /// Must not be used after the buffer is gone.
    package var bytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base, count: count)
    }
}
