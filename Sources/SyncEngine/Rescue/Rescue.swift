// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import SystemPackage

/// Where a run saves its map.
package protocol RescueStore {
    /// Saves the map durably; everything in it that is finished is on the target's medium.
    func save(_ map: RescueMap) throws(IOError)
}

/// What a run needs to copy from a failing source with a map.
package struct Rescue {
    /// The map when the run begins; it has the size of the source.
    package var map: RescueMap
    /// Whether to begin at the end of the source.
    package var isReversed: Bool
    /// The time that a read may take; `nil` for any.
    package var readTimeout: Duration?
    /// Reads pieces of `Rescue.window(for:)` bytes.
    package var reader: any SpotReader
    package var store: any RescueStore

    package init(
        map: RescueMap, isReversed: Bool, readTimeout: Duration?, reader: any SpotReader,
        store: any RescueStore
    ) {
        self.map = map
        self.isReversed = isReversed
        self.readTimeout = readTimeout
        self.reader = reader
        self.store = store
    }

    /// Bytes of the largest piece.
    package static func window(for layout: BlockLayout) -> Int { layout.window }
}

/// The result of a rescue besides that of every run, in bytes.
package struct RescueResult: Hashable, Sendable {
    /// Finished in all runs.
    package var finished: Int
    /// Sectors that failed, each read alone.
    package var bad: Int
    /// Other bytes that are not read.
    package var open: Int
    /// Whether so many reads had no answer that the run ended.
    package var wasSilent: Bool

    package init(_ map: RescueMap, wasSilent: Bool = false) {
        finished = map.bytes(.finished)
        bad = map.bytes(.bad)
        open = map.size - finished - bad
        self.wasSilent = wasSilent
    }
}

/// Copies the unfinished areas of a map.
///
/// One thread compares and writes a piece while the reader reads the next one. A failing disk gets
/// one request at a time.
struct RescuePass: ~Copyable {
    private let rescue: Rescue
    private let source: any BlockDevice
    private let target: any BlockDevice
    private let control: RunControl
    private let comparison: BlockComparison
    private let unit: Int
    private var plan: RescuePlan
    private let memory: AlignedBuffer
    private(set) var tally = Tally()
    private(set) var differences = LowestRanges(limit: 64)
    private(set) var wasSilent = false
    private(set) var wasCancelled = false
    /// Read, but not written.
    private var unwritten: ByteRange?
    private var lastSave = ContinuousClock.now
    private var saveInterval = Self.firstInterval
    private var lastIdentityCheck = ContinuousClock.now

    /// The interval doubles from the first one to the longest one.
    private static var firstInterval: Duration { .milliseconds(100) }
    private static var longestInterval: Duration { .seconds(5) }
    /// Reads without an answer that the run ends with.
    private static let mostOpenReads = 8

    init(
        _ rescue: Rescue, source: any BlockDevice, target: any BlockDevice, layout: BlockLayout,
        control: RunControl
    ) {
        precondition(rescue.map.size == source.geometry.size)
        self.rescue = rescue
        self.source = source
        self.target = target
        self.control = control
        comparison = BlockComparison(layout: layout)
        unit = leastCommonMultiple(
            max(source.geometry.logicalSector, source.geometry.alignment),
            max(1, target.geometry.alignment))
        let window = Rescue.window(for: layout).roundedUp(to: unit)
        plan = RescuePlan(
            rescue.map, unit: unit, window: window, isReversed: rescue.isReversed)
        memory = AlignedBuffer(count: max(window, unit))
    }

    var map: RescueMap { plan.map }

    /// Works until nothing is left to try, or the run is cancelled.
    ///
    /// In each case the map is saved at the end, unless the target could not be flushed.
    mutating func run() throws(IOError) {
        let before = plan.map.bytes(.finished)
        tally.unchanged = before
        control.advance(done: before, different: 0)
        try checkSamples()
        // A map that cannot be written must end the run before it has written anything else.
        try rescue.store.save(plan.map)
        do throws(IOError) {
            try copy()
        } catch {
            // The first error is the one to report.
            try? save()
            throw error
        }
        try save()
    }

    private mutating func copy() throws(IOError) {
        guard var piece = plan.next() else { return }
        rescue.reader.start(piece)
        while true {
            let deadline = rescue.readTimeout.map { ContinuousClock.now + $0 }
            let answer = rescue.reader.wait(until: deadline) { [control] in control.isCancelled }
            var read: UnsafeMutableRawBufferPointer?
            switch answer {
            case .bytes(let bytes):
                plan.note(.read)
                unwritten = piece
                read = bytes
            case .failed(let error):
                guard error.isMediumError || error.errno == .timedOut else { throw error }
                try checkIdentity()
                plan.note(.failed)
            case .late:
                plan.note(.late)
                guard waitForOpenReads() else {
                    wasSilent = !control.isCancelled
                    wasCancelled = control.isCancelled
                    return
                }
            case .cancelled:
                wasCancelled = true
                return
            }
            let next = control.isCancelled ? nil : plan.next()
            if let next { rescue.reader.start(next) }
            if let read { try write(read, at: piece) }
            try saveIfDue()
            guard let next else {
                wasCancelled = control.isCancelled
                return
            }
            piece = next
        }
    }

