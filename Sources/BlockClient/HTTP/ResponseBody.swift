// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// The receiver of an answer's body.
package protocol ResponseSink: AnyObject {
    /// Maximum length of a body in bytes.
    var limit: Int { get }

    /// Discards the bytes, since another attempt begins.
    func reset()

    /// Appends bytes; `false` ends the transfer.
    func append(_ bytes: UnsafeRawBufferPointer) -> Bool

    /// Whether it refused bytes because memory ran out.
    var isOutOfMemory: Bool { get }

    /// Whether no further byte of the body is of use.
    ///
    /// The transfer then ends as a success a few seconds later, even if the end of the answer is
    /// still missing.
    var isFulfilled: Bool { get }
}

extension ResponseSink {
    package var isOutOfMemory: Bool { false }
    package var isFulfilled: Bool { false }
}

/// A worker's reusable buffer for answers.
///
/// It grows with the received bytes, never with the length that a header announces. No server can
/// make the client allocate memory for nothing.
package final class ResponseBody: ResponseSink {
    /// Bytes that the first append allocates.
    private static let firstCapacity = 64 << 10
    /// The factor of a step of growth.
    ///
    /// With two, the heap keeps 0.7 MiB of former steps for each payload of 2 MiB.
    private static let growth = 8

    package let limit: Int

    private var memory: UnsafeMutableRawPointer?
    private(set) var capacity = 0
    private var count = 0
    package private(set) var isOutOfMemory = false

    /// - Parameter limit: maximum length of a body in bytes.
    package init(limit: Int) {
        precondition(limit >= 0)
        self.limit = limit
    }

    deinit { free(memory) }

    /// The last answer, page-aligned; valid until the next request.
    package var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: memory, count: count)
    }

    package func reset() {
        count = 0
        isOutOfMemory = false
    }

    /// Appends bytes; `false`, without any effect, if they exceed the limit or memory runs out.
    package func append(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count <= limit - count, reserve(count + bytes.count) else { return false }
        guard let memory, let source = bytes.baseAddress else { return true }
        (memory + count).copyMemory(from: source, byteCount: bytes.count)
        count += bytes.count
        return true
    }

    private func reserve(_ needed: Int) -> Bool {
        guard needed > capacity else { return true }
        let wanted = min(limit, max(needed, Self.growth * capacity, Self.firstCapacity))
        var larger: UnsafeMutableRawPointer?
        // Aligned for direct I/O from the start of the buffer.
        guard posix_memalign(&larger, 4096, wanted) == 0, let larger else {
            isOutOfMemory = true
            return false
        }
        if let memory { larger.copyMemory(from: memory, byteCount: count) }
        free(memory)
        memory = larger
        capacity = wanted
        return true
    }
}
