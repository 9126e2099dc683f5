// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import Synchronization

/// A logical volume that the gate has admitted, and that may get another size.
///
/// What was made for the run alone is removed with it, unless something was written or the run came
/// to its end.
package final class VolumeTarget: BlockDevice {
    /// What the gate has made for a run.
    enum Made: Hashable, Sendable {
        case volume
        case snapshot(String, TargetSnapshot)
    }

    // Closed in `deinit`, before the volume is removed: LVM removes nothing that is open.
    private let file: Unmanaged<BlockSpecialFile>
    private let volume: any TargetVolume
    /// Bytes that the source has: what lies beyond is to be zeros; `nil` where it is left alone.
    private let replicaSize: Int?
    private let made: Made?
    private let isKept = Atomic(false)
    private let wasRead = Atomic(false)
    private let isLeft = Atomic(false)
    private let hasZeroTail = Mutex(false)

    /// Takes over an open volume.
    ///
    /// - Parameters:
    ///   - file: the volume, which nobody else may hold.
    ///   - volume: has it resized.
    ///   - replicaSize: bytes that the source has, where what lies beyond is to be zeros.
    ///   - made: what to remove when nothing comes of it.
    init(
        _ file: consuming BlockSpecialFile, _ volume: any TargetVolume, replicaSize: Int?,
        made: Made?
    ) {
        self.file = Unmanaged.passRetained(file)
        self.volume = volume
        self.replicaSize = replicaSize
        self.made = made
        // It is of before the run was interrupted.
        if case .snapshot(_, let wish) = made, wish.taken != nil { keep() }
    }

    deinit {
        file.release()
        guard !isKept.load(ordering: .relaxed) else { return }
        // Whoever comes back relies on what he has seen of it.
        if made == .volume, isLeft.load(ordering: .relaxed), wasRead.load(ordering: .relaxed) {
            return
        }
        // Best effort: nobody is there any more who could be told.
        switch made {
        case .volume: try? volume.remove()
        case .snapshot(let name, _): try? volume.removeSnapshot(name)
        case nil: break
        }
    }

    /// What was made for the run stays.
    private func keep() { isKept.store(true, ordering: .relaxed) }

    /// The session ends, but not because its client says so, who may open it again: he does not ask
    /// for another snapshot then, but for a volume that is missing and of which he has seen nothing.
    package func leave() {
        isLeft.store(true, ordering: .relaxed)
        if case .snapshot = made { keep() }
    }

    /// The snapshot that was taken for the run, `group/volume`.
    package var snapshot: String? {
        if case .snapshot(let name, _) = made { name } else { nil }
    }

    /// The run has come to its end: what was made for it stays, and of older snapshots no more than
    /// are wanted.
    ///
    /// - Returns: what could not be removed, and why, one line each.
    package func finish() -> [String] {
        keep()
        guard case .snapshot(let name, let wish) = made else { return [] }
        return volume.removeOlder(than: name, of: wish)
    }

    private var device: BlockSpecialFile { file.takeUnretainedValue() }

    package var name: String { device.name }
    /// The device's number (`st_rdev`).
    package var number: UInt64 { device.number }
    package var geometry: Geometry { device.geometry }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        wasRead.store(true, ordering: .relaxed)
        try device.read(into: buffer, at: offset)
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        keep()
        try device.write(buffer, at: offset)
    }

    package func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        if direction == .write && !transfers.isEmpty { keep() }
        wasRead.store(true, ordering: .relaxed)
        return device.attempt(transfers, direction)
    }

    package func zero(_ range: ByteRange) throws(IOError) {
        keep()
        try device.zero(range)
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        wasRead.store(true, ordering: .relaxed)
        return try device.nextData(from: offset)
    }

    /// Gives the volume another size; what of it lies beyond the replica is zeros after the next
    /// flush.
    package func resize(to size: Int) throws(IOError) {
        try volume.resize(to: size)
        keep()
        try device.readSize()
        guard geometry.size == size else {
            throw IOError(
                name, "resize to \(size) bytes", reason: "it now has \(geometry.size) bytes")
        }
        hasZeroTail.withLock { $0 = false }
    }

    package func flush() throws(IOError) {
        if let replicaSize {
            try hasZeroTail.withLock { isDone throws(IOError) in
                if !isDone { try zeroTail(from: replicaSize) }
                isDone = true
            }
        }
        try device.flush()
    }

    /// Zeroes what lies beyond the replica where it is not zeros: less than an extent.
    private func zeroTail(from start: Int) throws(IOError) {
        // What a volume that is to be cut has beyond that goes with the cut.
        let size = min(geometry.size, volume.rounded(start))
        // It is yet to grow.
        guard size > start else { return }
        let unit = max(geometry.alignment, Self.piece)
        let memory = AlignedBuffer(count: unit)
        var offset = start / unit * unit
        while offset < size {
            let length = min(unit, size - offset)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<length])
            try device.read(into: bytes, at: offset)
            let tail = UnsafeMutableRawBufferPointer(rebasing: bytes[max(0, start - offset)...])
            if !tail.allSatisfy({ $0 == 0 }) {
                // It is no content of a new volume; but what a snapshot has of it is not elsewhere.
                if made != .volume { keep() }
                if offset >= start {
                    try device.zero(ByteRange(offset: offset, length: length))
                } else {
                    // The end of the replica is in it, maybe within a sector.
                    tail.initializeMemory(as: UInt8.self, repeating: 0)
                    try device.write(UnsafeRawBufferPointer(bytes), at: offset)
                }
            }
            offset += length
        }
    }

    /// Bytes of the tail that are looked at together: a multiple of every sector.
    private static let piece = 1 << 20

    package func checkSize() throws(IOError) { try device.checkSize() }

    package func contentStamp() -> ContentStamp? { device.contentStamp() }

    package func lastingStamp() -> ContentStamp? { device.lastingStamp() }
}
