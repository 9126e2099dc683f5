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
        var end = JournalStart.recordsPlace
        var durable = 0
        var last = 0
        var sequence: UInt64 = 0
        var isSynchronizing = false
        var isAbandoned = false
        var failure: IOError?
    }

    package let path: String
    private let place: JournalPlace
    private let file: OwnedDescriptor
    package let identifier: [UInt8]
    /// Bytes of the target before the run; what is behind them is not kept.
    package let originalSize: Int
    /// Bytes; `nil` for none.
    private let limit: Int?
    private let whenFull: WhenFull
    private let state = Guarded(State())
    private let begin: @Sendable () throws(IOError) -> Void
    /// Whether the journal is where it belongs, and `begin` was called.
    private let hasBegun = Guarded(false)
    private let isRemoved = Guarded(false)

    /// Creates the file, which only its owner can read.
    ///
    /// - Parameter begin: called once, when the journal is on the medium and before anything is
    ///   written to the target; an error ends the run.
    /// - Throws: a refusal if it exists.
    package init(
        creating place: JournalPlace, _ header: JournalHeader, limit: Int?, whenFull: WhenFull,
        begin: @escaping @Sendable () throws(IOError) -> Void = {}
    ) throws(IOError) {
        let identifier = try DigestKey().withUnsafeBytes {
            Array($0.prefix(JournalStart.identifierSize))
        }
        var start = try JournalStart.bytes(header, identifier, place.path)
        start += [UInt8](repeating: 0, count: JournalStart.recordsPlace - start.count)
        file = try place.create()
        path = place.path
        self.place = place
        self.identifier = identifier
        self.limit = limit
        self.whenFull = whenFull
        self.begin = begin
        originalSize = header.size
        // Until the end of the run, a rollback finds it in use.
        _ = flock(file.rawValue, LOCK_EX | LOCK_NB)
        do throws(IOError) { try write(start, at: 0) } catch {
            place.remove()
            throw error
        }
    }

    package convenience init(
        creating path: String, _ header: JournalHeader, limit: Int?, whenFull: WhenFull
    ) throws(IOError) {
        try self.init(
            creating: JournalPlace(path: path), header, limit: limit, whenFull: whenFull)
    }

    /// Bytes of the journal so far.
    package var size: Int { state.withLock { $0.end } }

    /// Whether nothing was saved, or nothing is needed, so that the target is what it was.
    package var isEmpty: Bool {
        isRemoved.withLock { $0 } || state.withLock { $0.sequence == 0 && !$0.isAbandoned }
    }

    /// Whether the run goes on without the journal, and the journal says so on the medium.
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

    /// Notes, before the target grows, how large it was; returns when that is on the medium.
    package func saveSize(_ size: Int) throws(IOError) {
        let range = ByteRange(offset: size, length: 0)
        try commit(to: append(.growth, range, nil, Self.noDigest))
    }

    /// Notes how the run has ended; a journal of a target that is what it was is removed.
    package func finish(_ end: JournalEnd) throws(IOError) {
        guard !isEmpty else { return remove() }
        guard !isAbandoned else { return }
        let text = WireJSON.encode(end)
        let digest = try sha256(of: text)
        let size = try text.withUnsafeBytes { bytes in
            Result { () throws(IOError) in
                try append(.end, ByteRange(offset: 0, length: 0), bytes, digest)
            }
        }.get()
        try commit(to: size)
        // Only now, because it says that everything before is on the medium.
        try write(JournalStart.endPage(size, identifier), at: JournalStart.endPlace)
        try flush()
    }

    package func remove() {
        let isFirst = isRemoved.withLock { isRemoved in
            defer { isRemoved = true }
            return !isRemoved
        }
        if isFirst { place.remove() }
    }

    /// Removes the journal of a run that has ended before its first write.
    deinit {
        if isEmpty { remove() }
    }

    private static let noDigest = [UInt8](repeating: 0, count: 32)

    /// Appends a record without waiting for the medium, and returns the end of the journal.
    private func append(
        _ kind: JournalRecord.Kind, _ range: ByteRange, _ payload: UnsafeRawBufferPointer?,
        _ digest: [UInt8]
    ) throws(IOError) -> Int {
        try state.withLock { state throws(IOError) in
            if let failure = state.failure { throw failure }
            if state.isAbandoned { return 0 }
            let record = JournalRecord(
                kind: kind, sequence: state.sequence + 1, range: range,
                payload: payload?.count ?? 0, previous: state.last, durable: state.durable,
                digest: digest)
            do throws(IOError) {
                if let limit, kind != .end, state.end + record.length > limit {
                    guard whenFull == .continue else { throw full(limit, state.sequence == 0) }
                    try abandon()
                    state.isAbandoned = true
                    return 0
                }
                try write(record, payload, at: state.end)
            } catch {
                state.failure = error
                throw error
            }
            state.last = state.end
            state.sequence += 1
            state.end += record.length
            return state.end
        }
    }

    /// - Parameter isEmpty: whether nothing was recorded, so that nothing was written.
    private func full(_ limit: Int, _ isEmpty: Bool) -> IOError {
        let advice =
            isEmpty
            ? "Nothing was written to the target. Say a higher --undo-limit."
            : "The target is partly written. blkferry rollback \(path) makes it what it was; a run "
                + "with a higher --undo-limit finishes the job."
        return journalError(
            IOError(
                path, "write", reason: "the undo journal has reached its limit of \(limit) bytes",
                advice: advice))
    }

    /// Makes the journal unusable, on the medium, before the first write that it does not cover.
    private func abandon() throws(IOError) {
        let page = [UInt8](repeating: 0xFF, count: JournalStart.size)
        try write(page, at: JournalStart.abandonedPlace)
        try flush()
        try start()
    }

    private func write(
        _ record: JournalRecord, _ payload: UnsafeRawBufferPointer?, at offset: Int
    ) throws(IOError) {
        let head = try record.bytes(identifier)
        try write(head, at: offset)
        if let payload { try write(payload, at: offset + JournalRecord.size) }
        try write(head, at: offset + JournalRecord.size + record.payload)
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
        let result = Result { () throws(IOError) in
            try flush()
            try start()
        }
        state.withLock { state in
            state.isSynchronizing = false
            switch result {
            case .success: state.durable = end
            case .failure(let error): state.failure = state.failure ?? error
            }
        }
    }

    private func flush() throws(IOError) {
        do throws(Errno) { try file.synchronizeData() } catch {
            throw journalError(IOError(path, "flush", error))
        }
    }

    /// Puts the journal, which is on the medium, in its place; once.
    private func start() throws(IOError) {
        try hasBegun.withLock { hasBegun throws(IOError) in
            guard !hasBegun else { return }
            do throws(IOError) {
                // First, so that an error leaves a journal that is to be replaced.
                try begin()
            } catch {
                // Nothing was written, so this one is of no use.
                remove()
                throw journalError(error)
            }
            do throws(IOError) { try place.settle() } catch { throw journalError(error) }
            hasBegun = true
        }
    }

    private func journalError(_ error: IOError) -> IOError {
        var error = error
        error.kind = .journal
        return error
    }
}
