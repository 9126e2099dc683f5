// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing
import WireProtocol

@testable import BlockServer

/// What a token with `append-only` may ask for, without LVM and without a device.
@Suite struct AppendOnlyTests {
    private let volume = ExportTable.Found(
        id: "LVUUID=a", name: "/dev/vg0/replica", path: "/dev/vg0/replica", access: .readWrite)

    private func grant(isAppendOnly: Bool) -> Grant {
        var grant = Grant(name: "a", access: .readWrite, selectors: nil)
        grant.isAppendOnly = isAppendOnly
        return grant
    }

    /// The status of the refusal of a session; `nil` where it is allowed.
    private func refusal(
        isAppendOnly: Bool = true, isSnapshot: Bool = false,
        _ change: (inout SessionRequest) -> Void = { _ in }
    ) -> Int? {
        var request = SessionRequest(mode: .write, block: 4096, digest: "sha256", key: nil)
        change(&request)
        do throws(Problem) {
            try grant(isAppendOnly: isAppendOnly)
                .checkAppending(request, volume) { isSnapshot }
            return nil
        } catch {
            #expect(error.object == volume.name && error.kind == .access)
            return error.status
        }
    }

    @Test func `an append-only token writes, creates and takes snapshots`() {
        #expect(refusal() == nil)
        #expect(refusal { $0.snapshot = "monday" } == nil)
        #expect(refusal { $0.create = true } == nil)
        #expect(refusal { $0.overwrite = true } == nil)
    }

    @Test func `an append-only token does not remove snapshots, shrink, or write to a snapshot`() {
        let keeping = { (request: inout SessionRequest) in
            request.snapshot = "daily"
            request.keep = 7
        }
        let shrinking = { (request: inout SessionRequest) in request.shrink = true }
        #expect(refusal(keeping) == 403)
        #expect(refusal(shrinking) == 403)
        #expect(refusal(isSnapshot: true) == 403)
        #expect(refusal(isAppendOnly: false, keeping) == nil)
        #expect(refusal(isAppendOnly: false, shrinking) == nil)
        #expect(refusal(isAppendOnly: false, isSnapshot: true) == nil)
    }

    @Test func `if LVM does not answer, an append-only token writes nothing`() {
        let request = SessionRequest(mode: .write, block: 4096, digest: "sha256", key: nil)
        let silence = Problem(.busy, status: 503, "LVM cannot be asked", detail: "")
        #expect(throws: silence) {
            try grant(isAppendOnly: true)
                .checkAppending(request, volume) { () throws(Problem) -> Bool in throw silence }
        }
    }

    @Test func `an append-only token keeps or extends the size of a target, and never cuts it`()
        throws
    {
        let (limited, free) = (grant(isAppendOnly: true), grant(isAppendOnly: false))
        for size in [nil, 4096, 8192] {
            try limited.checkSize(size, now: 4096, volume.name)
        }
        for size in [0, 512, 4095] {
            let problem = #expect(throws: Problem.self) {
                try limited.checkSize(size, now: 4096, volume.name)
            }
            #expect(problem?.status == 403 && problem?.object == volume.name)
            try free.checkSize(size, now: 4096, volume.name)
        }
    }

    @Test func `a target that does not exist is no snapshot`() throws {
        #expect(try !ExportTable(exports: []).isSnapshot(volume))
    }
}
