// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import Glibc
package import LinuxIO

/// Compares a result with its base, and writes the delta that leads from one to the other.
///
/// Both are read once, from start to end, so that the digests are those of what is in the delta.
package struct DeltaMaker: Sendable {
    private let result: any BlockDevice
    private let base: any BlockDevice
    private let names: (result: String, base: String)
    /// Bytes.
    private let block: Int
    private let directory: String
    private let mayDiffer: @Sendable (ByteRange) -> Bool
    private let isCancelled: @Sendable () -> Bool

    package struct Summary: Hashable, Sendable {
        package var statement: DeltaStatement
        /// Of the delta in bytes.
        package var length: Int
        /// Bytes of the base that were not read, because the change map excludes them.
        package var unread: Int
    }

    /// - Parameters:
    ///   - block: the unit of comparison in bytes, a multiple of 512 that divides 4 MiB.
    ///   - directory: for a temporary file.
    ///   - mayDiffer: whether a range may differ; other ranges of the base are not read.
    package init(
        result: any BlockDevice, base: any BlockDevice, names: (result: String, base: String),
        block: Int, directory: String,
        mayDiffer: @escaping @Sendable (ByteRange) -> Bool = { _ in true },
        isCancelled: @escaping @Sendable () -> Bool
    ) {
        precondition(
            block.isMultiple(of: UnitProof.usualUnit) && WindowStream.length.isMultiple(of: block))
        self.result = result
        self.base = base
        self.names = names
        self.block = block
        self.directory = directory
        self.mayDiffer = mayDiffer
        self.isCancelled = isCancelled
    }

    /// Whether a delta can have blocks of this many bytes.
    package static func isBlock(_ bytes: Int) -> Bool {
        bytes >= UnitProof.usualUnit && bytes.isMultiple(of: UnitProof.usualUnit)
            && WindowStream.length.isMultiple(of: bytes)
    }

    /// Writes the delta; if it throws, the sink has no complete one.
    ///
    /// - Parameter check: called before the delta is completed; what it throws prevents that.
    package func write(
        to sink: DeltaSink, check: () throws(IOError) -> Void = {}
    ) throws(IOError) -> Summary {
        let (newSize, oldSize) = (result.geometry.size, base.geometry.size)
        let writer = try DeltaWriter(sink, size: newSize, directory: directory)
        let both = min(newSize, oldSize)
        let news = WindowStream(result, size: newSize)
        let olds = WindowStream(base, size: oldSize) { [mayDiffer] in
            $0.end > both || mayDiffer($0)
        }
        defer {
            news.stop()
            olds.stop()
        }
        var digests = try Digests()
        let tail = newSize < oldSize ? try RunningDigest() : nil
        var unread = 0
        var start = 0
        while start < max(newSize, oldSize) {
            if isCancelled() { throw Self.cancelled(names.result) }
            let range = ByteRange(
                start, to: min(start + WindowStream.length, max(newSize, oldSize)))
            let pair = Pair(
                range: range, newSize: newSize, oldSize: oldSize, new: try news.next()?.content,
                old: try olds.next()?.content)
            if pair.isUnread { unread += range.length }
            try digests.add(pair) { () throws(IOError) in
                try pair.forEachDifference(block) { range, bytes, old throws(IOError) in
                    try writer.add(range, bytes, base: old)
                }
                if let tail, range.end > newSize { try pair.addTail(to: tail) }
            }
            start = range.end
        }
        try check()
        try writer.end()
        let (newDigest, oldDigest) = try digests.finish()
        let statement = DeltaStatement(
            base: .init(name: names.base, size: oldSize, digest: oldDigest),
            baseDigest: .sha256,
            result: .init(name: names.result, size: newSize, digest: newDigest),
            unit: UnitProof.usualUnit, proof: UnitProof.usualSize,
            tail: try tail?.finishAsText(),
            records: writer.records, data: writer.data, zeros: writer.zeros, made: time(nil))
        return Summary(statement: statement, length: try writer.finish(statement), unread: unread)
    }

    static func cancelled(_ name: String) -> IOError {
        var error = IOError(name, "diff", reason: "interrupted, no delta was made")
        error.kind = .cancelled
        return error
    }
}

extension DeltaMaker {
    /// Both digests, which are one as long as both devices have the same bytes.
    private struct Digests {
        let new: RunningDigest
        var old: RunningDigest?

        init() throws(IOError) { new = try RunningDigest() }

