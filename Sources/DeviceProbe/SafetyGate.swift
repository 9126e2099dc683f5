// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// A target that may be written to, open and claimed for as long as `device` lives.
package struct AdmittedTarget: Sendable {
    package enum Kind: String, Sendable {
        case blockDevice = "block-device"
        case image
    }

    /// In a dry run it refuses to be written to, and has the size that the target would get.
    package var device: any BlockDevice
    package var kind: Kind
    /// Bytes, as the gate found it; 0 for an image that was not there.
    package var sizeBefore: Int
    /// Bytes that the target has to be resized to; `nil` when its size stays.
    ///
    /// It is to be extended before the first write, or cut at the end. In a dry run this is only
    /// told: `device` already looks like it.
    package var resizeTo: Int?
    /// Paths of the block devices that cache the same bytes: partitions, or the disk of a partition.
    ///
    /// What the kernel has cached of them is to be dropped when the target is written.
    package var relatives: [String] = []
    /// Whether the gate has created it; in a dry run, whether it would have.
    package var wasCreated: Bool
    /// What the user should know, one line each.
    package var warnings: [String]
    /// Whether a disk with moving heads is beneath.
    package var isRotational: Bool
}

/// The one place that every write of blkferry goes through, local or on a server.
///
/// See "The safety gate" in docs/safety-gate.md. Nothing has been written, and nothing created, when it
/// says no.
package enum SafetyGate {
    /// Opens and claims a target, if it may be written to.
    ///
    /// - Parameters:
    ///   - target: a selector.
    ///   - name: what to call it; by default as `target` says.
    ///   - source: what it is to become a replica of.
    ///   - policy: what the user has allowed.
    ///   - volumes: the logical volumes of this machine; without them none is made or resized.
    ///   - view: where the machine tells about its devices.
    /// - Returns: the target, open for writing, a block device with `O_EXCL`, an image with an
    ///   exclusive lock.
    /// - Throws: a refusal, or the failure of a call.
    package static func admit(
        _ target: String, as name: String? = nil, source: SourceFacts, policy: GatePolicy,
        volumes: (any TargetVolumes)? = nil, view: SystemView = SystemView()
    ) throws(ProbeError) -> AdmittedTarget {
        let place = policy.creates ? VolumePlace(target) : nil
        let path = try resolve(Selector(place?.selector ?? target), view: view)
        let entrance = Entrance(
            path: path, name: name ?? target, source: source, policy: policy, view: view,
            volumes: volumes)
        let kind: FileStatus.Kind?
        do throws(Errno) {
            kind = try FileStatus(path: path).kind
        } catch .noSuchFileOrDirectory {
            kind = nil
        } catch {
            throw .failed(IOError(name ?? target, "open", error))
        }
        switch kind {
        case .blockDevice: return try entrance.admitDevice()
        case .regular:
            try entrance.checkName(target, exists: true)
            if let no = entrance.refusalForSnapshot { throw no }
            return try entrance.admitImage()
        case .directory, .other: throw .refused(.wrongKind(name ?? target, path))
        case nil:
            if let place { return try entrance.admitNewVolume(place) }
            try entrance.checkName(target, exists: false)
            if let no = entrance.refusalForSnapshot { throw no }
            return try entrance.admitNewImage()
        }
    }
}

/// One target on its way through the gate.
struct Entrance: Sendable {
    var path: String
    let name: String
    let source: SourceFacts
    let policy: GatePolicy
    let view: SystemView
    let volumes: (any TargetVolumes)?
    /// The target, where it was made just now.
    var newVolume: (any TargetVolume)?

    /// The state of the machine, all of it: a gate that cannot see who uses a device stays shut.
    func seeingHost() throws(ProbeError) -> HostState {
        let host = HostState(view)
        if let error = host.blindness { throw .failed(error) }
        return host
    }

    var rules: TargetRules { TargetRules(source: source, policy: policy) }

    func refusal(_ cause: Refusal.Cause, _ reason: String, advice: String? = nil) -> ProbeError {
        .refused(Refusal(cause, name, reason, advice: advice))
    }

    /// A refusal for the first of several uses, that names them all.
    func refusal(for uses: [Use]) -> ProbeError? {
        guard let first = uses.first else { return nil }
        return refusal(
            .inUse, uses.map(\.clause).joined(separator: ", and "), advice: first.advice)
    }

    /// A device for a dry run.
    func untouchable(_ device: (any BlockDevice)?, size: Int) -> any BlockDevice {
        ZeroExtendedDevice(device, name: name, size: size)
    }

