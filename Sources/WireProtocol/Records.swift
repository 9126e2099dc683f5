// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import DeviceProbe

/// `GET /v1`: who the server is and what it can do.
package struct ServerRecord: Codable, Hashable, Sendable {
    package var name = "blkferry"
    package var version: String
    package var api = 1
    package var features: [String]
    package var digests: [String]
    package var limits = LimitsRecord()

    package init(version: String, features: [String], digests: [String]) {
        self.version = version
        self.features = features
        self.digests = digests
    }
}

/// What one request may carry; bytes, and numbers of extents.
package struct LimitsRecord: Codable, Hashable, Sendable {
    package var window = Limits.window
    package var payload = Limits.payload
    package var extents = Limits.extents
    package var body = Limits.body
    package init() {}
}

/// `GET /v1/devices`.
package struct ExportList: Codable, Hashable, Sendable {
    package var devices: [ExportRecord]
    /// Exported directories, in which images are found or, where it may be written, created.
    package var directories: [DirectoryRecord]

    package init(devices: [ExportRecord], directories: [DirectoryRecord]) {
        self.devices = devices
        self.directories = directories
    }
}

package struct DirectoryRecord: Codable, Hashable, Sendable {
    package var path: String
    package var access: ExportAccess

    package init(path: String, access: ExportAccess) {
        self.path = path
        self.access = access
    }
}

/// `GET /v1/devices/{id}`: a device that the server offers.
package struct ExportRecord: Codable, Hashable, Sendable {
    /// The most stable name it has: it selects the device whatever its content becomes.
    package var id: String
    /// Everything that selects it, the id and its path among them.
    package var tags: [String]
    package var path: String
    /// `block-device` or `image`.
    package var kind: String
    /// Bytes.
    package var size: Int
    /// Bytes.
    package var logicalSector: Int
    package var access: ExportAccess
    package var content: ContentRecord
    /// In words, without paths: `mounted`, `in use as swap`.
    package var inUseBy: [String]
    /// Why its content is not known.
    package var unreadable: String?

    package init(
        id: String, tags: [String], path: String, kind: String, size: Int, logicalSector: Int,
        access: ExportAccess, content: ContentRecord, inUseBy: [String], unreadable: String?
    ) {
        self.id = id
        self.tags = tags
        self.path = path
        self.kind = kind
        self.size = size
        self.logicalSector = logicalSector
        self.access = access
        self.content = content
        self.inUseBy = inUseBy
        self.unreadable = unreadable
    }
}

/// What clients may do with an export.
package enum ExportAccess: String, Codable, Hashable, Sendable {
    case readOnly = "ro"
    case readWrite = "rw"
}

/// `POST /v1/devices/{id}/sessions`.
package struct SessionRequest: Codable, Sendable {
    package enum Mode: String, Codable, Hashable, Sendable {
        /// The device is the source, or one side of a comparison.
        case read
        /// The device is the target.
        case write
        /// The device would be the target: the safety gate judges, and nothing is written.
        case dryRun = "dry-run"
    }

    package var mode: Mode
    /// Bytes of a block; the server raises it to what the device can transfer.
    package var block: Int
    package var digest: String
    /// Methods that are faster than `digest` for the client, the fastest first: the server takes
    /// one that is faster for it too.
    package var fasterDigests: [String]?
    /// Hexadecimal, for a digest that needs one.
    package var key: String?
    /// Of a target: what it is to become.
    package var source: SourceRecord?
    package var sizePolicy: String?
    package var overwrite: Bool?
    /// Whether a logical volume that is too large may be cut.
    package var shrink: Bool?
    /// Whether a logical volume that is missing is to be made.
    package var create: Bool?
    /// The name of a snapshot that is to be taken of the logical volume, before it is written.
    package var snapshot: String?
    /// How many snapshots of that name, with their dates, are kept.
    package var keep: Int?
    /// The snapshot that a session which was lost has taken, as its record says: none is taken then.
    package var taken: String?
    /// Drawn by the client: who asks again, because the answer was lost, gets the same session.
    package var run: String?

    package init(mode: Mode, block: Int, digest: String, key: String?) {
        self.mode = mode
        self.block = block
        self.digest = digest
        self.key = key
    }
}

extension SessionRequest {
    /// What a server has among its features that makes, resizes and keeps logical volumes.
    package static let volumes = "volumes"

    /// Asks for what the user has allowed.
    package mutating func set(_ policy: GatePolicy?) {
        sizePolicy = policy?.sizePolicy?.rawValue
        overwrite = policy?.overwrite
        guard let policy, policy.concernsVolumes else { return }
        shrink = policy.shrinks ? true : nil
        create = policy.creates ? true : nil
        snapshot = policy.snapshot?.name
        keep = policy.snapshot?.keeps
        taken = policy.snapshot?.taken
    }

