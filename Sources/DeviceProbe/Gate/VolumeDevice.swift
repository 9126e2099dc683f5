// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import Synchronization

/// A logical volume that the gate has admitted, and that may be resized.
///
/// A volume or snapshot that was created for the run is removed with it, unless something was
/// written or the run was completed.
package final class VolumeDevice: BlockDevice {
    /// What the gate has created for a run.
    enum Made: Hashable, Sendable {
        case volume
        case snapshot(String, TargetSnapshot)
    }

    // Released in `deinit`, before the volume is removed: LVM does not remove an open volume.
    private let file: Unmanaged<BlockSpecialFile>
    private let volume: any ManagedVolume
    /// Bytes of the source, behind which all must be zeros; `nil` if the tail is not changed.
    private let replicaSize: Int?
    private let made: Made?
    private let isKept = Atomic(false)
    private let wasRead = Atomic(false)
    private let isLeft = Atomic(false)
    private let hasZeroTail = Mutex(false)

    /// - Parameter file: the open volume, with no other owner.
    init(
        _ file: consuming BlockSpecialFile, _ volume: any ManagedVolume, replicaSize: Int?,
        made: Made?
    ) {
        self.file = Unmanaged.passRetained(file)
        self.volume = volume
        self.replicaSize = replicaSize
        self.made = made
        // The snapshot is from before the interruption of the run.
        if case .snapshot(_, let wish) = made, wish.taken != nil { keep() }
        // A classic snapshot has replaced the table.
        device.acceptTable()
    }

    deinit {
        file.release()
        guard !isKept.load(ordering: .relaxed) else { return }
        // A client that comes back relies on what it has read.
        if made == .volume, isLeft.load(ordering: .relaxed), wasRead.load(ordering: .relaxed) {
            return
        }
        // Best effort: no client is left that could receive an error.
        switch made {
        case .volume: try? volume.remove()
        case .snapshot(let name, _): try? volume.removeSnapshot(name)
        case nil: break
        }
    }

    private func keep() { isKept.store(true, ordering: .relaxed) }

    /// The client then keeps its snapshot, but has no use for a new volume that it has not read.
    package func leave() {
        isLeft.store(true, ordering: .relaxed)
        if case .snapshot = made { keep() }
    }

    package var snapshot: String? {
        if case .snapshot(let name, _) = made { name } else { nil }
    }

    package func release(isComplete: Bool) -> [String] {
        guard isComplete else { return [] }
        keep()
        guard case .snapshot(let name, let wish) = made else { return [] }
        return volume.removeOlder(than: name, of: wish)
    }

    private var device: BlockSpecialFile { file.takeUnretainedValue() }

    package var name: String { device.name }
    package var fileStatus: FileStatus? { device.fileStatus }
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

    package var shortZeros: Int { device.shortZeros }

    package func zero(_ range: ByteRange) throws(IOError) {
        keep()
        try device.zero(range)
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        wasRead.store(true, ordering: .relaxed)
        return try device.nextData(from: offset)
    }

    /// Resizes the volume; the next flush zeros everything behind the replica.
    package func resize(to size: Int) throws(IOError) {
        device.noteTable()
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

    package var zeroedByFlush: ByteRange? {
        guard let replicaSize, !hasZeroTail.withLock({ $0 }) else { return nil }
        let end = min(geometry.size, volume.rounded(replicaSize))
        return end > replicaSize ? ByteRange(replicaSize, to: end) : nil
    }

    /// Zeros the nonzero bytes behind the replica, which are less than an extent.
    private func zeroTail(from start: Int) throws(IOError) {
        // If the volume is to be cut, the cut removes the bytes behind that size.
        let size = min(geometry.size, volume.rounded(start))
        // The volume has not grown yet.
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
                // The tail of a new volume is not content, but a snapshot may be the only copy of
                // this one.
                if made != .volume { keep() }
                if offset >= start {
                    try device.zero(ByteRange(offset: offset, length: length))
                } else {
                    // The piece contains the end of the replica, perhaps within a sector.
                    tail.initializeMemory(as: UInt8.self, repeating: 0)
                    try device.write(UnsafeRawBufferPointer(bytes), at: offset)
                }
            }
            offset += length
        }
    }

    /// Bytes of the tail that are examined together: a multiple of every sector.
    private static let piece = 1 << 20

    package func checkIdentity() throws(IOError) { try device.checkIdentity() }

    package func hasForeignWrites() -> Bool { device.hasForeignWrites() }

    package var reportsForeignWrites: Bool { device.reportsForeignWrites }

    package func hadOtherWriters() -> Bool { device.hadOtherWriters() }

    package func changeCounter() -> ChangeCounter? { device.changeCounter() }

    package func persistentChangeCounter() -> ChangeCounter? { device.persistentChangeCounter() }

    package var reasonForNoCounter: String? { device.reasonForNoCounter }
}
