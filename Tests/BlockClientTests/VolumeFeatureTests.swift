// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import DeviceProbe
import LinuxIO
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// Servers without support for logical volumes would ignore the user's options.
@Suite(.timeLimit(.minutes(60))) struct VolumeFeatureTests {
    /// Opens a target on a server with these features.
    ///
    /// - Returns: the error, and what the server was asked.
    private func open(
        _ policy: GatePolicy, features: [String]
    ) throws -> (error: IOError?, requests: [String]) {
        let record = ServerRecord(version: "0.0.9", features: features, digests: ["sha256"])
        let heads = Mutex<[String]>([])
        let server = ScriptedServer { connection, _ in
            while let request = connection.readRequest() {
                heads.withLock {
                    $0.append(request.head.split(separator: "\r\n").first.map(String.init) ?? "")
                }
                let isInfo = request.head.hasPrefix("GET /v1 ")
                connection.answer(
                    isInfo ? 200 : 404, type: isInfo ? MediaType.json : "text/plain",
                    isInfo ? WireJSON.encode(record) : [])
            }
        }
        defer { server.stop() }
        guard case .remote(let location) = try Location(server.base + "/dev/vg0/root") else {
            throw CancellationError()
        }
        let source = SourceFacts(
            name: "S", size: 4096, content: .empty, logicalSector: 512, identity: nil)
        do throws(IOError) {
            _ = try RemoteBlockDevice(
                try RemoteServer(location, RemoteServer.Options()),
                for: .init(mode: .write, block: 4096, source: source, policy: policy), digest: nil)
            return (nil, heads.withLock { $0 })
        } catch {
            return (error, heads.withLock { $0 })
        }
    }

    private func policy(_ change: (inout GatePolicy) -> Void) -> GatePolicy {
        var policy = GatePolicy(sizePolicy: .resize)
        change(&policy)
        return policy
    }

    @Test func `the client does not ask an older server for a feature that it does not know`()
        throws
    {
        for policy in [
            policy { $0.shrinks = true }, policy { $0.creates = true },
            policy { $0.snapshot = TargetSnapshot(name: "before") },
        ] {
            let (error, requests) = try open(policy, features: ["sessions", "content"])
            #expect(error?.description.contains("version 0.0.9, knows nothing of") == true)
            #expect(requests == ["GET /v1 HTTP/1.1"])
        }
    }

    @Test func `the client asks a server that knows a feature, and needs none for a plain sync`()
        throws
    {
        let (_, requests) = try open(
            policy { $0.creates = true }, features: ["sessions", "volumes"])
        #expect(requests.count == 2 && requests.last?.hasPrefix("POST ") == true)
        let plain = try open(policy { _ in }, features: ["sessions"])
        #expect(plain.requests.count == 1 && plain.requests[0].hasPrefix("POST "))
    }
}
