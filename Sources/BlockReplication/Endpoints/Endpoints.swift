// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// The open source and target of a run, and what the kind of each can do.
typealias Ends = (OpenedSource, AdmittedTarget, of: (source: any Endpoint, target: any Endpoint))

/// Opens the source and the target of a run.
struct Endpoints: Sendable {
    let options: Replication.Options
    /// The user's digest.
    let digest: DigestMethod?
    let isCancelled: @Sendable () -> Bool
    let events: @Sendable (Replication.Event) -> Void
    let standardInput = StandardInput()

    /// The first kind that knows a location opens it; a pdiffcopy server is known by its answers.
    private static let kinds: [any Endpoint.Type] = [
        StandardInputEndpoint.self, LocalEndpoint.self, PdiffcopyEndpoint.self, ExportEndpoint.self,
    ]

    /// Opens both sides of a comparison, the local one first: its alignment limits the block size.
    func pair(_ operands: Operands) throws(ReplicationError) -> Ends {
        let isReversed = operands.source.remote != nil
        let (near, far) =
            isReversed ? (operands.target, operands.source) : (operands.source, operands.target)
        let first = try options.comparesDigests ? openDigests(near) : open(near, for: .comparison)
        let block = leastCommonMultiple(options.wantedBlock, first.0.device.geometry.alignment)
        let second = try open(far, block: block, for: .comparison)
        let ((source, sourceEndpoint), (target, endpoint)) =
            isReversed ? (second, first) : (first, second)
        let compared = AdmittedTarget(
            device: target.device, kind: target.device.isImage ? .image : .blockDevice,
            sizeBefore: target.facts.size, wasCreated: false, warnings: target.warnings,
            isRotational: target.isRotational)
        return (source, compared, (sourceEndpoint, endpoint))
    }

    /// Opens both ends, and retries while the target is busy; between two attempts neither is open.
    func ends(
        _ operands: Operands, _ policy: GatePolicy, _ wait: inout BusyWait
    ) throws(ReplicationError) -> Ends {
        while true {
            var opened: OpenedSource?
            do throws(ReplicationError) {
                let (found, endpoint) = try open(operands.source)
                opened = found
                try options.check(found)
                var source = found
                let (target, targetEndpoint) = try find(operands.target, isTarget: true) {
                    kind, context throws(IOError) in
                    try kind.target(context, for: found, policy)
                }
                let sourceEndpoint: any Endpoint
                do throws(IOError) {
                    sourceEndpoint = try endpoint.fit(
                        &source, to: target.device.geometry.alignment)
                } catch {
                    throw ReplicationError(error)
                }
                return (source, target, (sourceEndpoint, targetEndpoint))
            } catch {
                opened.take()?.device.release(isComplete: false)
                guard wait.pauses(after: error.message, error.cause) else { throw error }
            }
        }
    }

    /// Opens the file of `blkferry digest` that is the source of a comparison.
    private func openDigests(
        _ location: Location
    ) throws(ReplicationError) -> (OpenedSource, any Endpoint) {
        do throws(IOError) {
            let source = try DigestFileEndpoint.open(
                "\(location)", options, isCancelled: isCancelled)
            return (source, DigestFileEndpoint())
        } catch {
            throw ReplicationError(error)
        }
    }

    func open(
        _ location: Location, block: Int? = nil, for purpose: ReadPurpose = .source
    ) throws(ReplicationError) -> (OpenedSource, any Endpoint) {
        try find(location, isTarget: false) { kind, context throws(IOError) in
            try kind.source(context, block: block, for: purpose)
        }
    }

    /// Asks the kinds one after the other to open a location.
    private func find<Opened>(
        _ location: Location, isTarget: Bool,
        _ open: (any Endpoint.Type, EndpointContext) throws(IOError) -> Opened?
    ) throws(ReplicationError) -> Opened {
        do throws(IOError) {
            let server = try location.remote.map { remote throws(IOError) in
                try self.server(remote, isTarget: isTarget)
            }
            let context = EndpointContext(location: location, server: server, endpoints: self)
            for kind in Self.kinds {
                if let opened = try open(kind, context) { return opened }
            }
            throw IOError("\(location)", "open", .notSupported)
        } catch {
            throw ReplicationError(error)
        }
    }

    private func server(
        _ location: RemoteLocation, isTarget: Bool
    ) throws(IOError) -> RemoteServer {
        let events = events
        var settings = RemoteServer.Options(
            log: { events(.note($0)) }, isCancelled: isCancelled)
        settings.bytesPerSecond = options.bytesPerSecond
        settings.retrySeconds = options.retryFor / .seconds(1)
        settings.reportWait = { events(.waiting($0)) }
        settings.compression = options.compression.ofClient
        settings.token = options.access.token
        settings.trust = options.serverTrust
        settings.ssh = options.sshSettings(isTarget: isTarget)
        settings.claims = usualRuntimeDirectory()
        settings.connectionsAhead =
            min(options.concurrency ?? .max, Replication.Options.longLineThreads) - 1
        return try RemoteServer(location, settings)
    }
}
