// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Syncs in a container that has little memory: copied data does not stay in it.
@Suite(
    .enabled(if: MemoryGroup.isAvailable, "needs root and the kernel's memory controller"),
    .blocking, .timeLimit(.minutes(60)))
struct MemoryGroupTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let limit = 48 << 20
    private let size = 256 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.sparseFile("source", size: size)
        target = scratch.file("target")
        for index in 0..<16 {
            try fill(source, seed: UInt64(index), size: size / 16, offset: index * size / 16)
        }
    }

    private func limited(_ arguments: String...) throws -> ProgramResult {
        let group = try MemoryGroup(limit: limit)
        return try withExtendedLifetime(group) {
            try RunningProgram(group.prefix + [program, "-q"] + arguments).wait()
        }
    }

    @Test func `an image, and then a device, is synced in 48 MiB`() throws {
        let disk = try LoopDevice(size: size)
        for place in [target, disk.path] {
            let result = try limited("--verify", source, place)
            #expect(result.status == 0, "\(result)")
            #expect(try areEqual(source, place))
        }
    }

    @Test func `a client and a server with 48 MiB each push and pull`() throws {
        let group = try MemoryGroup(limit: limit)
        let server = try ServeProcess(scratch.path + "/:rw", prefix: group.prefix)
        // What a server needs grows with the connections.
        let push = try limited("-c", "4", source, server.url(target))
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(source, target))
        let back = scratch.file("back")
        let pull = try limited("-c", "4", server.url(target), back)
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual(source, back))
        #expect(server.process.isRunning)
        try server.kill()
        withExtendedLifetime(group) {}
    }
}
