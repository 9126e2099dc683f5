// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import LogicalVolumes
internal import SystemPackage

/// A target that may be written to, open and claimed as long as `device` lives.
package struct AdmittedTarget: Sendable {
    package enum Kind: String, Sendable {
        case blockDevice = "block-device"
        case image
    }

    /// In a dry run it refuses writes, and has the size that the target would get.
    package var device: any BlockDevice
    package var kind: Kind
    /// Bytes; 0 for an image that did not exist.
    package var sizeBefore: Int
    /// The size that the target must get, in bytes; `nil` if it keeps its size.
    ///
    /// The caller extends the target before the first write, or cuts it at the end. In a dry run
    /// `device` already has this size.
    package var resizeTo: Int?
    /// Paths of the block devices whose page cache covers the same bytes: the relatives of a disk.
    ///
    /// The caller must drop these caches when it has written the target.
    package var relatives: [String]
    /// Whether it has the signatures of the source, maybe as another copy of the same template.
    package var isReplica: Bool
    /// Ranges of magic numbers behind the replica to zero after the copy, in bytes.
    package var leftovers: [ByteRange]
    /// Whether the gate has created it, or in a dry run would have.
    package var wasCreated: Bool
    /// For the user, one line each.
    package var warnings: [String]
    /// Whether a rotating disk is below.
    package var isRotational: Bool

    package init(
        device: any BlockDevice, kind: Kind, sizeBefore: Int, resizeTo: Int? = nil,
        relatives: [String] = [], isReplica: Bool = false, leftovers: [ByteRange] = [],
        wasCreated: Bool, warnings: [String], isRotational: Bool = false
    ) {
        self.device = device
        self.kind = kind
        self.sizeBefore = sizeBefore
        self.resizeTo = resizeTo
        self.relatives = relatives
        self.isReplica = isReplica
        self.leftovers = leftovers
        self.wasCreated = wasCreated
        self.warnings = warnings
        self.isRotational = isRotational
    }
}

/// The check that every write of blkferry passes, local or on a server.
///
/// See "The safety gate" in docs/safety-gate.md. When it refuses, nothing has been written or
/// created.
package enum SafetyGate {
    /// Opens and claims a target, if it may be written to.
    ///
    /// - Parameters:
    ///   - name: the target's name in messages; `target` by default.
    ///   - volumes: the logical volumes of this machine; `nil` if none may be created or resized.
    /// - Returns: the target, open for writing; a block device with `O_EXCL`, an image with an
    ///   exclusive lock.
    package static func admit(
        _ target: Selector, as name: String? = nil, source: SourceFacts, policy: GatePolicy,
        volumes: (any VolumeManager)? = nil, patience: GatePatience = GatePatience(),
        view: SystemView = SystemView()
    ) throws(IOError) -> AdmittedTarget {
        let name = name ?? target.description
        let place = policy.creates ? VolumePlace(target.description) : nil
        let found = try find(place.map { Selector($0.selector) } ?? target, view: view)
        let path = found.path
        // If two devices may have the UUID, it is ambiguous; see
        // docs/decisions/0029-devices-that-do-not-answer.md.
        let isSource = view.deviceNumber(at: path).map { source.identity == .device($0) } ?? false
        if let rival = found.rivals.first, !isSource {
            throw .refusal(
                .ambiguousSelector, name,
                "\(path) has it, and \(rival), which does not answer, may have it as well",
                advice: "Name the one that is meant by its path.")
        }
        let admission = TargetAdmission(
            path: path, name: name, source: source, policy: policy, view: view,
            volumes: volumes, patience: patience)
        let kind: FileStatus.Kind?
        do throws(Errno) {
            kind = try FileStatus(path: path).kind
        } catch .noSuchFileOrDirectory {
            kind = nil
        } catch {
            throw IOError(name, "open", error)
        }
        switch kind {
        case .blockDevice: return try admission.admitDevice()
        case .regular:
            try admission.checkName(target, exists: true)
            if let no = admission.refusalForSnapshot { throw no }
            return try admission.admitImage()
        case .directory, .other: throw .wrongKind(name, path)
        case nil:
            if let place { return try admission.admitNewVolume(place) }
            try admission.checkName(target, exists: false)
            if let no = admission.refusalForSnapshot { throw no }
            return try admission.admitNewImage()
        }
    }
}