    /// A target that shares bytes with the source.
    func refusalForOverlap(_ identity: DeviceIdentity, _ host: HostState) -> ProbeError? {
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

    /// Applies the rules about content and size.
    func verdict(
        _ kind: AdmittedTarget.Kind, _ identity: DeviceIdentity, _ geometry: Geometry,
        knownPartitions: [Partition] = [], volume: (any TargetVolume)? = nil
    ) throws(ProbeError) -> TargetRules.Verdict {
        let sector = kind == .image ? nil : geometry.logicalSector
        var content = Content.empty
        // A volume that was made just now holds what is nobody's any more.
        if newVolume == nil {
            content = try self.content(identity, geometry.size, sector, knownPartitions)
        }
        let target = TargetFacts(
            name: name, kind: kind, size: geometry.size, logicalSector: sector, content: content,
            fittingVolume: volume?.rounded(source.size))
        do throws(Refusal) { return try rules.apply(to: target) } catch { throw .refused(error) }
    }

    private func content(
        _ identity: DeviceIdentity, _ size: Int, _ sector: Int?, _ knownPartitions: [Partition]
    ) throws(ProbeError) -> Content {
        do throws(Errno) {
            let prober = try Prober(
                path: path, identity: identity, size: size, logicalSector: sector)
            return prober.content(
                lookingIntoPartitions: true, knownPartitions: knownPartitions)
        } catch {
            throw .failed(IOError(name, "open", error))
        }
    }
}

extension Entrance {
    func admitDevice() throws(ProbeError) -> AdmittedTarget {
        let device = try claimDevice()
        let host = try seeingHost()
        let identity = DeviceIdentity.device(device.number)
        if let no = refusalForLargeChunks(device) ?? refusalForUnzeroedChunks(device, host) {
            throw no
        }
        let isReadOnly = try asProbeError { () throws(IOError) in
            try device.requireContent()
            return try device.isReadOnly()
        }
        if isReadOnly { throw refusal(.readOnly, "it is read-only") }
        if let no = refusalForOverlap(identity, host) { throw no }
        // Not every use is a claim: a loop device on a device does not keep others out.
        if let no = refusal(for: host.uses(of: device.number)) { throw no }
        if let no = refusal(for: host.usesOfSharedBytes(with: device.number)) { throw no }
        if let no = refusalForPartOfVolume(device.number, host) { throw no }
        // Nor is a lock a claim, but a virtual machine on the device holds one.
        let isLocked = try asProbeError { () throws(IOError) in try device.lock() }
        if !isLocked {
            let owners = Claimants(host: host).ofDevice(device.number)
            let who = owners.isEmpty ? "another program" : owners.joined(separator: ", ")
            throw refusal(.locked, "it is locked by \(who)", advice: "Stop that program first.")
        }
        let partitions = host[device.number].map { host.partitions(of: $0) } ?? []
        let volume = try targetVolume(device, host)
        let verdict = try verdict(
            .blockDevice, identity, device.geometry,
            knownPartitions: partitions.map { $0.asPartition }, volume: volume)
        try checkResizing(volume, to: verdict.resizeTo)
        // What is cached of them and not yet written would be written over the replica.
        let relatives = host.relatives(of: device.number)
        for relative in relatives {
            BlockSpecialFile.writeBackCache(of: relative, dropping: !policy.isDryRun)
        }
        let size = device.geometry.size
        let target: any BlockDevice
        if policy.isDryRun {
            // What is only in the page cache yet is not counted as written.
            try? device.writeBackCache()
            target = untouchable(device, size: verdict.resizeTo ?? size)
        } else if let volume {
            target = try self.target(device, volume, verdict)
        } else {
            target = device
        }
        return AdmittedTarget(
            device: target, kind: .blockDevice, sizeBefore: size, resizeTo: verdict.resizeTo,
            relatives: relatives, wasCreated: false,
            warnings: verdict.warnings + warningsOfOverflow(device.number, host),
            isRotational: host.isRotational(Footprint(identity, on: host)))
    }

    /// Opens the device for this program alone.
    private func claimDevice() throws(ProbeError) -> BlockSpecialFile {
        do throws(IOError) {
            return try waitingOutHolders(
                { $0.errno == .resourceBusy && refusalForUses(HostState(view)) == nil },
                { () throws(IOError) in try openClaimed() })
        } catch {
            switch error.errno {
            case .some(.resourceBusy): throw explanationOfClaim()
            case .some(.readOnlyFileSystem): throw refusal(.readOnly, "it is read-only")
            case .some(.permissionDenied), .some(.notPermitted):
                // Some drivers say so of a read-only device.
                let number = try? FileStatus(path: path).device
                let device = number.flatMap { HostState(view)[$0] }
                if device?.isReadOnly == true { throw refusal(.readOnly, "it is read-only") }
                throw .failed(error)
            default: throw .failed(error)
            }
        }
    }

    private func openClaimed() throws(IOError) -> BlockSpecialFile {
        let number = (try? FileStatus(path: path))?.device
        let thin = try number.flatMap { number throws(IOError) in
            try ThinVolume(number, name: name, view: view)?.chunks
        }
        let device = try BlockSpecialFile(path: path, name: name, access: .readWrite, thin: thin)
        // The path led to another device the second time.
        if device.number != number { throw IOError(name, "open", .staleNFSFileHandle) }
        return device
    }

    /// A refusal for what uses the device, as far as it can be seen from here.
    private func refusalForUses(_ host: HostState) -> ProbeError? {
        guard let number = try? FileStatus(path: path).device else { return nil }
        return refusal(for: host.uses(of: number))
    }

    /// Who has claimed the device.
    private func explanationOfClaim() -> ProbeError {
        let host = HostState(view)
        if let no = refusalForUses(host) { return no }
        guard let number = try? FileStatus(path: path).device else {
            return refusal(.inUse, "it is in use")
        }
        let claims = Claimants(host: host).ofDevice(number)
        let who = claims.isEmpty ? "the kernel or another program" : claims.joined(separator: ", ")
        return refusal(.inUse, "it is claimed by \(who)")
    }
}
