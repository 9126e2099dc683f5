// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import Digests
internal import Glibc
package import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// Reads the journal of a run that has ended, in whatever way.
package final class JournalReader: Sendable {
    package let path: String
    package let header: JournalHeader
    let file: OwnedDescriptor
    package let identifier: [UInt8]

    /// What a journal has, up to its end or to where the run was cut off.
    package struct Content: Hashable, Sendable {
        /// Where the last record starts; 0 for none.
        package fileprivate(set) var last = 0
        package fileprivate(set) var records = 0
        /// Bytes of old data; zeros are not counted.
        package fileprivate(set) var data = 0
        /// Of a run that has ended in order.
        package fileprivate(set) var end: JournalEnd?
        package fileprivate(set) var isRolledBack = false
        /// Whether a rollback has begun, which has written to the target.
        package fileprivate(set) var isRollingBack = false
        /// Heads of records that are damaged, or torn because the power was cut before they were
        /// on the medium.
        ///
        /// They are torn if the target still has the bytes that they had, and nothing is lost then.
        package fileprivate(set) var torn: [JournalRecord] = []
        fileprivate(set) var size = JournalStart.recordsPlace
        fileprivate(set) var sequence: UInt64 = 0
    }

    /// - Throws: a refusal if it is no journal, or a run uses it.
    package init(_ path: String) throws(IOError) {
        self.path = path
        do throws(Errno) {
            let file = try OwnedDescriptor.open(path, flags: O_RDWR | O_NONBLOCK)
            guard try file.status().kind == .regular else { throw Errno.invalidArgument }
            let number = file.rawValue
            _ = try retryingInterrupts { flock(number, LOCK_EX | LOCK_NB) }
            self.file = file
        } catch .resourceTemporarilyUnavailable {
            throw .refusal(
                .inUse, path, "a run or another rollback uses it", advice: "Wait until it is done.")
        } catch .invalidArgument {
            throw .refusal(.wrongKind, path, "it is no undo journal of blkferry")
        } catch {
            throw IOError(path, "open", error)
        }
        guard let start = try Self.page(0, of: file, path) else {
            throw .refusal(.wrongKind, path, "it is no undo journal of blkferry")
        }
        (header, identifier) = try JournalStart.read(start, path)
    }

    /// Reads and checks everything.
    ///
    /// The power may have been cut while the last records were written, before the target was. Such
    /// a torn tail is ignored. Damage before it is found, because each record says how much of the
    /// journal was on the medium before, and the end of the run how much there is.
    ///
    /// - Throws: a refusal if the journal is damaged or incomplete.
    package func content(unless isCancelled: () -> Bool) throws(IOError) -> Content {
        try checkCompleteness()
        var content = Content()
        let memory = AlignedBuffer(count: JournalRecord.longestPayload)
        while let record = try record(at: content.size) {
            if isCancelled() { throw cancelled }
            guard record.sequence == content.sequence + 1, record.previous == content.last,
                try readPayload(of: record, at: content.size, into: memory.bytes)
            else { break }
            content.isRolledBack = record.kind == .rolledBack
            switch record.kind {
            case .data: content.data += record.payload
            case .end:
                let text = slice(UnsafeRawBufferPointer(memory.bytes), 0, record.payload)
                content.end = try? WireJSON.decode(JournalEnd.self, from: text)
            case .rollback: content.isRollingBack = true
            case .zeros, .rolledBack, .growth: break
            }
            content.last = content.size
            content.sequence = record.sequence
            content.records += 1
            content.size += record.length
        }
        try checkTail(of: &content)
        return content
    }

    /// Throws if the run went on without the journal, or if the end of the run is missing.
    private func checkCompleteness() throws(IOError) {
        guard let abandoned = try Self.page(JournalStart.abandonedPlace, of: file, path),
            let end = try Self.page(JournalStart.endPlace, of: file, path)
        else {
            throw damaged("it has no records")
        }
        guard abandoned.allSatisfy({ $0 == 0 }) else {
            throw .refusal(
                .wrongKind, path,
                "it is incomplete: it had reached its limit, and the run went on without it")
        }
        guard let size = try JournalStart.endSize(end, identifier) else { return }
        let now = try status().size
        guard now >= size else { throw damaged("it has \(now) bytes in place of \(size)") }
    }

    /// Whether only root and this user can have made the journal, and can change it.
    package var isTrusted: Bool {
        var (status, parent) = (stat(), stat())
        let name = (try? canonicalPath(path)) ?? path
        let directory = FilePath(name).removingLastComponent()
        guard fstat(file.rawValue, &status) == 0,
            stat(directory.isEmpty ? "." : directory.string, &parent) == 0
        else { return false }
        let (others, sticky): (mode_t, mode_t) = (0o022, 0o1000)
        return (status.st_uid == 0 || status.st_uid == geteuid()) && status.st_mode & others == 0
            && (parent.st_mode & others == 0 || parent.st_mode & sticky != 0)
    }

    /// The refusal of a journal that would not make the target what it was.
    package func damaged(_ reason: String) -> IOError {
        .refusal(
            .wrongKind, path, "it is damaged, and cannot be used: \(reason)",
            advice: "Its device or file system may be faulty.")
    }

    private func status() throws(IOError) -> FileStatus {
        do throws(Errno) { return try file.status() } catch {
            throw IOError(path, "get status", error)
        }
    }

    /// A page at the start of the journal; `nil` if the file is shorter.
    private static func page(
        _ place: Int, of file: borrowing OwnedDescriptor, _ path: String
    ) throws(IOError) -> [UInt8]? {
        let memory = AlignedBuffer(count: JournalStart.size)
        let bytes = slice(memory.bytes, 0, JournalStart.size)
        guard try read(file, path, into: bytes, at: place) == bytes.count else { return nil }
        return Array(bytes)
    }

    private var cancelled: IOError {
        var error = IOError(path, "read", reason: "interrupted")
        error.kind = .cancelled
        return error
    }

    /// Finds the torn records behind a position, and throws if they are certainly not torn.
    private func checkTail(of content: inout Content) throws(IOError) {
        let position = content.size
        let size = try status().size
        guard size > position else {
            return try checkEnd(of: content)
        }
        var isBlank = true
        var torn: [UInt64: JournalRecord] = [:]
        try findHeads(from: position, isBlank: &isBlank) { record throws(IOError) in
            guard record.sequence > content.sequence else { return }
            guard record.durable <= position else {
                throw damaged("at \(position), where it was on the medium")
            }
            torn[record.sequence] = record
        }
        try checkEnd(of: content)
        content.torn = torn.keys.sorted().compactMap { torn[$0] }
        guard !isBlank, let boot = header.boot, boot == bootIdentifier() else { return }
        // A run that was killed leaves a prefix of a record; only a power cut loses what is before.
        let isKnown =
            content.torn.isEmpty
            ? size - position < JournalRecord.size
            : content.torn.enumerated().allSatisfy {
                $1.sequence == content.sequence + UInt64($0) + 1
            }
        guard isKnown else {
            throw damaged("at \(position), though the power was not cut since the run")
        }
    }

    /// Throws if the journal must have more records, because the run has ended.
    private func checkEnd(of content: Content) throws(IOError) {
        guard let page = try Self.page(JournalStart.endPlace, of: file, path),
            let size = try JournalStart.endSize(page, identifier), content.size < size
        else { return }
        throw damaged("at \(content.size), and its run has ended with \(size) bytes")
    }

    /// Calls a function with each head of a record from a position on, in order.
    ///
    /// - Parameter isBlank: set to `false` if there is any other byte than zeros.
    private func findHeads(
        from position: Int, isBlank: inout Bool,
        _ body: (JournalRecord) throws(IOError) -> Void
    ) throws(IOError) {
        let memory = AlignedBuffer(count: 1 << 20)
        let magic = JournalRecord.magic
        var start = position
        while true {
            var count = 0
            do throws(Errno) { count = try file.readOnce(into: memory.bytes, at: start) } catch {
                throw IOError(path, "read at \(start)", error)
            }
            let found = slice(UnsafeRawBufferPointer(memory.bytes), 0, count)
            if count > 0, !isZero(found) { isBlank = false }
            guard count >= magic.count else { return }
            for offset in 0...(count - magic.count) where found[offset] == magic[0] {
                guard slice(found, offset, offset + magic.count).elementsEqual(magic),
                    let record = try record(at: start + offset)
                else { continue }
                try body(record)
            }
            start += count - magic.count + 1
        }
    }

    /// Calls a function with the old bytes of each range, the last record first, so that what was
    /// overwritten first is written last.
    ///
    /// - Parameter body: gets `nil` for zeros.
    package func replay(
        _ content: Content,
        _ body: (ByteRange, UnsafeRawBufferPointer?) throws(IOError) -> Void
    ) throws(IOError) {
        let memory = AlignedBuffer(count: JournalRecord.longestPayload)
        var position = content.last
        while position > 0 {
            guard let record = try record(at: position),
                try readPayload(of: record, at: position, into: memory.bytes)
            else {
                throw IOError(path, "read at \(position)", reason: "it has changed, or is damaged")
            }
            switch record.kind {
            case .data:
                let bytes = slice(UnsafeRawBufferPointer(memory.bytes), 0, record.payload)
                try body(record.range, bytes)
            case .zeros: try body(record.range, nil)
            case .end, .rolledBack, .growth, .rollback: break
            }
            position = record.previous
        }
    }

    /// Notes, before the first write to the target, that a rollback begins.
    ///
    /// The torn tail is cut off, so that a second rollback needs no decision about it.
    package func begin(_ content: inout Content) throws(IOError) {
        guard !content.isRollingBack || !content.torn.isEmpty else { return }
        try append(.rollback, to: &content)
        content.torn = []
        content.isRollingBack = true
    }

    /// Notes that the target is again what it was, so that a second rollback writes nothing.
    package func finish(_ content: Content) throws(IOError) {
        var content = content
        try append(.rolledBack, to: &content)
    }

    private func append(_ kind: JournalRecord.Kind, to content: inout Content) throws(IOError) {
        let record = JournalRecord(
            kind: kind, sequence: content.sequence + 1,
            range: ByteRange(offset: 0, length: 0), payload: 0, previous: content.last,
            durable: content.size, digest: [UInt8](repeating: 0, count: 32))
        let head = try record.bytes(identifier)
        let bytes = head + head
        do throws(Errno) {
            _ = try retryingInterrupts { ftruncate(file.rawValue, off_t(content.size)) }
            let memory = AlignedBuffer(count: bytes.count)
            memory.bytes.copyBytes(from: bytes)
            try file.write(
                UnsafeRawBufferPointer(slice(memory.bytes, 0, bytes.count)), at: content.size)
            try file.synchronize()
        } catch {
            throw IOError(path, "write", error)
        }
        content.last = content.size
        content.sequence = record.sequence
        content.records += 1
        content.size += record.length
    }

    private func record(at position: Int) throws(IOError) -> JournalRecord? {
        let memory = AlignedBuffer(count: JournalRecord.size)
        let bytes = slice(memory.bytes, 0, JournalRecord.size)
        guard try Self.read(file, path, into: bytes, at: position) == bytes.count else {
            return nil
        }
        return try JournalRecord(Array(bytes), identifier)
    }

    /// `false` if the payload is not what was written.
    private func readPayload(
        of record: JournalRecord, at position: Int, into memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> Bool {
        guard record.payload > 0 else { return true }
        let payload = slice(memory, 0, record.payload)
        let count = try Self.read(file, path, into: payload, at: position + JournalRecord.size)
        guard count == payload.count else { return false }
        return try sha256(of: UnsafeRawBufferPointer(payload)) == record.digest
    }

    private static func read(
        _ file: borrowing OwnedDescriptor, _ path: String,
        into memory: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(IOError) -> Int {
        do throws(Errno) { return try file.read(into: memory, at: offset) } catch {
            throw IOError(path, "read at \(offset)", error)
        }
    }
}
