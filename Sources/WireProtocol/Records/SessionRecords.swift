// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import DeviceProbe
internal import LogicalVolumes

/// `POST /v1/devices/{id}/sessions`.
package struct SessionRequest: Codable, Sendable {
    package enum Mode: String, Codable, Hashable, Sendable {
        /// As the source, or as one side of a comparison.
        case read
        case write
        /// As a target that the safety gate checks but that is not written.
        case dryRun = "dry-run"
    }

    package var mode: Mode
    /// Bytes of a block; the server raises it to the unit of the device.
    package var block: Int
    package var digest: String
    /// Methods that are faster for the client, the fastest first; the server chooses one that is
    /// faster for the server as well.
    package var fasterDigests: [String]?
    /// The level of zstd for the answers to reads; set if the client can send and receive packed
    /// payloads.
    package var zstd: Int?
    /// Hexadecimal.
    package var key: String?
    /// The source, if the device is a target.
    package var source: SourceRecord?
    package var sizePolicy: String?
    package var overwrite: Bool?
    /// Whether the client moves the backup of a GPT, so that the gate need not warn.
    package var moveBackup: Bool?
    /// Whether a logical volume may be shrunk.
    package var shrink: Bool?
    /// Whether to create a missing logical volume.
    package var create: Bool?
    /// The snapshot to take of the logical volume before writing.
    package var snapshot: String?
    /// The number of dated snapshots to keep.
    package var keep: Int?
    /// The snapshot that a lost session took; then no other is taken.
    package var taken: String?
    /// Random; a repeated request gets the same session.
    package var run: String?
    /// Set if this session writes the rest of a run whose session has ended.
    package var continues: Continuation?

    package struct Continuation: Codable, Hashable, Sendable {
        package var host: HostRecord?
        package init(host: HostRecord?) { self.host = host }
    }

    package init(mode: Mode, block: Int, digest: String, key: String?) {
        self.mode = mode
        self.block = block
        self.digest = digest
        self.key = key
    }
}

extension SessionRequest {
    /// The feature of a server that manages logical volumes.
    package static let volumes = "volumes"

    /// The feature of a server that has libzstd.
    package static let compression = "zstd"

    package mutating func set(_ policy: GatePolicy?) {
        sizePolicy = policy?.sizePolicy?.rawValue
        overwrite = policy?.overwrite
        moveBackup = policy?.movesBackup == true ? true : nil
        guard let policy, policy.concernsVolumes else { return }
        shrink = policy.shrinks ? true : nil
        create = policy.creates ? true : nil
        snapshot = policy.snapshot?.name
        keep = policy.snapshot?.keeps
        taken = policy.snapshot?.taken
    }

    /// Throws if the fields contradict each other.
    package func policy() throws(WireError) -> GatePolicy {
        var known: SizePolicy?
        if let sizePolicy {
            known = SizePolicy(rawValue: sizePolicy)
            guard known != nil else { throw WireError("sizePolicy is unknown") }
        }
        var policy = GatePolicy(
            sizePolicy: known, overwrite: overwrite ?? false, isDryRun: mode == .dryRun)
        policy.movesBackup = moveBackup ?? false
        policy.shrinks = shrink ?? false
        policy.creates = create ?? false
        guard let snapshot else {
            guard keep == nil, taken == nil else {
                throw WireError("keep or taken without snapshot")
            }
            return policy
        }
        guard VolumePlace.isName(snapshot), !VolumePlace.isReserved(snapshot) else {
            throw WireError("snapshot is no name that a logical volume can have")
        }
        guard keep ?? 1 > 0 else { throw WireError("keep is \(keep ?? 0)") }
        guard taken.map({ keep != nil && VolumePlace($0) != nil }) ?? true else {
            throw WireError("taken without keep, or not a snapshot's name")
        }
        policy.snapshot = TargetSnapshot(name: snapshot, keeps: keep, taken: taken)
        return policy
    }
}

/// The facts about the source that the other side's gate needs.
package struct SourceRecord: Codable, Sendable {
    /// As the user wrote it.
    package var name: String
    package var size: Int
    /// `nil` for an image.
    package var logicalSector: Int?
    package var content: ContentRecord
    package var host: HostRecord?
    /// Bytes outside of holes; `nil` if unknown.
    package var data: Int?

    package init(_ facts: SourceFacts, boot: String?) {
        data = facts.dataBytes
        name = facts.name
        size = facts.size
        logicalSector = facts.logicalSector
        content = ContentRecord(facts.content)
        host = boot.flatMap { boot in facts.identity.flatMap { HostRecord($0, boot: boot) } }
    }

    /// - Parameter boot: the boot id of this machine.
    package func facts(boot: String?) throws(WireError) -> SourceFacts {
        guard (1...Geometry.maximumSize).contains(size) else {
            throw WireError("the source's size is \(size)")
        }
        guard logicalSector.map({ Geometry.isLogicalSector($0) }) ?? true else {
            throw WireError("the source's logical sector is \(logicalSector ?? 0)")
        }
        var facts = SourceFacts(
            name: String(name.prefix(4096)), size: size, content: try content.content(),
            logicalSector: logicalSector, identity: host?.identity(boot: boot))
        facts.dataBytes = data.map { min(max(0, $0), size) }
        return facts
    }
}

