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
    private let file: OwnedDescriptor
    private let identifier: [UInt8]

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
        fileprivate var size = JournalStart.size
        fileprivate var sequence: UInt64 = 0
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
        let start = AlignedBuffer(count: JournalStart.size)
        guard try Self.read(file, path, into: start.bytes, at: 0) == JournalStart.size else {
            throw .refusal(.wrongKind, path, "it is no undo journal of blkferry")
        }
        (header, identifier) = try JournalStart.read(Array(start.bytes[..<JournalStart.size]), path)
    }

    /// Reads and checks everything.
    ///
    /// The power may have been cut while the last records were written, before the target was. Such
    /// a torn tail is ignored. Damage before it is found, because each record says how much of the
    /// journal was on the medium before.
    ///
    /// - Throws: a refusal if the journal is damaged or incomplete.
    package func content(unless isCancelled: () -> Bool) throws(IOError) -> Content {
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
            case .abandoned:
                throw .refusal(
                    .wrongKind, path,
                    "it is incomplete: it had reached its limit, and the run went on without it")
            case .zeros, .rolledBack: break
            }
            content.last = content.size
            content.sequence = record.sequence
            content.records += 1
            content.size += JournalRecord.size + record.payload
        }
        try checkTail(after: content.size)
        return content
    }

    private var cancelled: IOError {
        var error = IOError(path, "read", reason: "interrupted")
        error.kind = .cancelled
        return error
    }

    /// Throws if a later record proves that the bytes at a position were on the medium.
    private func checkTail(after position: Int) throws(IOError) {
        let memory = AlignedBuffer(count: 1 << 20)
        let magic = JournalRecord.magic
        var start = position
        while true {
            var count = 0
            do throws(Errno) { count = try file.readOnce(into: memory.bytes, at: start) } catch {
                throw IOError(path, "read at \(start)", error)
            }
            guard count >= magic.count else { return }
            let found = UnsafeRawBufferPointer(memory.bytes)
            for offset in 0...(count - magic.count) where found[offset] == magic[0] {
                guard slice(found, offset, offset + magic.count).elementsEqual(magic),
                    let record = try record(at: start + offset), record.durable > position
                else { continue }
                throw .refusal(
                    .wrongKind, path, "it is damaged at \(position), and cannot be used",
                    advice: "Its device or file system may be faulty.")
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
            case .end, .abandoned, .rolledBack: break
            }
            position = record.previous
        }
    }

    /// Notes that the target is again what it was, so that nobody rolls it back twice.
    package func finish(_ content: Content) throws(IOError) {
        let record = JournalRecord(
            kind: .rolledBack, sequence: content.sequence + 1,
            range: ByteRange(offset: 0, length: 0), payload: 0, previous: content.last,
            durable: content.size, digest: [UInt8](repeating: 0, count: 32))
        let bytes = try record.bytes(identifier)
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
