// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
internal import WireProtocol

/// A device that is open for reading, here or on a server.
struct SourceEndpoint: Sendable {
    var device: any BlockDevice
    var facts: SourceFacts
    var warnings: [String]
    var isRotational: Bool
    /// Where it is on a server.
    var remote: RemoteBlockDevice?
}

/// A device that a gate has admitted as target, here or on a server.
struct TargetEndpoint: Sendable {
    var device: any BlockDevice
    /// Bytes, as the gate found it.
    var sizeBefore: Int
    /// What the engine has to resize it to, in bytes.
    var resizeTo: Int?
    /// What it is resized to by whomever, in bytes.
    var resizedTo: Int?
    /// Paths of the devices here that cache the same bytes.
    var relatives: [String] = []
    var wasCreated: Bool
    var warnings: [String]
    var isRotational: Bool
    var remote: RemoteBlockDevice?
}

extension SourceEndpoint {
    /// A file of a pdiffcopy server.
    fileprivate init(_ source: PdiffcopyServer.Source) {
        self.init(
            device: source.device, facts: source.facts, warnings: source.warnings,
            isRotational: false)
    }
}

extension TargetEndpoint {
    /// One that is not written to, and has not been through the gate.
    init(comparedOnly end: SourceEndpoint) {
        self.init(
            device: end.device, sizeBefore: end.facts.size, wasCreated: false,
            warnings: end.warnings, isRotational: end.isRotational, remote: end.remote)
    }

    /// A file of a pdiffcopy server.
    fileprivate init(_ target: PdiffcopyServer.Target, isDryRun: Bool) {
        self.init(
            device: target.device, sizeBefore: target.sizeBefore,
            resizeTo: isDryRun ? nil : target.resizeTo, resizedTo: target.resizeTo,
            wasCreated: target.wasCreated, warnings: target.warnings, isRotational: false)
    }
}

/// Opens what the user names, wherever it is.
struct Endpoints {
    private let options: Replication.Options
    private let method: DigestMethod?
    private let isCancelled: @Sendable () -> Bool
    private let events: @Sendable (Replication.Event) -> Void

