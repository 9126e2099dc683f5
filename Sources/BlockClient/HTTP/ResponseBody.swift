// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

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
    /// Bytes that the first append allocates; later ones double the capacity.
    private static let firstCapacity = 64 << 10

    package let limit: Int

    private var memory: AlignedBuffer?
    /// All of `memory`.
    private var room = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    private(set) var capacity = 0
    private var count = 0
    package private(set) var isOutOfMemory = false

    /// - Parameter limit: maximum length of a body in bytes.
    package init(limit: Int) {
        precondition(limit >= 0)
        self.limit = limit
    }

    /// The last answer, page-aligned; valid until the next request.
    package var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: room[..<count])
    }

    package func reset() {
        count = 0
        isOutOfMemory = false
    }

    /// Appends bytes; `false`, without any effect, if they exceed the limit or memory runs out.
    package func append(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count <= limit - count, reserve(count + bytes.count) else { return false }
        slice(room, count, count + bytes.count).copyMemory(from: bytes)
        count += bytes.count
        return true
    }

    private func reserve(_ needed: Int) -> Bool {
        guard needed > capacity else { return true }
        let wanted = min(limit, max(needed, 2 * capacity, Self.firstCapacity))
        guard let larger = AlignedBuffer(ifAvailable: wanted) else {
            isOutOfMemory = true
            return false
        }
        larger.bytes.copyMemory(from: self.bytes)
        room = larger.bytes
        memory = consume larger
        capacity = wanted
        return true
    }
}
