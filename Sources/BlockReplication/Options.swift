// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
package import DeviceProbe
internal import Digests
internal import SyncEngine
internal import WireProtocol

extension Replication {
    /// How two devices are compared and made equal.
    public struct Options: Sendable {
        /// What happens to a target of another size than the source's.
        public enum SizePolicy: String, CaseIterable, Sendable {
            /// Sizes must be equal.
            case refuse
            /// The target gets the source's size.
            case resize
            /// A larger target is accepted and its tail left alone.
            case prefix
        }

        /// Unit of comparison and transfer in bytes, a multiple of 512 up to 16 MiB.
        ///
        /// 4 KiB by default. It is raised where a device cannot transfer so little.
        public var blockSize: Int?
        /// The digest that a device on a server is compared by, any that libcrypto has; `nil` for
        /// the fastest that both sides have.
        public var digest: String?
        /// Worker threads, 1 to 256, each with a connection of its own where a server takes part;
        /// `nil` for what suits the machine and the devices.
        public var concurrency: Int?
        /// Write everything without comparing.
        public var wholeFile = false
        /// Read both sides again after the flush and compare.
        public var verifies = false
        /// Leave unreadable blocks of the source out instead of failing.
        public var skipsUnreadable = false
        /// What happens to a target of another size; `nil` for `refuse` where it is a block device
        /// and `resize` for an image.
        ///
        /// Of a comparison only `prefix` counts: a larger target may be equal.
        public var sizePolicy: SizePolicy?
        /// Write even though something else than the source is on the target.
        public var overwrites = false
        /// Cut a logical volume that is larger than the source needs; with `sizePolicy` `resize`.
        public var shrinksVolume = false
        /// Make a logical volume that is not there: `group/volume`, a thin one with `@pool` behind.
        public var createsVolume = false
        /// Take a snapshot of this name of a logical volume before it is written.
        public var targetSnapshot: String?
        /// Date the snapshots of that name, and keep so many of them, at least 1.
        public var keptSnapshots: Int?
        /// What goes over the network at most, at least 1024; `nil` for no limit.
        public var bytesPerSecond: Int?
        /// How servers are reached.
        public var access = Access()

        public init() {}
    }

    /// What shows a server who asks, and by what it is known itself; files are in PEM.
    public struct Access: Sendable {
        /// `nil` for none; it goes to the server only.
        public var token: String?
        /// File of those who sign servers' certificates; `nil` for those of the system.
        public var authorities: String?
        /// File with the certificate of this side.
        public var certificate: String?
        /// File with its key.
        public var key: String?
        /// `sha256//` and the base64 of the digest of the server's public key; without
        /// `authorities` it takes their place.
        public var pinnedPublicKey: String?
        /// The program that reaches servers of `ssh://`, and its first arguments.
        public var sshCommand = ["ssh"]
        /// What the shell over there is to start.
        public var remoteCommand = "blkferry"

        public init() {}
    }
}

extension Replication.Options {
    /// Makes sure that options and locations are such as can be used.
    ///
    /// - Throws: `invalid`, the first thing that is wrong.
    package func check(source: String, target: String) throws(ReplicationError) {
        if let size = blockSize {
            guard BlockLayout.blockSizes.contains(size), size % 512 == 0 else {
                throw invalid("block size \(size): must be a multiple of 512 from 512 to 16 MiB")
            }
        }
        if let concurrency, !(1...256).contains(concurrency) {
            throw invalid("concurrency \(concurrency): must be from 1 to 256")
        }
        if let rate = bytesPerSecond, rate < 1024 {
            throw invalid("bwlimit \(rate): must be at least 1024 bytes a second")
        }
        if let snapshot = targetSnapshot,
            !VolumePlace.isName(snapshot) || VolumePlace.isReserved(snapshot)
        {
            throw invalid("snapshot \(snapshot): is no name that a logical volume can have")
        }
        if let kept = keptSnapshots {
            guard targetSnapshot != nil else { throw invalid("keep \(kept): of no snapshot") }
            guard kept > 0 else { throw invalid("keep \(kept): must be at least 1") }
        }
        var remoteCount = 0
        for text in [source, target] {
            guard !text.isEmpty else { throw invalid("a location is empty") }
            do throws(WireError) {
                guard case .remote(let location) = try Location(text) else { continue }
                guard location.selector != nil else {
                    throw WireError("\(text): it names a server, but no device of it")
                }
                remoteCount += 1
            } catch {
                throw invalid(error.reason)
            }
        }
        guard remoteCount < 2 else {
            throw invalid("\(source), \(target): one of them has to be a device of this machine")
        }
    }

    private func invalid(_ message: String) -> ReplicationError {
        ReplicationError(.invalid, message)
    }

    /// The unit of comparison that the user wants, in bytes.
    var wantedBlock: Int { blockSize ?? BlockLayout.defaultBlock }

    /// What the gate is to allow.
    package func policy(isDryRun: Bool) -> GatePolicy {
        var policy = GatePolicy(
            sizePolicy: sizePolicy.flatMap { DeviceProbe.SizePolicy(rawValue: $0.rawValue) },
            overwrite: overwrites, isDryRun: isDryRun)
        policy.shrinks = shrinksVolume
        policy.creates = createsVolume
        policy.snapshot = targetSnapshot.map { TargetSnapshot(name: $0, keeps: keptSnapshots) }
        return policy
    }

    func digestMethod() throws(ReplicationError) -> DigestMethod? {
        guard let digest else { return nil }
        do throws(DigestError) { return try DigestMethod(named: digest) } catch {
            throw ReplicationError(
                .invalid, "hash method \(error.object): \(error.reason)", advice: error.advice)
        }
    }

    var serverTrust: ServerTrust {
        ServerTrust(
            authorities: access.authorities, certificate: access.certificate,
            key: access.key ?? access.certificate, pin: access.pinnedPublicKey)
    }

    func sshSettings(isTarget: Bool) -> SSHSettings {
        var settings = SSHSettings()
        settings.command = access.sshCommand
        settings.remoteCommand = access.remoteCommand
        settings.isTarget = isTarget
        settings.makesVolumes = isTarget && (createsVolume || targetSnapshot != nil)
        return settings
    }
}
