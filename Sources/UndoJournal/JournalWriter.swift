// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import Glibc
package import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// Appends the old bytes of a target to a journal, and waits until they are on the medium.
///
/// Threads that wait at the same time share one flush. After a failure every call throws the same
/// error, since nothing may be written to the target any more.
package final class JournalWriter: Sendable {
    package enum WhenFull: String, Sendable, CaseIterable {
        /// The run ends.
        case stop
        /// The run goes on, and cannot be rolled back.
        case `continue`
    }

    /// Old bytes of a range.
    package struct Old {
        package var offset: Int
        package var length: Int
        /// `nil` for zeros.
        package var bytes: UnsafeRawBufferPointer?

        package init(offset: Int, length: Int, bytes: UnsafeRawBufferPointer?) {
            self.offset = offset
            self.length = length
            self.bytes = bytes
        }
    }

    private struct State {
        /// Of what was appended, and of what is on the medium.
        var end = JournalStart.size
        var durable = 0
        var last = 0
        var sequence: UInt64 = 0
        var isSynchronizing = false
        var isAbandoned = false
        var failure: IOError?
    }

    package let path: String
    private let file: OwnedDescriptor
    private let identifier: [UInt8]
    /// Bytes; `nil` for none.
    private let limit: Int?
    private let whenFull: WhenFull
    private let state = Guarded(State())

    /// Creates the file, which only its owner can read.
    ///
    /// - Throws: a refusal if it exists.
    package init(
        creating path: String, _ header: JournalHeader, limit: Int?, whenFull: WhenFull
    ) throws(IOError) {
        let identifier = try DigestKey().withUnsafeBytes {
            Array($0.prefix(JournalStart.identifierSize))
        }
        let start = try JournalStart.bytes(header, identifier, path)
        do throws(Errno) {
            file = try OwnedDescriptor.open(
                path, flags: O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
        } catch .fileExists {
            throw Self.exists(path)
        } catch {
            throw IOError(path, "create", error)
        }
        self.path = path
        self.identifier = identifier
        self.limit = limit
        self.whenFull = whenFull
        // Until the end of the run, a rollback finds it in use.
        _ = flock(file.rawValue, LOCK_EX | LOCK_NB)
        do throws(IOError) { try write(start, at: 0) } catch {
            unlink(path)
            throw error
        }
    }

    /// The refusal of a journal that exists.
    package static func exists(_ path: String) -> IOError {
        .refusal(
            .nameTaken, path, "it exists, and may be the only way back from an earlier run",
            advice: "Roll that run back (blkferry rollback), remove the file, or name another.")
    }

    /// Bytes of the journal so far.
    package var size: Int { state.withLock { $0.end } }

    /// Whether anything was saved.
    package var isEmpty: Bool { state.withLock { $0.sequence == 0 } }

    package var isAbandoned: Bool { state.withLock { $0.isAbandoned } }

    /// Returns when the old bytes are on the medium, or the journal was abandoned at its limit.
    package func save(_ ranges: [Old]) throws(IOError) {
        var end = 0
        for old in ranges {
            var digest = Self.noDigest
            if let bytes = old.bytes { digest = try sha256(of: bytes) }
            end = try append(
                old.bytes == nil ? .zeros : .data,
                ByteRange(offset: old.offset, length: old.length), old.bytes, digest)
        }
        try commit(to: end)
    }

    /// Notes how the run has ended; a journal without old bytes is removed.
    package func finish(_ end: JournalEnd) throws(IOError) {
        guard !isEmpty else { return remove() }
        let text = WireJSON.encode(end)
        let digest = try sha256(of: text)
        try text.withUnsafeBytes { bytes in
            Result { () throws(IOError) in
                try commit(to: append(.end, ByteRange(offset: 0, length: 0), bytes, digest))
            }
        }.get()
    }

    package func remove() { unlink(path) }

    private static let noDigest = [UInt8](repeating: 0, count: 32)

    /// Appends a record without waiting for the medium, and returns the end of the journal.
    private func append(
        _ kind: JournalRecord.Kind, _ range: ByteRange, _ payload: UnsafeRawBufferPointer?,
        _ digest: [UInt8]
    ) throws(IOError) -> Int {
        try state.withLock { state throws(IOError) in
            if let failure = state.failure { throw failure }
            if state.isAbandoned { return state.end }
            let length = JournalRecord.size + (payload?.count ?? 0)
            if let limit, kind != .end, state.end + length > limit {
                guard whenFull == .continue else {
                    let full = self.full(limit)
                    state.failure = full
                    throw full
                }
                state.isAbandoned = true
                return try write(
                    .abandoned, ByteRange(offset: 0, length: 0), nil, Self.noDigest, &state)
            }
            return try write(kind, range, payload, digest, &state)
        }
    }

    private func full(_ limit: Int) -> IOError {
        journalError(
            IOError(
                path, "write", reason: "the undo journal has reached its limit of \(limit) bytes",
                advice: "The target is partly written. blkferry rollback \(path) makes it what it "
                    + "was; a run with a higher --undo-limit finishes the job."))
    }

    private func write(
        _ kind: JournalRecord.Kind, _ range: ByteRange, _ payload: UnsafeRawBufferPointer?,
        _ digest: [UInt8], _ state: inout State
    ) throws(IOError) -> Int {
        let record = JournalRecord(
            kind: kind, sequence: state.sequence + 1, range: range, payload: payload?.count ?? 0,
            previous: state.last, durable: state.durable, digest: digest)
        do throws(IOError) {
            try write(record.bytes(identifier), at: state.end)
            if let payload { try write(payload, at: state.end + JournalRecord.size) }
        } catch {
            state.failure = error
            throw error
        }
        state.last = state.end
        state.sequence += 1
        state.end += JournalRecord.size + record.payload
        return state.end
    }

    private func write(_ bytes: [UInt8], at offset: Int) throws(IOError) {
        try bytes.withUnsafeBytes { bytes in
            Result { () throws(IOError) in try write(bytes, at: offset) }
        }.get()
    }

    private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        do throws(Errno) { try file.write(bytes, at: offset) } catch {
            throw journalError(
                IOError(
                    path, "write", error,
                    advice: "The run has ended, and may have written a part. "
                        + "blkferry rollback \(path) makes the target what it was."))
        }
    }

    /// Waits until the journal is on the medium up to a position.
    private func commit(to position: Int) throws(IOError) {
        while true {
            enum Turn {
                case done
                case failed(IOError)
                case synchronize(Int)
            }
            var turn = Turn.done
            state.wait { state in
                if let failure = state.failure {
                    turn = .failed(failure)
                } else if state.durable >= position {
                    turn = .done
                } else if state.isSynchronizing {
                    return false
                } else {
                    state.isSynchronizing = true
                    turn = .synchronize(state.end)
                }
                return true
            }
            switch turn {
            case .done: return
            case .failed(let error): throw error
            case .synchronize(let end): synchronize(to: end)
            }
        }
    }

    private func synchronize(to end: Int) {
        var failure: IOError?
        do throws(Errno) {
            let isFirst = state.withLock { $0.durable == 0 }
            try file.synchronizeData()
            if isFirst { try synchronizeDirectory() }
        } catch {
            failure = journalError(IOError(path, "flush", error))
        }
        state.withLock { state in
            state.isSynchronizing = false
            if let failure { state.failure = failure } else { state.durable = end }
        }
    }

    private func synchronizeDirectory() throws(Errno) {
        let parent = FilePath(path).removingLastComponent()
        let directory = try OwnedDescriptor.open(
            parent.isEmpty ? "." : parent.string, flags: O_RDONLY | O_DIRECTORY)
        try directory.synchronize()
    }

    private func journalError(_ error: IOError) -> IOError {
        var error = error
        error.kind = .journal
        return error
    }
}
