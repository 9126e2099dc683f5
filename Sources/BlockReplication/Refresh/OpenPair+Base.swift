// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
internal import WireProtocol

/// Lets the next run find out whether the target has been changed; both sides are open.
extension OpenPair {
    /// The target's identity: 32 hexadecimal digits that do not depend on its content.
    ///
    /// It is the same for the same device while the user reaches it in the same way.
    func targetIdentity() throws(ReplicationError) -> String {
        let words: [String]
        do throws(IOError) { words = try endpoints.target.identity() } catch {
            throw ReplicationError(error)
        }
        return try name(of: words)
    }

    /// A text that changes with the target's persistent change counter; `nil` if there is none.
    ///
    /// It also changes when the counter restarts, with a boot or when the device is attached again.
    ///
    /// - Parameter isFound: uses the counter from before the server enlarged the target.
    func targetMark(asFound isFound: Bool = false) throws(ReplicationError) -> TargetMark? {
        let found: HostCounter?
        do throws(IOError) {
            found = try endpoints.target.persistentCounter(asFound: isFound)
        } catch {
            throw ReplicationError(error)
        }
        return try mark(of: found)
    }

    func mark(of found: HostCounter?) throws(ReplicationError) -> TargetMark? {
        guard let (counter, host) = found else { return nil }
        let numbers =
            [host.device, host.fileSystem, host.inode].map { "\($0 ?? 0)" } + ["\(host.born ?? 0)"]
        func text(_ marks: [Int]) throws(ReplicationError) -> String {
            try name(of: [host.boot] + numbers + marks.map { "\($0)" })
        }
        var equivalents: Set<String> = []
        for marks in counter.equivalents { equivalents.insert(try text(marks)) }
        return TargetMark(text: try text(counter.marks), equivalents: equivalents)
    }

    /// Why the target has no persistent change counter; `nil` if the reason is unknown.
    var reasonForNoMark: String? { targetEnd.device.reasonForNoCounter }

    /// Whether other programs could write to the target for a while, because the server ended or
    /// the session timed out.
    var hasLostTarget: Bool { endpoints.target.hasGap }

    var isTargetResized: Bool {
        targetEnd.resizeTo != nil || targetEnd.device.geometry.size != targetEnd.sizeBefore
    }

    /// Flushes the target, including what other programs wrote.
    func flushTarget() throws(ReplicationError) {
        do throws(IOError) { try targetEnd.device.flush() } catch { throw ReplicationError(error) }
    }

    /// Half of the SHA-256 of words; their lengths keep different lists of words distinct.
    private func name(of words: [String]) throws(ReplicationError) -> String {
        let text = words.map { "\($0.utf8.count):\($0)" }.joined(separator: ",")
        return hexadecimal(try digest(of: Array(text.utf8)).prefix(16))
    }

    enum Side: Sendable { case source, target }

    /// The SHA-256 of a sample of a device, in hexadecimal.
    ///
    /// - Parameters:
    ///   - seed: determines the places.
    ///   - size: the bytes from which the places are chosen.
    func root(
        of side: Side, seed: UInt64, size: Int
    ) throws(ReplicationError) -> String {
        let plan = SamplePlan(size: size, oneIn: 512, atMost: 256, seed: seed)
        return try sampleDigest(of: side, at: plan.ranges)
    }

    /// The SHA-256 of the digests of places of a device, in hexadecimal.
    ///
    /// - Parameter places: in bytes, each at most `SamplePlan.region` long.
    func sampleDigest(of side: Side, at places: [Range<Int>]) throws(ReplicationError) -> String {
        let device = side == .source ? comparedDevices.source : comparedDevices.target
        let alignment = device.geometry.alignment
        let buffer = AlignedBuffer(count: SamplePlan.region + 2 * max(alignment, 4096))
        var digests: [UInt8] = []
        for range in places {
            // Direct I/O reads whole units.
            let start = range.lowerBound / alignment * alignment
            let end = min(
                device.geometry.size, (range.upperBound + alignment - 1) / alignment * alignment)
            guard end >= range.upperBound, end - start <= buffer.count else {
                throw ReplicationError(.device, "\(device.name): read at \(start): beyond its end")
            }
            let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<(end - start)])
            do throws(IOError) { try device.read(into: bytes, at: start) } catch {
                throw ReplicationError(error)
            }
            digests += try digest(
                of: Array(bytes[range.lowerBound - start..<range.upperBound - start]))
        }
        return hexadecimal(try digest(of: digests))
    }

    /// Compares random places, different ones each time.
    ///
    /// - Parameters:
    ///   - size: the bytes of both devices from which the places are chosen.
    ///   - share: compares about one byte in this number.
    ///   - isWanted: whether to compare a place, in bytes.
    func sampleDifferences(
        size: Int, oneIn share: Int, where isWanted: (Range<Int>) -> Bool = { _ in true }
    ) throws(ReplicationError) -> [Range<Int>] {
        try sample(size: size, oneIn: share, atMost: 1024, where: isWanted)?
            .firstDifferences.map { $0.offset..<$0.end } ?? []
    }

    /// Compares at most `most` random places; `nil` if no place is wanted.
    func sample(
        size: Int, oneIn share: Int, atMost most: Int,
        where isWanted: (Range<Int>) -> Bool = { _ in true }
    ) throws(ReplicationError) -> SyncReport? {
        var generator = SystemRandomNumberGenerator()
        let plan = SamplePlan(size: size, oneIn: share, atMost: most, seed: generator.next())
        // The engine compares whole regions, which exceed the places if blocks do.
        let region = engineOptions.layout.region
        let places = plan.ranges.map { ByteRange($0.lowerBound, to: $0.upperBound) }
            .rounded(to: region, limit: sourceEnd.device.geometry.size)
            .flatMap { $0.pieces(of: region) }
            .filter { isWanted($0.offset..<$0.end) }
        return places.isEmpty ? nil : try compare(places)
    }

    /// Compares ascending places, which are whole regions.
    func compare(_ places: [ByteRange]) throws(ReplicationError) -> SyncReport {
        var options = engineOptions
        options.changes = places
        let result = SyncEngine.compare(
            source: comparedDevices.source, target: comparedDevices.target, options: options,
            control: RunControl())
        if let failure = result.failure { throw ReplicationError(failure) }
        return result
    }
}

/// A target's persistent change counter, as a replica record keeps it.
struct TargetMark: Hashable, Sendable {
    /// 32 hexadecimal digits.
    let text: String
    /// Texts, including this one, that prove that no program wrote in between.
    let equivalents: Set<String>

    init(text: String, equivalents: Set<String>) {
        self.text = text
        self.equivalents = equivalents
    }

    /// Whether it is proved that no program wrote since the change counter had this text.
    func isUnchanged(since text: String) -> Bool { equivalents.contains(text) }
}

private func digest(of bytes: [UInt8]) throws(ReplicationError) -> [UInt8] {
    do throws(IOError) { return try sha256(of: bytes) } catch {
        throw ReplicationError(.invalid, "\(error)")
    }
}