    /// What the client allows.
    ///
    /// - Returns: the policy for the gate.
    /// - Throws: for what it cannot mean.
    package func policy() throws(WireError) -> GatePolicy {
        var known: SizePolicy?
        if let sizePolicy {
            known = SizePolicy(rawValue: sizePolicy)
            guard known != nil else { throw WireError("sizePolicy is unknown") }
        }
        var policy = GatePolicy(
            sizePolicy: known, overwrite: overwrite ?? false, isDryRun: mode == .dryRun)
        policy.shrinks = shrink ?? false
        policy.creates = create ?? false
        guard let snapshot else {
            guard keep == nil, taken == nil else { throw WireError("keep is of no snapshot") }
            return policy
        }
        guard VolumePlace.isName(snapshot), !VolumePlace.isReserved(snapshot) else {
            throw WireError("snapshot is no name that a logical volume can have")
        }
        guard keep ?? 1 > 0 else { throw WireError("keep is \(keep ?? 0)") }
        guard taken.map({ keep != nil && VolumePlace($0) != nil }) ?? true else {
            throw WireError("taken is no snapshot of those that are kept")
        }
        policy.snapshot = TargetSnapshot(name: snapshot, keeps: keep, taken: taken)
        return policy
    }
}

/// What the safety gate of the one side has to know of the source on the other.
package struct SourceRecord: Codable, Sendable {
    /// As the user wrote it.
    package var name: String
    package var size: Int
    /// `nil` for an image.
    package var logicalSector: Int?
    package var content: ContentRecord
    package var host: HostRecord?

    package init(_ facts: SourceFacts, boot: String?) {
        name = facts.name
        size = facts.size
        logicalSector = facts.logicalSector
        content = ContentRecord(facts.content)
        host = boot.flatMap { boot in facts.identity.flatMap { HostRecord($0, boot: boot) } }
    }

    /// The facts for the gate.
    ///
    /// - Parameter boot: the boot id of the machine that asks.
    /// - Returns: what is known of the source.
    /// - Throws: when they cannot be true.
    package func facts(boot: String?) throws(WireError) -> SourceFacts {
        guard (1...Geometry.maximumSize).contains(size) else {
            throw WireError("the source's size is \(size)")
        }
        guard logicalSector.map({ $0 >= 512 && $0.nonzeroBitCount == 1 }) ?? true else {
            throw WireError("the source's logical sector is \(logicalSector ?? 0)")
        }
        return SourceFacts(
            name: String(name.prefix(4096)), size: size, content: try content.content(),
            logicalSector: logicalSector, identity: host?.identity(boot: boot))
    }
}

/// Which device of which machine something is, so that both sides notice when they are on one
/// machine and the devices overlap.
package struct HostRecord: Codable, Hashable, Sendable {
    /// The text of /proc/sys/kernel/random/boot_id.
    package var boot: String
    /// `st_rdev` of a block device.
    package var device: UInt64?
    /// `st_dev` and `st_ino` of an image.
    package var fileSystem: UInt64?
    package var inode: UInt64?

    package init?(_ identity: DeviceIdentity, boot: String) {
        self.boot = boot
        switch identity {
        case .device(let number): device = number
        case .image(let file, _):
            fileSystem = file.fileSystem
            inode = file.inode
        case .newImage: return nil
        }
    }

    /// Of an image.
    package var file: FileIdentity? {
        guard let fileSystem, let inode else { return nil }
        return FileIdentity(fileSystem: fileSystem, inode: inode)
    }

    /// The same for the one who is on that machine; `nil` for everybody else.
    package func identity(boot here: String?) -> DeviceIdentity? {
        guard let here, here == boot else { return nil }
        if let device { return .device(device) }
        return file.map { .image($0, path: "") }
    }
}

/// What a session is; the answer to its creation and to `GET /v1/sessions/{s}`.
package struct SessionRecord: Codable, Sendable {
    package var session: String
    /// The id of the device it pins.
    package var device: String
    /// Bytes, as it is now: a target that had to grow has grown.
    package var size: Int
    /// Bytes; `nil` for an image.
    package var logicalSector: Int?
    /// What transfers are multiples of, in bytes.
    package var alignment: Int
    package var block: Int
    package var region: Int
    package var content: ContentRecord
    package var kind: String
    package var rotational: Bool
    package var warnings: [String]
    package var host: HostRecord?
    /// Seconds of silence after which the session is released.
    package var timeout: Double?
    /// Changes when somebody else writes to the device.
    package var stamp: [Int]?
    /// The same, to be kept from one run to another.
    ///
    /// It also changes when the device is given other content from below. Not told when the session
    /// is opened, since it may take a while.
    package var lastingStamp: [Int]?
    /// The same as it was before the target was given its size, which is a change of it.
    package var stampBefore: [Int]?
    /// The method that is used, where the client has let the server choose.
    package var digest: String?

    /// Of a target: its size as the gate found it; 0 for an image that was not there.
    package var sizeBefore: Int?
    /// Of a target: the size that it is to have at the end, where that is another.
    package var resizeTo: Int?
    package var created: Bool?
    /// Of a target: the snapshot that was taken of it, `group/volume`.
    package var snapshot: String?

    package init(
        session: String, device: String, size: Int, logicalSector: Int?, alignment: Int,
        layout: WireLayout, content: ContentRecord, kind: String, rotational: Bool,
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
    /// The size to cut the target to, before it is flushed.
    package var size: Int?
    /// Whether the session ends with it; a client that reads back what it wrote keeps it.
    package var release: Bool

    package init(size: Int? = nil, release: Bool) {
        self.size = size
        self.release = release
    }
}

/// What a commit is answered with where there is something to say; else with nothing.
package struct CommitRecord: Codable, Hashable, Sendable {
    /// For the user, one line each.
    package var warnings: [String]?

    package init(warnings: [String]? = nil) { self.warnings = warnings }
}
