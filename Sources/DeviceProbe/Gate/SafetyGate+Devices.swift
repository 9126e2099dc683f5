// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes
internal import SystemPackage

extension TargetAdmission {
    func admitDevice() throws(IOError) -> AdmittedTarget {
        try onceUnlocked { () throws(IOError) in try admitUnlockedDevice() }
    }

    /// Repeats all checks while another program holds a lock for a moment.
    func onceUnlocked(
        _ admit: () throws(IOError) -> AdmittedTarget
    ) throws(IOError) -> AdmittedTarget {
        var wait = GateWait(name, patience)
        while true {
            do throws(IOError) { return try admit() } catch {
                guard error.cause == .locked, wait.pauses({ error.reason }) else { throw error }
            }
        }
    }

    func refusalForLock(_ owners: [String]) -> IOError {
        let who = owners.isEmpty ? "another program" : owners.joined(separator: ", ")
        return refusal(
            .locked, "it is locked by \(who)",
            advice: "Stop that program first, or wait for it with --wait DURATION.")
    }

    private func admitUnlockedDevice() throws(IOError) -> AdmittedTarget {
        let device = try claimDevice()
        let host = try seeingHost()
        let identity = DeviceIdentity.device(device.number)
        if let no = refusalForLargeChunks(device) ?? refusalForUnzeroedChunks(device, host) {
            throw no
        }
        try device.requireContent()
        if try device.isReadOnly() { throw refusal(.readOnly, "it is read-only") }
        if let no = refusalForOverlap(identity, host) { throw no }
        if let no = StandardStreams.refusal(identity, name, host) { throw no }
        // Some uses do not claim the device: a loop device on it lets other programs open it.
        if let no = refusal(for: host.uses(of: device.number)) { throw no }
        if let no = refusal(for: host.usesOfSharedBytes(with: device.number)) { throw no }
        if let no = refusalForPartOfVolume(device.number, host) { throw no }
        // A virtual machine's lock is not a claim either.
        guard try device.lock(exclusive: true) else {
            throw refusalForLock(Claimants(host: host).ofDevice(device.number))
        }
        let backings = LoopBackings(below: identity, host)
        if let no = refusalForLockedBacking(backings) { throw no }
        // Another run may write to the same bytes through another device, such as a second loop
        // device.
        device.keep(try SharedLocks(identity, on: host).takeOnRelatives(name))
        device.flushThrough(backings.cached)
        device.setBackings(backings.all)
        let writers = backings.writers
        if !writers.isEmpty { device.checkForWriters { writers.contains { $0.isAny() } } }
        if !backings.all.isEmpty { device.checkForOthers(host.newLoops(on: identity)) }
        let partitions = host[device.number].map { host.partitions(of: $0) } ?? []
        let volume = try targetVolume(device, host)
        let verdict = try verdict(
            .blockDevice, identity, device.geometry,
            knownPartitions: partitions.map { $0.asPartition }, volume: volume)
        try checkResizing(volume, to: verdict.resizeTo)
        // Dirty pages of the relatives would be written over the replica later.
        let relatives = host.relatives(of: device.number)
        device.startCounting(besides: relatives, dropping: !policy.isDryRun)
        if !policy.isDryRun, let known = host[device.number] {
            device.keepUntilClosed(
                UdevNotice(
                    device.number, ignoresLock: known.ignoresUdevLock,
                    path: view.devicePath(known.path), sys: view.sys))
        }
        let size = device.geometry.size
        let target: any BlockDevice
        if policy.isDryRun {
            // Writes that are only in the page cache are not counted as written yet.
            try? device.writeBackCache()
            target = untouchable(device, size: verdict.resizeTo ?? size)
        } else if let volume {
            target = try self.target(device, volume, verdict)
        } else {
            target = device
        }
        return AdmittedTarget(
            device: target, kind: .blockDevice, sizeBefore: size, resizeTo: verdict.resizeTo,
            relatives: relatives, isReplica: verdict.isReplica, leftovers: verdict.erased,
            wasCreated: false,
            warnings: verdict.warnings + warningsOfOverflow(device.number, host)
                + backings.warnings(name),
            isRotational: host.isRotational(Footprint(identity, on: host)))
    }

    /// Refuses if a program has locked the file behind a loop device, which does not lock the
    /// device.
    private func refusalForLockedBacking(_ backings: LoopBackings) -> IOError? {
        guard let file = backings.files.first(where: { $0.isLocked() }) else { return nil }
        return refusal(
            .locked, "the file behind it, \(printable(file.path)), is locked by another program",
            advice: "Wait until that program has ended.")
    }

    private func claimDevice() throws(IOError) -> BlockSpecialFile {
        do throws(IOError) {
            var wait = GateWait(name, patience)
            while true {
                do throws(IOError) { return try openClaimed() } catch {
                    guard error.errno == .resourceBusy, refusalForUses(HostState(view)) == nil,
                        wait.pauses({ momentaryClaim() })
                    else { throw error }
                }
            }
        } catch {
            switch error.errno {
            case .some(.resourceBusy): throw explanationOfClaim()
            case .some(.readOnlyFileSystem): throw refusal(.readOnly, "it is read-only")
            case .some(.permissionDenied), .some(.notPermitted):
                // Some drivers report this for a read-only device.
                let number = try? FileStatus(path: path).device
                let device = number.flatMap { HostState(view)[$0] }
                if device?.isReadOnly == true { throw refusal(.readOnly, "it is read-only") }
                throw error
            default: throw error
            }
        }
    }

    private func openClaimed() throws(IOError) -> BlockSpecialFile {
        let number = (try? FileStatus(path: path))?.device
        let thin = try number.flatMap { number throws(IOError) in
            try ThinChunks(of: number, name: name, sys: view.sys, mapper: view.mapper)
        }
        let device = try BlockSpecialFile(path: path, name: name, access: .readWrite, thin: thin)
        // The path leads to another device by now.
        if device.number != number { throw IOError(name, "open", .staleNFSFileHandle) }
        return device
    }

    /// A refusal for the uses that are visible from this mount namespace.
    private func refusalForUses(_ host: HostState) -> IOError? {
        guard let number = try? FileStatus(path: path).device else { return nil }
        return refusal(for: host.uses(of: number))
    }

    /// The holder of a claim that may soon end; `nil` if the device is mounted somewhere.
    private func momentaryClaim() -> String? {
        guard let number = try? FileStatus(path: path).device else { return nil }
        let claimants = Claimants(host: HostState(view))
        guard claimants.mounts(of: number).isEmpty else { return nil }
        let claims = claimants.ofDevice(number)
        return "it is claimed by "
            + (claims.isEmpty ? "another program" : claims.joined(separator: ", "))
    }

    private func explanationOfClaim() -> IOError {
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