    /// - Throws: `invalid`, for a digest that is not to be had.
    init(
        _ options: Replication.Options, isCancelled: @escaping @Sendable () -> Bool,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(ReplicationError) {
        self.options = options
        self.isCancelled = isCancelled
        self.events = events
        method = try options.digestMethod()
    }

    /// Opens a source, or one side of a comparison.
    ///
    /// - Parameters:
    ///   - text: a selector or URL.
    ///   - block: what the other side makes of the block size, in bytes; `nil` where it is not
    ///     known yet.
    /// - Returns: the open device.
    /// - Throws: why it cannot be opened.
    func source(_ text: String, block: Int? = nil) throws(ReplicationError) -> SourceEndpoint {
        do throws(ProbeError) {
            guard let location = remote(text) else {
                let source = try openSource(text)
                return SourceEndpoint(
                    device: source.device, facts: source.facts, warnings: source.warnings,
                    isRotational: source.isRotational)
            }
            let server = try server(location, isTarget: false)
            if let other = try PdiffcopyServer.find(server) {
                return SourceEndpoint(try other.source(wishes(alignment: block ?? 1)))
            }
            let device = try RemoteBlockDevice(
                server, for: .init(mode: .read, block: block ?? options.wantedBlock),
                digest: method)
            return SourceEndpoint(
                device: device, facts: try device.sourceFacts(),
                warnings: Self.warnings(of: device), isRotational: device.record.rotational,
                remote: device)
        } catch {
            throw ReplicationError(error)
        }
    }

    /// Opens both sides of a comparison; the one here first, since its transfers bound the blocks.
    func pair(
        _ source: String, _ target: String
    ) throws(ReplicationError) -> (source: SourceEndpoint, target: TargetEndpoint) {
        var block = options.wantedBlock
        if remote(source) != nil {
            let end = try self.source(target)
            block = leastCommonMultiple(block, end.device.geometry.alignment)
            return (try self.source(source, block: block), TargetEndpoint(comparedOnly: end))
        }
        let first = try self.source(source)
        block = leastCommonMultiple(block, first.device.geometry.alignment)
        return (first, TargetEndpoint(comparedOnly: try self.source(target, block: block)))
    }

    /// Opens a target through the gate: that of this machine, or the server's.
    ///
    /// - Parameters:
    ///   - text: a selector or URL.
    ///   - source: what it is to become equal to; opened again where the block size turns out not
    ///     to fit the target.
    ///   - policy: what the user has allowed.
    /// - Returns: the admitted target.
    /// - Throws: why it cannot be opened, and the gate's refusal.
    func target(
        _ text: String, for source: inout SourceEndpoint, policy: GatePolicy
    ) throws(ReplicationError) -> TargetEndpoint {
        do throws(ProbeError) {
            if let location = remote(text) {
                return try target(on: location, source, policy)
            }
            let admitted = try SafetyGate.admit(
                text, source: source.facts, policy: policy,
                volumes: LocalVolumes(isCancelled: isCancelled))
            let target = TargetEndpoint(
                device: admitted.device, sizeBefore: admitted.sizeBefore,
                resizeTo: policy.isDryRun ? nil : admitted.resizeTo,
                resizedTo: admitted.resizeTo, relatives: admitted.relatives,
                wasCreated: admitted.wasCreated, warnings: admitted.warnings,
                isRotational: admitted.isRotational)
            try fit(&source, to: admitted.device)
            return target
        } catch {
            throw ReplicationError(error)
        }
    }

    /// Opens a source on a server again where its blocks do not fit the target here.
    private func fit(
        _ source: inout SourceEndpoint, to target: any BlockDevice
    ) throws(ProbeError) {
        if let device = source.device as? PdiffcopyDevice {
            source.device = device.fitting(target.geometry.alignment)
        }
        guard let remote = source.remote else { return }
        let block = leastCommonMultiple(remote.record.block, target.geometry.alignment)
        guard block != remote.record.block, BlockLayout.blockSizes.contains(block) else { return }
        remote.release(isComplete: false)
        let device = try RemoteBlockDevice(
            remote.server, for: .init(mode: .read, block: block), digest: method)
        source.device = device
        source.remote = device
    }

    private func target(
        on location: RemoteLocation, _ source: SourceEndpoint, _ policy: GatePolicy
    ) throws(ProbeError) -> TargetEndpoint {
        let server = try server(location, isTarget: true)
        let alignment = source.device.geometry.alignment
        if let other = try PdiffcopyServer.find(server) {
            guard !policy.concernsVolumes else {
                throw .failed(
                    .network(
                        location.text, "open",
                        reason: "a server of pdiffcopy knows nothing of --shrink, --create and "
                            + "--snapshot-target"))
            }
            return TargetEndpoint(
                try other.target(
                    for: source.facts, policy: policy, wishes(alignment: alignment)),
                isDryRun: policy.isDryRun)
        }
        let block = leastCommonMultiple(options.wantedBlock, alignment)
        let device = try RemoteBlockDevice(
            server,
            for: .init(
                mode: policy.isDryRun ? .dryRun : .write, block: block, source: source.facts,
                policy: policy),
            digest: method)
        let record = device.record
        let isCut = record.resizeTo.map { $0 < record.size } ?? false
        return TargetEndpoint(
            device: device, sizeBefore: record.sizeBefore ?? record.size,
            resizeTo: isCut && !policy.isDryRun ? record.resizeTo : nil,
            resizedTo: record.resizeTo, wasCreated: record.created ?? false,
            warnings: Self.warnings(of: device), isRotational: record.rotational, remote: device)
    }

    /// What the user wants of a server of pdiffcopy.
    private func wishes(alignment: Int) -> PdiffcopyServer.Wishes {
        PdiffcopyServer.Wishes(
            block: leastCommonMultiple(
                options.blockSize ?? PdiffcopyDevice.defaultBlock, alignment),
            digest: method, concurrency: options.concurrency)
    }

    private func remote(_ text: String) -> RemoteLocation? {
        // What it is not has been said when the options were looked at.
        guard case .remote(let location)? = try? Location(text) else { return nil }
        return location
    }

    private func server(
        _ location: RemoteLocation, isTarget: Bool
    ) throws(ProbeError) -> RemoteServer {
        let events = events
        var settings = RemoteServer.Options(
            log: { events(.note($0)) }, isCancelled: isCancelled)
        settings.bytesPerSecond = options.bytesPerSecond
        settings.token = options.access.token
        settings.trust = options.serverTrust
        settings.ssh = options.sshSettings(isTarget: isTarget)
        return try RemoteServer(location, settings)
    }

    /// The server's warnings, as the user of this side is to see them.
    private static func warnings(of device: RemoteBlockDevice) -> [String] {
        device.record.warnings.map { "\(device.name): \($0)" }
    }
}
