// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import Synchronization

/// A target whose old bytes are in a journal, on the medium, before they are overwritten.
package final class JournaledDevice: BlockDevice {
    private let base: any BlockDevice
    private let journal: JournalWriter
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
        if size < geometry.size { try saveLong(ByteRange(size, to: geometry.size)) }
        try base.resize(to: size)
    }

    private func save(_ ranges: [ByteRange]) throws(IOError) {
        // Direct I/O needs aligned memory, also behind a ragged end.
        let count = ranges.reduce(0) { $0 + $1.length.roundedUp(to: AlignedBuffer.alignment) }
        guard count > 0, !journal.isAbandoned else { return }
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
        var offset = range.offset
        while offset < range.end {
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
    package func flush() throws(IOError) { try base.flush() }
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
