// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import SystemPackage
internal import WireProtocol

/// A block device or an image of this machine.
struct LocalEndpoint: Endpoint {
    private let device: any BlockDevice
    private let selector: Selector

    static func source(
        _ context: EndpointContext, block: Int?, for purpose: ReadPurpose
    ) throws(IOError) -> (OpenedSource, any Endpoint)? {
        guard case .local(let selector) = context.location else { return nil }
        let source = try openSource(selector, for: purpose)
        return (source, LocalEndpoint(device: source.device, selector: selector))
    }

    static func target(
        _ context: EndpointContext, for source: OpenedSource, _ policy: GatePolicy
    ) throws(IOError) -> (AdmittedTarget, any Endpoint)? {
        guard case .local(let selector) = context.location else { return nil }
        let endpoints = context.endpoints
        let target = try SafetyGate.admit(
            selector, source: source.facts, policy: policy,
            volumes: LVMVolumeManager(isCancelled: endpoints.isCancelled),
            patience: GatePatience(
                // With a wait everything is retried.
                endpoints.options.wait == nil ? GatePatience.usual : .zero,
                isCancelled: endpoints.isCancelled,
                report: { endpoints.events(.waiting($0)) }))
        // A volume is found without the pool in which it was created.
        let place = policy.creates ? VolumePlace(selector.description) : nil
        let found = place.map { Selector($0.selector) } ?? selector
        return (target, LocalEndpoint(device: target.device, selector: found))
    }

    func identity() throws(IOError) -> [String] { ["here", try Self.stableName(of: selector)] }

    /// The tag that does not change with the content of a device, or its canonical path.
    static func stableName(of selector: Selector) throws(IOError) -> String {
        let path = try resolve(selector)
        return try describe(path: path, as: path).stableTag ?? (try? canonicalPath(path)) ?? path
    }

    func counterOfSource() throws(IOError) -> HostCounter? { try persistentCounter(asFound: true) }

    func counterOfOnlyWriter() throws(IOError) -> HostCounter? {
        let counter = try persistentCounter(asFound: false)
        // Asked after the counter was read, which may include a write of the last moment.
        guard device.reportsForeignWrites, !device.hasForeignWrites(), !device.hadOtherWriters()
        else { return nil }
        return counter
    }

    func persistentCounter(asFound isFound: Bool) throws(IOError) -> HostCounter? {
        let counter = device.persistentChangeCounter()
        guard let boot = readSmallFile("/proc/sys/kernel/random/boot_id") else { return nil }
        // Of what is open: another file may have its name by now.
        guard let counter, let status = device.fileStatus,
            let identity = DeviceIdentity(status, path: try resolve(selector)),
            let host = HostRecord(identity, boot: boot, born: status.born)
        else { return nil }
        return (counter, host)
    }
}
