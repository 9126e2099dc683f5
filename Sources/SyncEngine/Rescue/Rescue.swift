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

    /// Compares some finished places as a run does before its first write, and only reads.
    ///
    /// - Parameter target: at least as long as the last finished area.
    package func check(
        source: any BlockDevice, target: any BlockDevice, layout: BlockLayout, control: RunControl
    ) throws(IOError) {
        let pass = RescuePass(
            self, source: source, target: target, layout: layout, control: control)
        try pass.checkSamples()
    }
}

/// The result of a rescue besides that of every run, in bytes of the last map that was saved.
package struct RescueResult: Hashable, Sendable {
    /// Finished in all runs.
    package var finished: Int
    /// Sectors that failed, each read alone.
    package var bad: Int
    /// Other bytes that are not read.
    package var open: Int
    /// Whether so many reads had no answer that the run ended.
    package var wasSilent: Bool
    /// Whether the target could not be flushed, so that another flush would prove nothing.
    package var hasFailedFlush: Bool

    package init(_ map: RescueMap, wasSilent: Bool = false, hasFailedFlush: Bool = false) {
        finished = map.bytes(.finished)
        bad = map.bytes(.bad)
        open = map.size - finished - bad
        self.wasSilent = wasSilent
        self.hasFailedFlush = hasFailedFlush
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
    private(set) var hasFailedFlush = false
    /// The last map that was saved, or the one from before the run.
    private(set) var saved: RescueMap
    /// Read, but not written.
    private var unwritten: ByteRange?
    private var lastSave = ContinuousClock.now
    private var saveInterval = Self.firstInterval
    private var lastIdentityCheck = ContinuousClock.now
    /// What failed since the last good identity check, with the status before; it may have failed
    /// because the source is gone.
    private var doubtful: [RescueMap.Area] = []

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
        saved = rescue.map
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

    /// Works until nothing is left to try, or the run is cancelled.
    ///
    /// In each case the map is saved at the end, unless a flush of the target has failed.
    mutating func run() throws(IOError) {
        let before = plan.map.bytes(.finished)
        tally.unchanged = before
        control.advance(done: before, different: 0)
        try checkSamples()
        // A map that cannot be written must end the run before it has written anything else.
        try rescue.store.save(plan.map)
        saved = plan.map
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
                let before = plan.map.status(at: piece.offset) ?? .untried
                doubtful.append(
                    RescueMap.Area(piece, before == .finished ? .untried : before))
                plan.note(.failed)
                if ContinuousClock.now - lastIdentityCheck > .seconds(1) { try checkIdentity() }
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
        try source.checkIdentity()
        lastIdentityCheck = .now
        doubtful = []
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
    ///
    /// The kernel reports lost writes once, so nothing is saved after a failed flush.
    private mutating func save() throws(IOError) {
        if hasFailedFlush { return }
        var loss: IOError?
        if !doubtful.isEmpty {
            do throws(IOError) { try checkIdentity() } catch { loss = error }
        }
        var map = plan.map
        if let unwritten { map.set(unwritten, to: .untried) }
        // The first of several failures of a place has the status from before.
        for area in doubtful.reversed() { map.reset(area.range, to: area.status) }
        do throws(IOError) { try target.flush() } catch {
            hasFailedFlush = true
            throw error
        }
        try rescue.store.save(map)
        saved = map
        if let loss { throw loss }
    }

    /// Compares some finished places, since a map of another target would leave a wrong replica.
    ///
    /// Zeros on both sides are what an empty target has, too, so more places are compared then.
    func checkSamples() throws(IOError) {
        var proofs = 0
        for _ in 0..<Self.mostSampleRounds {
            let places = rescue.map.samples(Self.sampleCount, unit: unit)
            for place in places {
                if control.isCancelled || rescue.reader.openReads > 1 { return }
                if try isProof(place) { proofs += 1 }
            }
            // Fewer places are all that there are.
            if proofs >= Self.enoughProofs || places.count < Self.sampleCount { return }
        }
    }

    /// Whether a place is equal and has more than zeros.
    ///
    /// A place of the source that cannot be read any more proves nothing.
    ///
    /// - Throws: also a refusal if the place differs.
    private func isProof(_ place: ByteRange) throws(IOError) -> Bool {
        rescue.reader.start(place)
        let deadline = rescue.readTimeout.map { ContinuousClock.now + $0 }
        guard
            case .bytes(let bytes) = rescue.reader.wait(
                until: deadline, unless: { [control] in control.isCancelled })
        else { return false }
        let own = slice(memory.bytes, 0, place.length)
        try target.read(into: own, at: place.offset)
        if own.elementsEqual(bytes) { return !isZero(UnsafeRawBufferPointer(own)) }
        throw .refusal(
            .changed, target.name,
            "it differs from \(source.name) at \(place), which the map says is copied",
            advice: "Another target needs another map. If the source has changed, remove the "
                + "map, and run it again.")
    }

    /// Places of a round.
    private static let sampleCount = 32
    private static let mostSampleRounds = 8
    private static let enoughProofs = 8
}

extension LowestRanges {
    /// Inserts a range unless some of it was inserted before, by an earlier piece.
    fileprivate mutating func insertUnlessKnown(_ range: ByteRange) {
        if !ranges.contains(where: range.overlaps) { insert(range) }
    }
}
