// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import DeviceProbe
import Testing
import WireProtocol

@Suite struct SessionPolicyTests {
    private func request(_ mode: SessionRequest.Mode = .write) -> SessionRequest {
        SessionRequest(mode: mode, block: 4096, digest: "sha256", key: nil)
    }

    @Test(arguments: [SizePolicy.refuse, .resize, .prefix, nil], [true, false])
    func `the server reads the policy that the client sent`(sizePolicy: SizePolicy?, isDryRun: Bool)
        throws
    {
        for (shrinks, creates, snapshot) in [
            (false, false, nil), (true, false, nil), (false, true, nil),
            (true, true, TargetSnapshot(name: "before")),
            (false, false, TargetSnapshot(name: "a.b+c", keeps: 7)),
            (false, true, TargetSnapshot(name: "day", keeps: 7, taken: "vg1/day-1")),
        ] as [(Bool, Bool, TargetSnapshot?)] {
            var policy = GatePolicy(
                sizePolicy: sizePolicy, overwrite: shrinks, isDryRun: isDryRun)
            policy.shrinks = shrinks
            policy.creates = creates
            policy.snapshot = snapshot
            var request = request(isDryRun ? .dryRun : .write)
            request.set(policy)
            #expect(try request.policy() == policy)
        }
    }

    @Test func `every text of a request has a limit`() {
        let long = String(repeating: "a", count: 32 << 10)
        let source = SourceRecord(
            SourceFacts(
                name: "source", size: 4096, content: .empty, logicalSector: nil, identity: nil),
            boot: nil)
        let changes: [(inout SessionRequest) -> Void] = [
            { $0.run = long }, { $0.digest = long }, { $0.fasterDigests = ["sha1", long] },
            { $0.key = long }, { $0.sizePolicy = long }, { $0.snapshot = long },
            { $0.taken = long }, { $0.source?.name = long },
        ]
        for (index, change) in changes.enumerated() {
            var request = request()
            request.source = source
            request.run = "0123456789abcdef0123456789abcdef"
            #expect(rejection { try request.check() } == nil)
            change(&request)
            #expect(rejection { try request.check() } != nil, "\(index)")
        }
    }

    @Test func `an option that is not requested is not in the request`() {
        var plain = request()
        plain.set(GatePolicy(sizePolicy: .resize, overwrite: true))
        #expect(plain.shrink == nil && plain.create == nil)
        #expect(plain.snapshot == nil && plain.keep == nil && plain.taken == nil)
    }

    @Test func `a snapshot that was taken is named only with a history that keeps it`() {
        for (snapshot, keep, taken) in [
            ("day", nil, "vg1/day-1"), (nil, nil, "vg1/day-1"), ("day", 7, "day-1"), ("day", 7, ""),
            ("day", 7, "vg1/-f"), ("day", 7, "a/b/c"),
        ] as [(String?, Int?, String)] {
            var request = request()
            request.snapshot = snapshot
            request.keep = keep
            request.taken = taken
            #expect(rejection { try request.policy() } != nil)
        }
    }

    @Test func `an impossible policy is rejected`() {
        for (sizePolicy, snapshot, keep) in [
            ("grow", nil, nil), (nil, "a/b", nil), (nil, "", nil), (nil, "-f", nil),
            (nil, "a b", nil), (nil, "a", 0), (nil, "a", -1), (nil, nil, 1),
            (nil, String(repeating: "a", count: 128), nil),
        ] as [(String?, String?, Int?)] {
            var request = request()
            request.sizePolicy = sizePolicy
            request.snapshot = snapshot
            request.keep = keep
            #expect(rejection { try request.policy() } != nil)
        }
    }
}
