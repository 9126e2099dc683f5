// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Sources that another program writes while they are read.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SourceChangeTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let size = 12 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
        target = scratch.file("target")
        try must("touch", "-d", "2020-01-01", source)
    }

    /// Writes to the source as a program does that keeps its time of modification.
    private func writeAndSetBack() throws {
        try overwrite(source, [1, 2, 3], at: 0)
        try must("touch", "-d", "2020-01-01", source)
    }

    private func modified() throws -> String { try must("stat", "-c", "%y", source) }

    @Test(arguments: [false, true])
    func `a write to the source gives a warning although its time was set back`(isServed: Bool)
        throws
    {
        let server = try isServed ? ServeProcess(source, prefix: slowReads(by: 8)) : nil
        let before = try modified()
        let result = try blkferry(
            slowly: ["--json", server?.url(source) ?? source, target],
            once: { holdsData(target) }, writeAndSetBack)
        #expect(try modified() == before)
        #expect(result.status == 0, "\(result)")
        #expect(result.output.contains("\"sourceChanged\":true"))
        #expect(result.errors.contains("changed while it was read"))
    }

    @Test func `reading the source, as a backup does, is no change of it`() throws {
        let result = try blkferry(
            slowly: ["--json", source, target], once: { holdsData(target) }
        ) { try must("cksum", source) }
        #expect(result.status == 0, "\(result)")
        #expect(result.output.contains("\"sourceChanged\":false"))
    }

    @Test(.enabled(if: isRoot, "loop devices need root"), arguments: [false, true])
    func `a write to the file behind the source gives a warning`(isServed: Bool) throws {
        let loop = try LoopDevice(backingFile: source)
        let server = try isServed ? ServeProcess(loop.path, prefix: slowReads(by: 8)) : nil
        let result = try blkferry(
            slowly: ["--json", server?.url(loop.path) ?? loop.path, target],
            once: { holdsData(target) }, writeAndSetBack)
        withExtendedLifetime((loop, server)) {}
        #expect(result.status == 0, "\(result)")
        #expect(result.output.contains("\"sourceChanged\":true"), "\(result)")
    }

    /// The kernel has yet to write the pages back, which changes the file behind the source.
    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `a write through a loop device before the run is no change of it`() throws {
        let loop = try LoopDevice(backingFile: source)
        // The last close would write the pages back.
        let held = try FileHandle(forUpdating: URL(fileURLWithPath: loop.path))
        try held.write(contentsOf: Data(repeating: 0xA5, count: 1 << 20))
        let result = try blkferry("--json", loop.path, target)
        #expect(result.status == 0, "\(result)")
        #expect(result.output.contains("\"sourceChanged\":false"), "\(result)")
        #expect(try areEqual(loop.path, target))
        try held.close()
    }
}
