// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Where the body of an answer goes.
package protocol ResponseSink: AnyObject {
    /// Bytes that a body may have.
    var limit: Int { get }

    /// Forgets what has come: another attempt begins.
    func reset()

    /// Takes bytes in.
    ///
    /// - Returns: `false` where the transfer is to end.
    func append(_ bytes: UnsafeRawBufferPointer) -> Bool
}

/// Where a worker receives bodies, reused from request to request.
///
/// It grows with the bytes that came, never with what a header promises, so that no server makes
/// the client take memory for nothing.
package final class ResponseBody: ResponseSink {
    /// Bytes taken at the first byte; from there on it doubles.
    private static let firstCapacity = 64 << 10

    /// Bytes that a body may have.
    package let limit: Int

    private var memory: UnsafeMutableRawPointer?
    private(set) var capacity = 0
    private var count = 0

    /// Makes an empty one, which takes no memory yet.
    ///
    /// - Parameter limit: bytes that a body may have.
    package init(limit: Int) {
        precondition(limit >= 0)
        self.limit = limit
    }

    deinit { free(memory) }

    /// What the last answer held, from the start of a page on; valid until the next request.
    package var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: memory, count: count)
    }

    /// Forgets the bytes and keeps the memory.
    package func reset() { count = 0 }

    /// Takes bytes in.
    ///
    /// - Returns: `false`, with nothing taken, where they are beyond the limit or memory is out.
    package func append(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count <= limit - count, reserve(count + bytes.count) else { return false }
        guard let memory, let source = bytes.baseAddress else { return true }
        (memory + count).copyMemory(from: source, byteCount: bytes.count)
        count += bytes.count
        return true
    }

    private func reserve(_ needed: Int) -> Bool {
        guard needed > capacity else { return true }
        let wanted = min(limit, max(needed, 2 * capacity, Self.firstCapacity))
        var larger: UnsafeMutableRawPointer?
        // Aligned, so that data at its start can be written directly.
        guard posix_memalign(&larger, 4096, wanted) == 0, let larger else { return false }
        if let memory { larger.copyMemory(from: memory, byteCount: count) }
        free(memory)
        memory = larger
        capacity = wanted
        return true
    }
}
