// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// One thread's share of a pass.
struct Worker: ~Copyable {
    private(set) var tally = Tally()
    private let pass: Pass
    private let index: Int
    private let comparison: BlockComparison
    private let sourceBuffer: UnsafeMutableRawBufferPointer
    private let targetBuffer: UnsafeMutableRawBufferPointer
    private var extents: [Extent] = []

    /// Bytes for a window of each side, in whole pages.
    static func memory(for layout: BlockLayout) -> Int { 2 * room(for: layout) }

    private static func room(for layout: BlockLayout) -> Int {
        let page = AlignedBuffer.alignment
        return (layout.window + page - 1) / page * page
    }

    /// - Parameters:
    ///   - index: of the thread, from 0.
    ///   - memory: must outlive the worker, and be aligned for both devices.
    init(_ pass: Pass, _ index: Int, memory: UnsafeMutableRawBufferPointer) {
        self.pass = pass
        self.index = index
        comparison = BlockComparison(layout: pass.layout)
        let room = Self.room(for: pass.layout)
        // A whole copy reads nothing of the target, and its windows may be longer.
        sourceBuffer = UnsafeMutableRawBufferPointer(
            rebasing: memory[..<(pass.mode == .replace ? 2 * room : room)])
        targetBuffer = UnsafeMutableRawBufferPointer(rebasing: memory[room..<2 * room])
    }

    mutating func run() {
        while let window = pass.next(for: index) {
            let before = pass.recordsDone ? tally : Tally()
            do throws(IOError) {
                try process(window)
                pass.note([window], from: before, to: tally)
            } catch {
                // A user who cancels waits neither for a bad block nor for a lost server.
                if pass.control.isCancelled && (error.isMediumError || error.isNetwork) { return }
                pass.fail(error)
            }
        }
    }

    mutating func process(_ window: Window) throws(IOError) {
        let range = window.range
        var source: UnsafeMutableRawBufferPointer?
        var leftOut: [ByteRange] = []
        var rewritten: [ByteRange] = []
        if !window.sourceIsHole {
            let bytes = slice(sourceBuffer, 0, range.length)
            leftOut = try readSource(range, into: bytes)
            source = bytes
        }

        extents.removeAll(keepingCapacity: true)
        if pass.mode == .replace {
            if let source { fill(leftOut, of: range, in: source) { _ in 0 } }
            comparison.everything(
                source: source.map { UnsafeRawBufferPointer($0) }, range: range,
                targetIsZero: window.targetIsHole, into: &extents)
        } else {
            var target: UnsafeMutableRawBufferPointer?
            if !window.targetIsHole {
                let bytes = slice(targetBuffer, 0, range.length)
                rewritten = try readTarget(range, into: bytes, source: source)
                target = bytes
                tally.targetRead += range.length - leftOut.reduce(0) { $0 + $1.length }
            }
            if let source { fill(leftOut, of: range, in: source) { target?[$0] ?? 0 } }
            comparison.differences(
                source: source.map { UnsafeRawBufferPointer($0) },
                target: target.map { UnsafeRawBufferPointer($0) }, range: range, into: &extents)
        }
        if !leftOut.isEmpty { extents = extents.subtracting(leftOut) }
        pass.note(different: extents, unreadable: leftOut)

        let different = extents.reduce(0) { $0 + $1.range.length }
        tally.compared += range.length
        tally.different += different
        for extent in extents {
            tally.differentBlocks += pass.layout.blocks(in: extent.range)
        }
        for range in leftOut { tally.unreadable += range.length }
        if pass.mode != .compare { apply(source, at: range, rewriting: rewritten) }
        pass.control.advance(done: range.length, different: different)
    }

    /// Writes the extents that differ, and continues after a failed write.
    ///
    /// - Parameter bad: ranges of the target that could not be read.
    private mutating func apply(
        _ source: UnsafeMutableRawBufferPointer?, at window: ByteRange, rewriting bad: [ByteRange]
    ) {
        if let remote = pass.target.remote {
            return send(source, at: window, to: remote, rewriting: bad)
        }
        let done = pass.target.attempt(extents, of: source, at: window.offset)
        for (index, extent) in extents.enumerated() {
            let range = extent.range
            do throws(IOError) {
                switch extent.kind {
                case .data:
                    if !done[index], let source {
                        let start = range.offset - window.offset
                        try pass.target.write(
                            UnsafeRawBufferPointer(slice(source, start, start + range.length)),
                            at: range.offset)
                    }
                    tally.written += range.length
                case .zero:
                    if !done[index] { try pass.target.zero(range) }
                    tally.zeroed += range.length
                }
                tally.extents += 1
                countRewritten(range, of: bad)
            } catch {
                pass.note(writeError: error, in: &tally)
            }
        }
    }

