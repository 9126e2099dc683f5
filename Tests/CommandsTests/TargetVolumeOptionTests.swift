// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import ArgumentParser
import BlockReplication
import TestSupport
import Testing

@testable import Commands

@Suite(.blocking) struct TargetVolumeOptionTests {
    @Test(arguments: [
        ["--shrink"], ["--shrink", "--size-policy", "prefix"], ["--keep", "2"],
        ["--create", "--shrink", "--size-policy", "refuse"],
        ["--snapshot-target", "x", "--keep", "0"], ["--create", "--benchmark", "2"],
        ["--snapshot-target", "x", "--benchmark", "2"],
    ])
    func `options that do not go together are wrong usage`(options: [String]) {
        #expect(throws: (any Error).self) { try Sync.parse(options + ["/a", "/b"]) }
    }

    @Test(arguments: [
        ["--shrink", "--size-policy", "resize"], ["--create", "--shrink"],
        ["--snapshot-target", "x", "--keep", "1"], ["--snapshot-target", "x", "--dry-run"],
    ])
    func `options that go together are accepted`(options: [String]) throws {
        _ = try Sync.parse(options + ["/a", "/b"])
    }

    @Test func `a name that no volume can have is wrong usage`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 1 << 20)
        let result = try blkferry(
            "sync", "--snapshot-target", "a b", image, scratch.file("target"))
        #expect(result.status == 64 && result.errors.contains("snapshot a b: "))
    }

    @Test func `an image has no snapshots, and is not made into a volume`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 1 << 20)
        let target = try scratch.sparseFile("target", size: 1 << 20)
        let result = try blkferry("sync", "--snapshot-target", "before", image, target)
        #expect(result.status == 2 && result.errors.contains("no logical volume"))
        #expect(try blkferry("sync", "--create", image, target).status == 0)
    }
}
