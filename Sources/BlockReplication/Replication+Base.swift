// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import SyncEngine
internal import SystemPackage
internal import WireProtocol

/// What a run leaves behind, so that the next one knows whether the target is still what this one
/// has made of it. Both sides are open.
extension Replication {
    /// Names the target, whatever it holds: 32 hexadecimal digits.
    ///
    /// - Returns: the same for the same device, as long as it is reached in the same way.
    /// - Throws: where it cannot be looked at.
    package func targetIdentity() throws(ReplicationError) -> String {
        if let remote = targetEnd.remote {
            return try name(of: ["url", target, remote.record.device])
        }
        if isPdiffcopyTarget { return try name(of: ["url", target]) }
        let stableName: String
        do throws(ProbeError) {
            let path = try resolve(Selector(localTarget))
            stableName =
                try describe(path: path, as: path).stableTag ?? (try? canonicalPath(path)) ?? path
        } catch {
            throw ReplicationError(error)
        }
        return try name(of: ["here", stableName])
    }

    /// Changes when anybody writes to the target: 32 hexadecimal digits.
    ///
    /// It is made of what the kernel counts on a block device, or of an image's time of change; so
    /// it also changes where that begins anew, with a boot or when the device is attached again.
    ///
    /// - Parameter isFound: as the target was found, where a server has made it larger since.
    /// - Returns: the mark; `nil` where the target has nothing of the kind, such as with kernels
    ///   that do not number disks: a count of the same height may then be that of another life.
    /// - Throws: where it cannot be asked.
    package func targetMark(asFound isFound: Bool = false) throws(ReplicationError) -> String? {
        let host: HostRecord?
        let marks: [Int]?
        if let remote = targetEnd.remote {
            if isFound, let before = remote.record.stampBefore {
                marks = before
            } else {
                do throws(IOError) { marks = try remote.currentMarks() } catch {
                    throw ReplicationError(error)
                }
            }
            host = remote.record.host
        } else if isPdiffcopyTarget {
            return nil
        } else {
            marks = targetEnd.device.lastingStamp()?.marks
            host = try hostRecord()
        }
        guard let marks, let host else { return nil }
        let numbers = [host.device, host.fileSystem, host.inode].map { "\($0 ?? 0)" }
        return try name(of: [host.boot] + numbers + marks.map { "\($0)" })
    }

    /// Whether nobody kept others from writing to the target for a while: a server has ended, or has
    /// heard nothing for too long.
    package var hasLostTarget: Bool { targetEnd.remote?.wasReopened ?? false }

    /// Whether the target has, or gets, another size than it was found with.
    package var isTargetResized: Bool {
        targetEnd.resizedTo != nil || targetEnd.device.geometry.size != targetEnd.sizeBefore
    }

    /// Puts on the medium what anybody has written to the target.
    ///
    /// - Throws: what the device says.
    package func flushTarget() throws(ReplicationError) {
        do throws(IOError) { try targetEnd.device.flush() } catch { throw ReplicationError(error) }
    }

    /// A server of pdiffcopy tells nothing of the kind.
    private var isPdiffcopyTarget: Bool { targetEnd.device is PdiffcopyDevice }

    /// The target without the pool that it is to be made in.
    private var localTarget: String {
        (options.createsVolume ? VolumePlace(target)?.selector : nil) ?? target
    }

    private func hostRecord() throws(ReplicationError) -> HostRecord? {
        guard let boot = readSmallFile("/proc/sys/kernel/random/boot_id") else { return nil }
        do throws(ProbeError) {
            let path = try resolve(Selector(localTarget))
            let status: FileStatus
            do throws(Errno) { status = try FileStatus(path: path) } catch {
                throw .failed(IOError(path, "open", error))
            }
            let identity =
                status.kind == .blockDevice
                ? DeviceIdentity.device(status.device)
                : .image(
                    FileIdentity(fileSystem: status.fileSystem, inode: status.inode), path: path)
            return HostRecord(identity, boot: boot)
        } catch {
            throw ReplicationError(error)
        }
    }

    /// The first half of the SHA-256 of words that none of them can imitate.
    private func name(of words: [String]) throws(ReplicationError) -> String {
        let text = words.map { "\($0.utf8.count):\($0)" }.joined(separator: ",")
        return hexadecimal(try digest(of: Array(text.utf8)).prefix(16))
    }

    /// One of the two devices.
    package enum Side: Sendable { case source, target }

    /// The SHA-256, hexadecimal, of a seeded sample of a device, as long as the source.
    ///
    /// - Parameters:
    ///   - side: which device.
    ///   - seed: determines the places.
    ///   - size: bytes of the device that the places are chosen of.
    /// - Returns: the digest of all places one after the other.
    /// - Throws: what reading says.
    package func root(
        of side: Side, seed: UInt64, size: Int
    ) throws(ReplicationError) -> String {
        let device = side == .source ? sourceEnd.device : targetEnd.device
        let plan = SamplePlan(size: size, oneIn: 512, atMost: 256, seed: seed)
        let alignment = device.geometry.alignment
        let buffer = AlignedBuffer(count: SamplePlan.region + 2 * max(alignment, 4096))
        var digests: [UInt8] = []
        for range in plan.ranges {
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

    /// Compares places at random, other ones each time; nothing is written.
    ///
    /// - Parameters:
    ///   - size: bytes of both devices that the places are chosen of.
    ///   - share: one in so many of their bytes is compared.
    ///   - isWanted: tells of a place, in bytes, whether to compare it.
    /// - Returns: where the two differ, in bytes; the first of such places.
    /// - Throws: what reading says.
    package func sampleDifferences(
        size: Int, oneIn share: Int, where isWanted: (Range<Int>) -> Bool = { _ in true }
    ) throws(ReplicationError) -> [Range<Int>] {
        var generator = SystemRandomNumberGenerator()
        let plan = SamplePlan(size: size, oneIn: share, atMost: 1024, seed: generator.next())
        // The engine compares whole regions, which are larger than places where blocks are.
        let region = engineOptions.layout.region
        let places = plan.ranges.map { ByteRange($0.lowerBound, to: $0.upperBound) }
            .rounded(to: region, limit: sourceEnd.device.geometry.size)
            .flatMap { $0.pieces(of: region) }
            .filter { isWanted($0.offset..<$0.end) }
        guard !places.isEmpty else { return [] }
        var options = engineOptions
        options.changes = places
        let result = SyncEngine.compare(
            source: sourceEnd.device, target: targetEnd.device, options: options,
            control: RunControl())
        if let failure = result.failure { throw ReplicationError(failure) }
        return result.firstDifferences.map { $0.offset..<$0.end }
    }
}

/// The SHA-256.
private func digest(of bytes: [UInt8]) throws(ReplicationError) -> [UInt8] {
    do throws(DigestError) { return try sha256(of: bytes) } catch {
        throw ReplicationError(.invalid, "\(error.object): \(error.operation): \(error.reason)")
    }
}