        /// Adds a window, and works on it meanwhile.
        mutating func add(
            _ pair: Pair, meanwhile work: () throws(IOError) -> Void
        ) throws(IOError) {
            if old == nil, !pair.isEqual { old = try new.copy() }
            let failure = Guarded<IOError?>(nil)
            let thread = old.map { old in
                Threads.start(count: 1) { _ in
                    do throws(IOError) { try pair.addOld(to: old) } catch {
                        failure.withLock { $0 = error }
                    }
                }
            }
            let result = Result { () throws(IOError) in
                try pair.addNew(to: new)
                try work()
            }
            if let thread { thread.wait() }
            try result.get()
            if let error = failure.withLock({ $0 }) { throw error }
        }

        /// In hexadecimal.
        func finish() throws(IOError) -> (new: String, old: String) {
            let old = try old?.finishAsText()
            let new = try new.finishAsText()
            return (new, old ?? new)
        }
    }
}

/// The same window of the result and of the base.
///
/// It is safe to send, because its memory stays until the next window is taken.
private struct Pair: @unchecked Sendable {
    let range: ByteRange
    let newCount: Int
    let oldCount: Int
    let isUnread: Bool
    /// `nil` for zeros; padded with zeros.
    private let new: UnsafeRawBufferPointer?
    private let old: UnsafeRawBufferPointer?
    let isEqual: Bool

    init(
        range: ByteRange, newSize: Int, oldSize: Int, new: WindowStream.Content?,
        old: WindowStream.Content?
    ) {
        self.range = range
        newCount = max(0, min(newSize - range.offset, range.length))
        oldCount = max(0, min(oldSize - range.offset, range.length))
        self.new = Self.bytes(new)
        if case .skipped = old {
            isUnread = true
            self.old = self.new
        } else {
            isUnread = false
            self.old = Self.bytes(old)
        }
        isEqual =
            newCount == oldCount
            && (isUnread || Self.areEqual(self.new, self.old, 0, range.length))
    }

    private static func bytes(_ content: WindowStream.Content?) -> UnsafeRawBufferPointer? {
        if case .data(let bytes)? = content { bytes } else { nil }
    }

    private static func areEqual(
        _ first: UnsafeRawBufferPointer?, _ second: UnsafeRawBufferPointer?, _ start: Int,
        _ end: Int
    ) -> Bool {
        switch (first, second) {
        case (nil, nil): return true
        case (let bytes?, nil), (nil, let bytes?): return isZero(slice(bytes, start, end))
        case (let first?, let second?):
            guard let one = first.baseAddress, let other = second.baseAddress else { return true }
            return memcmp(one + start, other + start, end - start) == 0
        }
    }

    func addNew(to digest: RunningDigest) throws(IOError) { try add(new, newCount, to: digest) }
    func addOld(to digest: RunningDigest) throws(IOError) { try add(old, oldCount, to: digest) }

    private func add(
        _ bytes: UnsafeRawBufferPointer?, _ count: Int, to digest: RunningDigest
    ) throws(IOError) {
        if let bytes { try digest.add(slice(bytes, 0, count)) } else { try digest.addZeros(count) }
    }

    /// Adds what the base has behind the end of the result.
    func addTail(to digest: RunningDigest) throws(IOError) {
        guard oldCount > newCount else { return }
        guard let old else { return try digest.addZeros(oldCount - newCount) }
        try digest.add(slice(old, newCount, oldCount))
    }

    /// Calls a function with runs of blocks that differ, of data or of zeros.
    ///
    /// Everything behind the end of the base counts as different, since a target may have anything
    /// there.
    func forEachDifference(
        _ block: Int,
        _ body: (ByteRange, UnsafeRawBufferPointer?, UnsafeRawBufferPointer?) throws(IOError) ->
            Void
    ) throws(IOError) {
        if isEqual { return }
        var run: (start: Int, end: Int, isZero: Bool)?
        func close() throws(IOError) {
            guard let found = run else { return }
            run = nil
            try body(
                ByteRange(range.offset + found.start, to: range.offset + found.end),
                found.isZero ? nil : new.map { slice($0, found.start, found.end) },
                old.map { slice($0, found.start, found.end) })
        }
        var start = 0
        while start < newCount {
            let end = min(start + block, newCount)
            if end <= oldCount, Self.areEqual(new, old, start, end) {
                try close()
            } else {
                let isZeroed = new.map { isZero(slice($0, start, end)) } ?? true
                if let found = run, found.isZero == isZeroed {
                    run = (found.start, end, isZeroed)
                } else {
                    try close()
                    run = (start, end, isZeroed)
                }
            }
            start = end
        }
        try close()
    }
}