    private mutating func send(
        _ source: UnsafeMutableRawBufferPointer?, at window: ByteRange, to target: any RemoteDevice,
        rewriting bad: [ByteRange]
    ) {
        do throws(IOError) {
            let extents = extents
            try pass.timed { () throws(IOError) in
                try target.write(
                    extents, of: source.map { UnsafeRawBufferPointer($0) }, at: window.offset)
            }
        } catch {
            guard error.isNetwork else { return tally.addWriteError(error) }
            // The run must count as incomplete.
            tally.compared -= window.length
            // A user who cancels does not wait for a lost server.
            if !pass.control.isCancelled { pass.fail(error) }
            return
        }
        for extent in extents {
            tally.extents += 1
            countRewritten(extent.range, of: bad)
            switch extent.kind {
            case .data: tally.written += extent.range.length
            case .zero: tally.zeroed += extent.range.length
            }
        }
    }

    private mutating func countRewritten(_ range: ByteRange, of bad: [ByteRange]) {
        for bad in bad { tally.rewritten += bad.intersection(range)?.length ?? 0 }
    }

    /// Reads a window of the source, and returns the unreadable ranges, extended to the target's
    /// alignment.
    private func readSource(
        _ range: ByteRange, into bytes: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> [ByteRange] {
        do throws(IOError) {
            try pass.source.read(into: bytes, at: range.offset)
            return []
        } catch {
            guard error.isMediumError && pass.skipsUnreadable else { throw error }
        }
        let bad = try readAround(range, of: pass.source, into: bytes)
        return bad.rounded(to: pass.target.geometry.alignment, limit: range.end)
    }

    /// Reads a window of the target, and returns the unreadable ranges.
    ///
    /// They are filled so that they differ and are written, because a disk replaces a bad sector
    /// then.
    private func readTarget(
        _ range: ByteRange, into bytes: UnsafeMutableRawBufferPointer,
        source: UnsafeMutableRawBufferPointer?
    ) throws(IOError) -> [ByteRange] {
        do throws(IOError) {
            try pass.target.read(into: bytes, at: range.offset)
            return []
        } catch {
            guard error.isMediumError && pass.mode != .compare else { throw error }
        }
        let bad = try readAround(range, of: pass.target, into: bytes)
        fill(bad, of: range, in: bytes) { ~(source?[$0] ?? 0) }
        return bad
    }

    /// Reads a range by halving it around bad sectors, and returns these.
    private func readAround(
        _ range: ByteRange, of device: any BlockDevice, into bytes: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> [ByteRange] {
        let unit = max(device.geometry.logicalSector, device.geometry.alignment)
        var bad: [ByteRange] = []
        var open = [range]
        while let part = open.popLast() {
            let start = part.offset - range.offset
            do throws(IOError) {
                try device.read(into: slice(bytes, start, start + part.length), at: part.offset)
            } catch {
                guard error.isMediumError else { throw error }
                // Each attempt can take many seconds on a failing disk.
                if pass.control.isCancelled { throw error }
                if part.length <= unit {
                    bad.append(part)
                    continue
                }
                let half = (part.length / 2 + unit - 1) / unit * unit
                open.append(ByteRange(part.offset + half, to: part.end))
                open.append(ByteRange(offset: part.offset, length: half))
            }
        }
        return bad.rounded(to: unit, limit: range.end)
    }

    private func fill(
        _ ranges: [ByteRange], of window: ByteRange, in bytes: UnsafeMutableRawBufferPointer,
        with byte: (_ index: Int) -> UInt8
    ) {
        for range in ranges {
            for index in (range.offset - window.offset)..<(range.end - window.offset) {
                bytes[index] = byte(index)
            }
        }
    }
}