    /// A source that is gone fails everywhere, which says nothing about its sectors.
    private mutating func checkIdentity() throws(IOError) {
        guard ContinuousClock.now - lastIdentityCheck > .seconds(1) else { return }
        try source.checkIdentity()
        lastIdentityCheck = .now
    }

    /// Waits, for the timeout of one more read, until not too many reads are without an answer.
    private func waitForOpenReads() -> Bool {
        let end = ContinuousClock.now + (rescue.readTimeout ?? .zero)
        while rescue.reader.openReads >= Self.mostOpenReads {
            guard pause(for: .milliseconds(100), unless: { control.isCancelled }),
                ContinuousClock.now < end
            else { return false }
        }
        return true
    }

    /// Writes what differs of a piece that was read.
    private mutating func write(
        _ bytes: UnsafeMutableRawBufferPointer, at range: ByteRange
    ) throws(IOError) {
        let own = slice(memory.bytes, 0, range.length)
        var isUnreadable = false
        do throws(IOError) { try target.read(into: own, at: range.offset) } catch {
            // A disk replaces a bad sector when it is written.
            guard error.isMediumError else { throw error }
            isUnreadable = true
        }
        var extents: [Extent] = []
        let content = UnsafeRawBufferPointer(bytes)
        if isUnreadable {
            comparison.everything(
                source: content, range: range, targetIsZero: false, into: &extents)
            tally.rewritten += range.length
        } else {
            tally.targetRead += range.length
            comparison.differences(
                source: content, target: UnsafeRawBufferPointer(own), range: range, into: &extents)
        }
        let done = target.attempt(extents, of: bytes, at: range.offset)
        for (index, extent) in extents.enumerated() {
            let place = extent.range
            switch extent.kind {
            case .data:
                if !done[index] {
                    let start = place.offset - range.offset
                    try target.write(
                        slice(content, start, start + place.length), at: place.offset)
                }
                tally.written += place.length
            case .zero:
                if !done[index] { try target.zero(place) }
                tally.zeroed += place.length
            }
            tally.extents += 1
            tally.different += place.length
            tally.differentBlocks += comparison.layout.blocks(in: place)
            differences.insertUnlessKnown(place)
        }
        unwritten = nil
        control.advance(done: range.length, different: extents.reduce(0) { $0 + $1.range.length })
    }

    private mutating func saveIfDue() throws(IOError) {
        guard ContinuousClock.now - lastSave >= saveInterval else { return }
        let start = ContinuousClock.now
        try save()
        // A large map or a slow flush takes a twentieth of the time at most.
        let spent = ContinuousClock.now - start
        saveInterval = max(min(saveInterval * 2, Self.longestInterval), spent * 20)
        lastSave = .now
    }

    /// Flushes the target, and then saves the map that claims what was written.
    private mutating func save() throws(IOError) {
        var map = plan.map
        if let unwritten { map.set(unwritten, to: .untried) }
        try target.flush()
        try rescue.store.save(map)
    }

    /// Compares some finished places, since a map of another target would leave a wrong replica.
    ///
    /// A place of the source that cannot be read any more is left out.
    private mutating func checkSamples() throws(IOError) {
        for place in Self.samples(of: plan.map, unit: unit) {
            if control.isCancelled || rescue.reader.openReads > 1 { return }
            rescue.reader.start(place)
            let deadline = rescue.readTimeout.map { ContinuousClock.now + $0 }
            guard
                case .bytes(let bytes) = rescue.reader.wait(
                    until: deadline, unless: { [control] in control.isCancelled })
            else { continue }
            let own = slice(memory.bytes, 0, place.length)
            try target.read(into: own, at: place.offset)
            guard !own.elementsEqual(bytes) else { continue }
            throw .refusal(
                .changed, target.name,
                "it differs from \(source.name) at \(place), which the map says is copied",
                advice: "Another target needs another map. If the source has changed, remove the "
                    + "map, and run it again.")
        }
    }

    private static let sampleCount = 32

    /// Units of the finished areas, one at random in each of equal shares; ascending.
    private static func samples(of map: RescueMap, unit: Int) -> [ByteRange] {
        let whole = map.ranges(.finished).compactMap { range -> ByteRange? in
            let start = range.offset.roundedUp(to: unit)
            let end = range.end == map.size ? range.end : range.end / unit * unit
            return start < end ? ByteRange(start, to: end) : nil
        }
        let total = whole.reduce(0) { $0 + $1.length }
        guard total > 0 else { return [] }
        let share = max(unit, total / sampleCount)
        var wanted = stride(from: 0, to: total, by: share).map { start in
            Int.random(in: start..<min(start + share, total))
        }[...]
        var places: [ByteRange] = []
        var before = 0
        for range in whole {
            while let next = wanted.first, next < before + range.length {
                wanted.removeFirst()
                let start = (range.offset + next - before) / unit * unit
                places.append(ByteRange(start, to: min(start + unit, range.end)))
            }
            before += range.length
        }
        return places
    }
}

extension LowestRanges {
    /// Inserts a range unless some of it was inserted before, by an earlier piece.
    fileprivate mutating func insertUnlessKnown(_ range: ByteRange) {
        if !ranges.contains(where: range.overlaps) { insert(range) }
    }
}
