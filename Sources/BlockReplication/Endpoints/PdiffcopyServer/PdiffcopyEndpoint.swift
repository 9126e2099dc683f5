// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import WireProtocol

/// A file of a pdiffcopy server.
struct PdiffcopyEndpoint: Endpoint {
    private let name: String

    static func source(
        _ context: EndpointContext, block: Int?, for purpose: ReadPurpose
    ) throws(IOError) -> (OpenedSource, any Endpoint)? {
        guard let file = try find(context) else { return nil }
        let source = try file.source(
            block: Self.block(context, alignment: block ?? 1), digest: context.endpoints.digest,
            concurrency: context.endpoints.options.concurrency)
        return (source, PdiffcopyEndpoint(name: source.device.name))
    }

    static func target(
        _ context: EndpointContext, for source: OpenedSource, _ policy: GatePolicy
    ) throws(IOError) -> (AdmittedTarget, any Endpoint)? {
        guard let file = try find(context) else { return nil }
        guard !policy.concernsVolumes else {
            throw .network(
                "\(context.location)", "open",
                reason: "a server of pdiffcopy knows nothing of --shrink, --create and "
                    + "--snapshot-target")
        }
        let target = try file.target(
            for: source.facts, policy: policy,
            block: block(context, alignment: source.device.geometry.alignment),
            digest: context.endpoints.digest, concurrency: context.endpoints.options.concurrency)
        return (target, PdiffcopyEndpoint(name: target.device.name))
    }

    private static func find(_ context: EndpointContext) throws(IOError) -> PdiffcopyServer? {
        guard let server = context.server, let file = try PdiffcopyServer.find(server) else {
            return nil
        }
        if case .zstd = context.endpoints.options.compression {
            throw .network(
                "\(context.location)", "open",
                reason: "a server of pdiffcopy cannot compress with zstd",
                advice: "Leave --compress zstd out.")
        }
        return file
    }

    private static func block(_ context: EndpointContext, alignment: Int) -> Int {
        leastCommonMultiple(
            context.endpoints.options.blockSize ?? PdiffcopyDevice.defaultBlock, alignment)
    }

    var reasonForNoTail: String? { "a server of pdiffcopy writes nothing behind the replica" }

    func identity() -> [String] { ["url", name] }
}
