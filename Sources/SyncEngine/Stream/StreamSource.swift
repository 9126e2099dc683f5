// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import Digests
package import LinuxIO
internal import Synchronization
internal import SystemPackage

/// A source that is read once, from its start to its end, such as a pipe on standard input.
///
/// A pass loads windows in ascending order, under its lock, each into the memory of the thread that
/// processes it. This thread then reads the window as that of any device, as often as it likes.
package final class StreamSource: BlockDevice {
    /// Where the stream must end.
    package enum End: Hashable, Sendable {
        /// After the size that the user gave.
        case announced(Int)
        /// Where the target ends.
        case atTarget(Int)
        /// At the latest where the target ends.
        case withinTarget(Int)
        /// Anywhere; a comparison needs the size of a longer stream, too.
        case compared(Int)
        /// Anywhere; the target is extended.
        case anywhere
    }

    struct State {
        /// The first bytes of the stream, which were read ahead; dropped when they are loaded.
        var head: [UInt8] = []
        /// Bytes that were read ahead and not loaded yet.
        var ahead = 0
        var hasEnded = false
        /// Bytes that were loaded.
        var position = 0
        /// Bytes of a longer stream than what is compared.
        var rest = 0
        var end = End.anywhere
        var slots: [Int: Slot] = [:]
        var windowSize = 0
        /// One digest for each window.
        var digests: [UInt8] = []
    }

    /// The window of a thread.
    struct Slot: @unchecked Sendable {
        // Unchecked: only the thread that loaded it uses the memory.
        var memory: UnsafeMutableRawBufferPointer
        var range: ByteRange
    }

    package let name: String
    let descriptor: Int32
    let isCancelled: @Sendable () -> Bool
    let state = Mutex(State())
    let method: DigestMethod
    let key: DigestKey

    /// Bytes that are read before the target is opened, so that they show what the stream is.
    package static let headSize = 1 << 20

    /// Reads the start of the stream.
    ///
    /// - Parameters:
    ///   - descriptor: stays open as long as this object lives.
    ///   - isCancelled: ends a wait for the producer.
    /// - Throws: also if the stream is empty.
    package init(
        _ descriptor: Int32, name: String, isCancelled: @escaping @Sendable () -> Bool
    ) throws(IOError) {
        self.descriptor = descriptor
        self.name = name
        self.isCancelled = isCancelled
        method = DigestMethod.fasterOnes.first ?? .poly1305
        key = try DigestKey()
        var head = [UInt8](repeating: 0, count: Self.headSize)
        var failure: IOError?
        let count = head.withUnsafeMutableBytes { buffer in
            do throws(IOError) { return try fill(buffer) } catch {
                failure = error
                return 0
            }
        }
        if let failure { throw failure }
        guard !isCancelled() else {
            var error = IOError(name, "read", reason: "interrupted, nothing was written")
            error.kind = .cancelled
            throw error
        }
        guard count > 0 else {
            throw IOError(
                name, "read", reason: "it is empty",
                advice: "Did the program before the pipe fail?")
        }
        head.removeLast(head.count - count)
        state.withLock { state in
            state.head = head
            state.ahead = count
            state.hasEnded = count < Self.headSize
        }
    }

    deinit {
        for slot in state.withLock({ $0.slots.values }) { slot.memory.deallocate() }
    }

    /// The first bytes, before any are loaded.
    package var head: [UInt8] { state.withLock { $0.head } }

    /// The size, if the stream ended within its head.
    package var knownSize: Int? { state.withLock { $0.hasEnded ? $0.head.count : nil } }

    package func setEnd(_ end: End) { state.withLock { $0.end = end } }

    /// Whether everything was loaded.
    package var isComplete: Bool { state.withLock { $0.hasEnded && $0.ahead == 0 } }

    /// Bytes that were loaded.
    var loaded: Int { state.withLock { $0.position } }

    /// Bytes that were loaded, and those of the rest that were not compared.
    package var length: Int { state.withLock { $0.position + $0.rest } }

    /// The size that was announced, or what was loaded.
    package var geometry: Geometry {
        let size = state.withLock { state in
            if case .announced(let size) = state.end { size } else { state.position }
        }
        return Geometry(size: size, logicalSector: 512, alignment: 1)
    }

    /// Copies from the window that a thread has loaded.
    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        let range = ByteRange(offset: offset, length: buffer.count)
        let slot = state.withLock { state in
            state.slots.values.first {
                $0.range.offset <= range.offset && range.end <= $0.range.end
            }
        }
        guard let slot else {
            throw IOError(name, "read at \(offset)", reason: "a stream is read only once")
        }
        let start = offset - slot.range.offset
        buffer.copyMemory(
            from: UnsafeRawBufferPointer(slice(slot.memory, start, start + buffer.count)))
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        throw IOError(name, "write", .notSupported)
    }

    package func zero(_ range: ByteRange) throws(IOError) {
        throw IOError(name, "zero", .notSupported)
    }

    package func flush() throws(IOError) {}

    package func checkIdentity() throws(IOError) {}

    package func hasForeignWrites() -> Bool { false }

    package func hadOtherWriters() -> Bool { false }

    package func changeCounter() -> ChangeCounter? { nil }

    package func persistentChangeCounter() -> ChangeCounter? { nil }

    package var reasonForNoCounter: String? { "it is a stream" }

    package var isDirect: Bool { false }
}