/// A device and its machine, so that both sides notice an overlap on one machine.
package struct HostRecord: Codable, Hashable, Sendable {
    /// /proc/sys/kernel/random/boot_id.
    package var boot: String
    /// `st_rdev`.
    package var device: UInt64?
    /// `st_dev` and `st_ino` of an image.
    package var fileSystem: UInt64?
    package var inode: UInt64?
    /// The birth time of an image in nanoseconds since 1970; `nil` if the file system has none.
    ///
    /// A new file may get the inode number of a removed one.
    package var born: Int?

    package init?(_ identity: DeviceIdentity, boot: String, born: Int? = nil) {
        self.boot = boot
        switch identity {
        case .device(let number): device = number
        case .image(let file, _):
            fileSystem = file.fileSystem
            inode = file.inode
            self.born = born
        case .newImage: return nil
        }
    }

    package var file: FileIdentity? {
        guard let fileSystem, let inode else { return nil }
        return FileIdentity(fileSystem: fileSystem, inode: inode)
    }

    /// The identity on this machine; `nil` for another machine.
    package func identity(boot here: String?) -> DeviceIdentity? {
        guard let here, here == boot else { return nil }
        if let device { return .device(device) }
        return file.map { .image($0, path: "") }
    }
}

/// A session, in the answer to its creation and to `GET /v1/sessions/{s}`.
package struct SessionRecord: Codable, Sendable {
    package var session: String
    /// The device's id.
    package var device: String
    /// Bytes; a target that had to grow has already grown.
    package var size: Int
    /// Bytes; `nil` for an image.
    package var logicalSector: Int?
    /// Bytes.
    package var alignment: Int
    package var block: Int
    package var region: Int
    package var content: ContentRecord
    package var kind: String
    package var rotational: Bool
    package var warnings: [String]
    package var host: HostRecord?
    /// Seconds without a request until the server releases the session.
    package var timeout: Double?
    /// The change counter of the device.
    package var stamp: [Int]?
    /// The persistent change counter.
    ///
    /// Reading it may take seconds. So the answer to the creation of a session has it only for
    /// clients that read, which need it to continue after a lost session. For an image, that answer
    /// has the value of `stamp` here.
    package var lastingStamp: [Int]?
    /// The lowest last number of `lastingStamp` that means no write.
    package var lastingSince: Int?
    /// The persistent change counter from before the target was resized.
    package var stampBefore: [Int]?
    package var stampBeforeSince: Int?
    /// The method that the server chose, if the client let it.
    package var digest: String?
    /// The level of zstd that the server uses; if set, the session's payloads are packed.
    package var zstd: Int?

    /// The target's size that the gate found; 0 for a missing image.
    package var sizeBefore: Int?
    /// The target's size at the end, if it changes.
    package var resizeTo: Int?
    package var created: Bool?
    /// Whether a target has the source's signatures.
    package var replica: Bool?
    /// Whether another process wrote to a target since the session began; only in later records.
    package var writtenByOthers: Bool?
    package var openedByOthers: Bool?
    /// Whether it is known that neither has happened; `nil` if it is unknown.
    package var onlyOwnWriters: Bool?
    /// The snapshot of a target, `group/volume`.
    package var snapshot: String?
    /// The undo journal that the server keeps of what a session overwrites.
    package var undo: UndoRecord?
    /// Whether it is proved that no program wrote since the ended session; `nil` without a proof.
    package var unchanged: Bool?

    package init(
        session: String, device: String, size: Int, logicalSector: Int?, alignment: Int,
        layout: BlockLayout, content: ContentRecord, kind: String, rotational: Bool,
        warnings: [String]
    ) {
        self.session = session
        self.device = device
        self.size = size
        self.logicalSector = logicalSector
        self.alignment = alignment
        block = layout.block
        region = layout.region
        self.content = content
        self.kind = kind
        self.rotational = rotational
        self.warnings = warnings
    }
}

/// `POST /v1/sessions/{s}/commit`.
package struct CommitRequest: Codable, Hashable, Sendable {
    /// The size to truncate the target to before the flush.
    package var size: Int?
    /// Whether to end the session; a client that reads back keeps it.
    package var release: Bool
    /// Whether to answer with the session's record, which saves a round trip.
    package var status: Bool?

    package init(size: Int? = nil, release: Bool, status: Bool? = nil) {
        self.size = size
        self.release = release
        self.status = status
    }
}

/// An undo journal of a session, on the server.
package struct UndoRecord: Codable, Hashable, Sendable {
    /// The name of the file, without its directory.
    package var journal: String
    /// Of the journal.
    package var bytes: Int
    /// Whether it can be rolled back.
    package var usable: Bool

    package init(journal: String, bytes: Int, usable: Bool) {
        self.journal = journal
        self.bytes = bytes
        self.usable = usable
    }
}

/// The answer to a commit, which is empty without warnings and record.
package struct CommitRecord: Codable, Sendable {
    /// One line each.
    package var warnings: [String]?
    /// The session's record after the flush.
    package var status: SessionRecord?
    /// The undo journal of a session that has ended, unless it has overwritten nothing.
    package var undo: UndoRecord?

    package init(
        warnings: [String]? = nil, status: SessionRecord? = nil, undo: UndoRecord? = nil
    ) {
        self.warnings = warnings
        self.status = status
        self.undo = undo
    }
}