/// One target on its way through the gate.
struct TargetAdmission: Sendable {
    var path: String
    let name: String
    let source: SourceFacts
    let policy: GatePolicy
    let view: SystemView
    let volumes: (any VolumeManager)?
    let patience: GatePatience
    /// The target, if this run has just created it.
    var newVolume: (any ManagedVolume)?

    /// The state of the whole machine; fails if the uses of devices cannot be seen.
    func seeingHost() throws(IOError) -> HostState {
        let host = HostState(view)
        if let error = host.blindness { throw error }
        return host
    }

    var rules: TargetRules { TargetRules(source: source, policy: policy) }

    func refusal(_ cause: IOError.Refusal, _ reason: String, advice: String? = nil) -> IOError {
        .refusal(cause, name, reason, advice: advice)
    }

    /// A refusal that names all uses, with advice about the first.
    func refusal(for uses: [Use]) -> IOError? {
        guard let first = uses.first else { return nil }
        return refusal(
            .inUse, uses.map(\.clause).joined(separator: ", and "), advice: first.advice)
    }

    /// A device for a dry run, which refuses writes.
    func untouchable(_ device: (any BlockDevice)?, size: Int) -> any BlockDevice {
        ZeroExtendedDevice(device, name: name, size: size)
    }

    /// Refuses a target that shares bytes with the source.
    func refusalForOverlap(_ identity: DeviceIdentity, _ host: HostState) -> IOError? {
        guard let theirs = source.identity else { return nil }
        let overlap = Footprint(identity, on: host).overlap(with: Footprint(theirs, on: host))
        guard let overlap else { return refusalForOrigin(identity, host) }
        switch (identity, theirs) {
        case (.device(let mine), .device(let other)) where mine == other:
            return refusal(.overlap, "it is the source, \(source.name)")
        case (.image(let mine, _), .image(let other, _)) where mine == other:
            return refusal(.overlap, "it is the source, \(source.name)")
        default: break
        }
        let shared =
            switch overlap {
            case .device(let number): "both are on \(host.displayName(number))"
            case .file: "both are on one image"
            }
        return refusal(.overlap, "it overlaps the source, \(source.name): \(shared)")
    }

    func verdict(
        _ kind: AdmittedTarget.Kind, _ identity: DeviceIdentity, _ geometry: Geometry,
        hasData: Bool = true, knownPartitions: [Partition] = [],
        volume: (any ManagedVolume)? = nil
    ) throws(IOError) -> TargetRules.Verdict {
        let sector = kind == .image ? nil : geometry.logicalSector
        var content = Content.empty
        // A new volume holds no content that a user could lose.
        if newVolume == nil, !policy.ignoresContent {
            content = try self.content(identity, geometry.size, sector, knownPartitions)
        }
        let target = TargetFacts(
            name: name, kind: kind, size: geometry.size, logicalSector: sector, content: content,
            hasData: hasData, fittingVolume: volume?.rounded(source.size))
        return try rules(for: target).apply(to: target)
    }

    /// A source of unknown size has the target's, or the size policy accepts a shorter one.
    private func rules(for target: TargetFacts) throws(IOError) -> TargetRules {
        var source = source
        if !source.isSizeKnown {
            switch (rules.sizePolicy(for: target), target.kind) {
            case (.prefix, _): break
            case (.resize, .blockDevice):
                throw refusal(
                    .size, "the size of the source is unknown, so it cannot be resized",
                    advice: "--size says it.")
            default: source.size = target.size
            }
        }
        return TargetRules(source: source, policy: policy)
    }

    private func content(
        _ identity: DeviceIdentity, _ size: Int, _ sector: Int?, _ knownPartitions: [Partition]
    ) throws(IOError) -> Content {
        do throws(Errno) {
            let prober = try Prober(
                path: path, identity: identity, size: size, logicalSector: sector)
            return prober.content(
                lookingIntoPartitions: true, knownPartitions: knownPartitions)
        } catch {
            throw IOError(name, "open", error)
        }
    }
}
