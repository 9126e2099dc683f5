// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import Synchronization

/// A target whose old bytes are in a journal, on the medium, before they are overwritten.
///
/// Without a journal it calls a function before the first write.
package final class JournaledDevice: BlockDevice {
    private let base: any BlockDevice
    private let journal: JournalWriter?
    private let begin: @Sendable () throws(IOError) -> Void
    /// Whether `begin` has returned.
    private let hasBegun = Guarded(false)
    /// Memory for old bytes, for as many threads as write at once.
    private let idle = Mutex<[Memory]>([])

    /// Ranges that are saved and not yet written; writing them needs no other record.
    private let saved = Mutex<Set<ByteRange>>([])

    private final class Memory: Sendable {
        let buffer: AlignedBuffer
        init(_ count: Int) { buffer = AlignedBuffer(count: count) }
    }

    /// Bytes of one record at most, in a range that is zeroed or cut off.
    private static let piece = 4 << 20

    package init(_ base: any BlockDevice, _ journal: JournalWriter) {
        self.base = base
        self.journal = journal
        begin = {}
    }

    /// - Parameter begin: called before the first write, and again if it throws.
    package init(
        _ base: any BlockDevice, begin: @escaping @Sendable () throws(IOError) -> Void
    ) {
        self.base = base
        journal = nil
        self.begin = begin
    }

    private func start() throws(IOError) {
        try hasBegun.withLock { hasBegun throws(IOError) in
            guard !hasBegun else { return }
            do throws(IOError) { try begin() } catch {
                var error = error
                error.kind = .journal
                throw error
            }
            hasBegun = true
        }
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        let range = ByteRange(offset: offset, length: buffer.count)
        if saved.withLock({ $0.remove(range) }) == nil { try save([range]) }
        try base.write(buffer, at: offset)
    }

    package func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        guard direction == .write else { return base.attempt(transfers, direction) }
        let ranges = transfers.map { ByteRange(offset: $0.offset, length: $0.memory.count) }
        // The caller writes one by one then, and learns the error.
        guard (try? save(ranges)) != nil else { return transfers.map { _ in false } }
        let done = base.attempt(transfers, direction)
        let rest = zip(ranges, done).filter { !$0.1 }.map(\.0)
        if !rest.isEmpty { saved.withLock { $0.formUnion(rest) } }
        return done
    }

    package func zero(_ range: ByteRange) throws(IOError) {
        try saveLong(range)
        try base.zero(range)
    }

    package func resize(to size: Int) throws(IOError) {
        let now = geometry.size
        try start()
        if size < now {
            // Direct I/O reads whole units. Of a byte that is saved twice, the first record counts.
            // But what the run has written to the unit has to be on the medium: after a power cut
            // the second record would otherwise look damaged, not torn.
            let unit = max(geometry.alignment, 1)
            if !size.isMultiple(of: unit) { try flush() }
            try saveLong(ByteRange(size / unit * unit, to: now))
        }
        if size > now { try journal?.saveSize(now) }
        try base.resize(to: size)
    }

    /// Flushes, and saves first what the flush may zero behind the replica.
    package func flush() throws(IOError) {
        if let tail = base.zeroedByFlush { try saveNonzero(tail) }
        try base.flush()
    }

    /// Saves the pieces of a range that are not zeros.
    private func saveNonzero(_ range: ByteRange) throws(IOError) {
        let unit = max(geometry.alignment, 1)
        var offset = range.offset / unit * unit
        let end = min(range.end.roundedUp(to: unit), geometry.size)
        while offset < end {
            let piece = ByteRange(offset, to: min(offset + (1 << 20).roundedUp(to: unit), end))
            let memory = take(piece.length)
            defer { idle.withLock { $0.append(memory) } }
            let bytes = slice(memory.buffer.bytes, 0, piece.length)
            try base.read(into: bytes, at: piece.offset)
            if !isZero(UnsafeRawBufferPointer(bytes)) { try save([piece]) }
            offset = piece.end
        }
    }

    private func save(_ ranges: [ByteRange]) throws(IOError) {
        // A window without a difference asks for no transfer.
        guard ranges.contains(where: { !$0.isEmpty }) else { return }
        try start()
        guard let journal, !journal.isAbandoned else { return }
        // What the run has added is cut off again, or is of no use.
        let ranges = ranges.filter { $0.offset < journal.originalSize }
        // Direct I/O needs aligned memory, also behind a ragged end.
        let count = ranges.reduce(0) { $0 + $1.length.roundedUp(to: AlignedBuffer.alignment) }
        guard count > 0 else { return }
        let memory = take(count)
        defer { idle.withLock { $0.append(memory) } }
        var transfers: [Transfer] = []
        var place = 0
        for range in ranges {
            transfers.append(
                Transfer(
                    into: slice(memory.buffer.bytes, place, place + range.length),
                    at: range.offset))
            place += range.length.roundedUp(to: AlignedBuffer.alignment)
        }
        try base.read(transfers)
        try journal.save(
            transfers.map { transfer in
                let bytes = UnsafeRawBufferPointer(transfer.memory)
                return .init(
                    offset: transfer.offset, length: bytes.count,
                    bytes: isZero(bytes) ? nil : bytes)
            })
    }

    /// Saves a range of any length, of whose holes nothing is read.
    private func saveLong(_ range: ByteRange) throws(IOError) {
        guard !range.isEmpty else { return }
        try start()
        guard let journal, !journal.isAbandoned else { return }
        var offset = range.offset
        while offset < min(range.end, journal.originalSize) {
            let data = try base.nextData(from: offset)
            let start = min(data?.offset ?? range.end, range.end)
            if start > offset {
                try journal.save([.init(offset: offset, length: start - offset, bytes: nil)])
                offset = start
                continue
            }
            let end = min(data?.end ?? range.end, range.end, offset + Self.piece)
            // Units that a run of data ends in are read whole.
            let unit = geometry.alignment
            let whole = min(end.roundedUp(to: unit), range.end)
            try save([ByteRange(offset, to: whole)])
            offset = whole
        }
    }

    /// Memory for ranges with so many bytes, each at the start of a page.
    private func take(_ count: Int) -> Memory {
        if let memory = idle.withLock({ idle in
            idle.firstIndex { $0.buffer.count >= count }.map { idle.remove(at: $0) }
        }) {
            return memory
        }
        return Memory(count)
    }

    package var name: String { base.name }
    package var geometry: Geometry { base.geometry }
    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try base.read(into: buffer, at: offset)
    }
    package var shortZeros: Int { base.shortZeros }
    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        try base.nextData(from: offset)
    }
    package var zeroedByFlush: ByteRange? { base.zeroedByFlush }
    package func checkIdentity() throws(IOError) { try base.checkIdentity() }
    package func hasForeignWrites() -> Bool { base.hasForeignWrites() }
    package func hadOtherWriters() -> Bool { base.hadOtherWriters() }
    package var reportsForeignWrites: Bool { base.reportsForeignWrites }
    package func changeCounter() -> ChangeCounter? { base.changeCounter() }
    package func persistentChangeCounter() -> ChangeCounter? { base.persistentChangeCounter() }
    package var reasonForNoCounter: String? { base.reasonForNoCounter }
    package var isImage: Bool { base.isImage }
    package var isDirect: Bool { base.isDirect }
    package var isFlushable: Bool { base.isFlushable }
    package var preferredBlock: Int? { base.preferredBlock }
    package var fileStatus: FileStatus? { base.fileStatus }
    package var snapshot: String? { base.snapshot }
    package func takeRestart() -> Bool { base.takeRestart() }
    package func release(isComplete: Bool) -> [String] { base.release(isComplete: isComplete) }
    package func leave() { base.leave() }
}
