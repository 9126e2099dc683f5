// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import SyncEngine
internal import WireProtocol

/// A device that is open for reading, local or on a server.
struct SourceEndpoint: Sendable {
    var device: any BlockDevice
    var facts: SourceFacts
    var warnings: [String]
    var isRotational: Bool
    var remote: RemoteBlockDevice?
}

/// A target that a safety gate admitted, local or on a server.
struct TargetEndpoint: Sendable {
    var device: any BlockDevice
    /// Bytes, as the gate found it.
    var sizeBefore: Int
    /// The size in bytes to which the engine must resize it.
    var resizeTo: Int?
    /// The size in bytes to which the engine or the server resizes it.
    var resizedTo: Int?
    /// Paths of local devices that cache the same bytes.
    var relatives: [String] = []
    var isReplica = false
    /// Ranges behind the replica that the engine zeroes; a server does that itself.
    var leftovers: [ByteRange] = []
    var wasCreated: Bool
    var warnings: [String]
    var isRotational: Bool
    var remote: RemoteBlockDevice?
}

extension SourceEndpoint {
    fileprivate init(_ source: PdiffcopyServer.Source) {
        self.init(
            device: source.device, facts: source.facts, warnings: source.warnings,
            isRotational: false)
    }
}

extension TargetEndpoint {
    /// A target that is only compared and did not pass a gate.
    init(comparedOnly end: SourceEndpoint) {
        self.init(
            device: end.device, sizeBefore: end.facts.size, wasCreated: false,
            warnings: end.warnings, isRotational: end.isRotational, remote: end.remote)
    }

    fileprivate init(_ target: PdiffcopyServer.Target, isDryRun: Bool) {
        self.init(
            device: target.device, sizeBefore: target.sizeBefore,
            resizeTo: isDryRun ? nil : target.resizeTo, resizedTo: target.resizeTo,
            wasCreated: target.wasCreated, warnings: target.warnings, isRotational: false)
    }
}

struct Endpoints {
    private let options: Replication.Options
    private let method: DigestMethod?
    private let isCancelled: @Sendable () -> Bool
    private let events: @Sendable (Replication.Event) -> Void

    /// Throws `invalid` if the digest is not available.
    init(
        _ options: Replication.Options, isCancelled: @escaping @Sendable () -> Bool,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(ReplicationError) {
        self.options = options
        self.isCancelled = isCancelled
        self.events = events
        method = try options.digestMethod()
    }

    /// - Parameters:
    ///   - text: a selector or URL.
    ///   - block: the block size in bytes that suits the other side; `nil` if it is unknown.
    ///   - purpose: ignored for a device on a server.
    func source(
        _ text: String, block: Int? = nil, for purpose: ReadPurpose = .source
    ) throws(ReplicationError) -> SourceEndpoint {
        do throws(ProbeError) {
            guard let location = remote(text) else {
                let source = try openSource(text, for: purpose)
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

    /// Opens both sides of a comparison, the local one first: its alignment limits the block size.
    func pair(
        _ source: String, _ target: String
    ) throws(ReplicationError) -> (source: SourceEndpoint, target: TargetEndpoint) {
        var block = options.wantedBlock
        if remote(source) != nil {
            let end = try self.source(target, for: .comparison)
            block = leastCommonMultiple(block, end.device.geometry.alignment)
            return (
                try self.source(source, block: block, for: .comparison),
                TargetEndpoint(comparedOnly: end)
            )
        }
        let first = try self.source(source, for: .comparison)
        block = leastCommonMultiple(block, first.device.geometry.alignment)
        return (
            first,
            TargetEndpoint(comparedOnly: try self.source(target, block: block, for: .comparison))
        )
    }

    /// Opens both ends, and retries while the target is busy; between two attempts neither is open.
    func ends(
        _ source: String, _ target: String, _ policy: GatePolicy, _ wait: inout BusyWait
    ) throws(ReplicationError) -> (SourceEndpoint, TargetEndpoint) {
        while true {
            var remote: RemoteBlockDevice?
            do throws(ReplicationError) {
                var end = try self.source(source)
                remote = end.remote
                try options.check(end)
                let targetEnd = try self.target(target, for: &end, policy: policy)
                return (end, targetEnd)
            } catch {
                remote?.release(isComplete: false)
                guard wait.pauses(after: error.message, error.cause) else { throw error }
            }
        }
    }

    /// The gate's timeout for a lock or a claim; 0 if everything is retried.
    private var patience: GatePatience {
        GatePatience(
            options.wait == nil ? GatePatience.usual : .zero, isCancelled: isCancelled,
            report: { [events] in events(.waiting($0)) })
    }

    /// - Parameters:
    ///   - text: a selector or URL.
    ///   - source: reopened if its block size does not fit the target.
    /// - Throws: also the gate's refusal.
    func target(
        _ text: String, for source: inout SourceEndpoint, policy: GatePolicy
    ) throws(ReplicationError) -> TargetEndpoint {
        do throws(ProbeError) {
            if let location = remote(text) {
                return try target(on: location, source, policy)
            }
            let admitted = try SafetyGate.admit(
                text, source: source.facts, policy: policy,
                volumes: LVMVolumeManager(isCancelled: isCancelled), patience: patience)
            let target = TargetEndpoint(
                device: admitted.device, sizeBefore: admitted.sizeBefore,
                resizeTo: policy.isDryRun ? nil : admitted.resizeTo,
                resizedTo: admitted.resizeTo, relatives: admitted.relatives,
                isReplica: admitted.isReplica, leftovers: admitted.leftovers,
                wasCreated: admitted.wasCreated,
                warnings: admitted.warnings,
                isRotational: admitted.isRotational)
            try fit(&source, to: admitted.device)
            return target
        } catch {
            throw ReplicationError(error)
        }
    }

    /// Reopens a remote source if its blocks do not fit the local target.
    private func fit(
        _ source: inout SourceEndpoint, to target: any BlockDevice
    ) throws(ProbeError) {
        source.device = source.device.fitting(target.geometry.alignment)
        guard let remote = source.remote else { return }
        let block = leastCommonMultiple(remote.record.block, target.geometry.alignment)
        guard block != remote.record.block, BlockLayout.isBlock(block) else { return }
        remote.release(isComplete: false)
        let device = try RemoteBlockDevice(
            remote.server, for: .init(mode: .read, block: block), digest: method)
        guard device.record.size == remote.record.size else {
            throw .failed(
                .network(
                    device.name, "open",
                    reason: "its size has changed from \(remote.record.size) to "
                        + "\(device.record.size) bytes between two requests"))
        }
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
            resizedTo: record.resizeTo, isReplica: record.replica ?? false,
            wasCreated: record.created ?? false,
            warnings: Self.warnings(of: device), isRotational: record.rotational, remote: device)
    }

    private func wishes(alignment: Int) -> PdiffcopyServer.Wishes {
        PdiffcopyServer.Wishes(
            block: leastCommonMultiple(
                options.blockSize ?? PdiffcopyDevice.defaultBlock, alignment),
            digest: method, concurrency: options.concurrency)
    }

    private func remote(_ text: String) -> RemoteLocation? {
        // The check of the options has reported a wrong location.
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
        settings.claims = usualRuntimeDirectory()
        return try RemoteServer(location, settings)
    }

    private static func warnings(of device: RemoteBlockDevice) -> [String] {
        device.record.warnings.map { "\(device.name): \($0)" }
    }
}
