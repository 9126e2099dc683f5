// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import SyncEngine
internal import WireProtocol

/// A device that a blkferry server exports.
///
/// If no other kind recognizes a server, the client treats it as a blkferry server.
struct ExportEndpoint: Endpoint {
    private let remote: RemoteBlockDevice
    /// The user's digest.
    private let digest: DigestMethod?

    static func source(
        _ context: EndpointContext, block: Int?, for purpose: ReadPurpose
    ) throws(IOError) -> (OpenedSource, any Endpoint)? {
        let block = block ?? context.endpoints.options.wantedBlock
        guard let end = try ExportEndpoint(context, .init(mode: .read, block: block)) else {
            return nil
        }
        let source = OpenedSource(
            device: end.remote, facts: try end.remote.sourceFacts(), warnings: end.warnings,
            isRotational: end.remote.record.rotational)
        return (source, end)
    }

    static func target(
        _ context: EndpointContext, for source: OpenedSource, _ policy: GatePolicy
    ) throws(IOError) -> (AdmittedTarget, any Endpoint)? {
        let block = leastCommonMultiple(
            context.endpoints.options.wantedBlock, source.device.geometry.alignment)
        let purpose = RemoteBlockDevice.Purpose(
            mode: policy.isDryRun ? .dryRun : .write, block: block, source: source.facts,
            policy: policy)
        guard let end = try ExportEndpoint(context, purpose) else { return nil }
        let record = end.remote.record
        let target = AdmittedTarget(
            device: end.remote, kind: end.remote.isImage ? .image : .blockDevice,
            sizeBefore: record.sizeBefore ?? record.size, resizeTo: record.resizeTo,
            isReplica: record.replica ?? false, wasCreated: record.created ?? false,
            warnings: end.warnings, isRotational: record.rotational)
        return (target, end)
    }

    private init?(
        _ context: EndpointContext, _ purpose: RemoteBlockDevice.Purpose
    ) throws(IOError) {
        guard let server = context.server else { return nil }
        digest = context.endpoints.digest
        remote = try RemoteBlockDevice(server, for: purpose, digest: digest)
    }

    private var warnings: [String] { remote.record.warnings.map { "\(remote.name): \($0)" } }

    private init(_ remote: RemoteBlockDevice, _ digest: DigestMethod?) {
        self.remote = remote
        self.digest = digest
    }

    func fit(_ source: inout OpenedSource, to alignment: Int) throws(IOError) -> any Endpoint {
        let record = remote.record
        let block = leastCommonMultiple(record.block, alignment)
        guard block != record.block, BlockLayout.isBlock(block) else { return self }
        remote.release(isComplete: false)
        let device = try RemoteBlockDevice(
            remote.server, for: .init(mode: .read, block: block), digest: digest)
        guard device.record.size == record.size else {
            throw .network(
                device.name, "open",
                reason: "its size has changed from \(record.size) to "
                    + "\(device.record.size) bytes between two requests")
        }
        source.device = device
        return ExportEndpoint(device, digest)
    }

    var hasGap: Bool { remote.hasGap }

    func identity() -> [String] { ["url", remote.name, remote.record.device] }

    func persistentCounter(asFound isFound: Bool) throws(IOError) -> HostCounter? {
        let record = remote.record
        let counter: ChangeCounter?
        if isFound, let marks = record.stampBefore {
            counter = ChangeCounter(marks, since: record.stampBeforeSince)
        } else {
            counter = try remote.currentCounter()
        }
        return withHost(counter)
    }

    /// The server does not write back the pages of an image that is only read, so that its counter
    /// may miss a store to a memory map.
    func counterOfSource() -> HostCounter? {
        let record = remote.record
        guard !remote.isImage, let marks = record.lastingStamp else { return nil }
        return withHost(ChangeCounter(marks, since: record.lastingSince))
    }

    func counterOfOnlyWriter() throws(IOError) -> HostCounter? {
        withHost(try remote.counterOfOnlyWriter())
    }

    private func withHost(_ counter: ChangeCounter?) -> HostCounter? {
        guard let counter, let host = remote.record.host else { return nil }
        return (counter, host)
    }
}
