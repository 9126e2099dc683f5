// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// An image that is smaller than its source, after a run that failed.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot, "loop devices need root"))
struct FailedRunSizeTests {
    private let scratch: ScratchDirectory
    private let source: LoopDevice
    private let image: String
    private let size = 48 << 20

    /// An image that is equal to the first half of a source.
    init() throws {
        scratch = try ScratchDirectory()
        source = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: size)
        image = scratch.file("image")
        try must(
            "dd", "if=\(source.path)", "of=\(image)", "bs=1M", "count=\(size >> 21)",
            "status=none")
    }

    enum Way: CaseIterable { case local, push, pull }

    private func sync(_ way: Way) throws -> ProgramResult {
        switch way {
        case .local: return try blkferry("-c", "1", source.path, image)
        case .push:
            let server = try ServeProcess("\(image):rw")
            return try blkferry("-c", "1", source.path, server.url(image))
        case .pull:
            let server = try ServeProcess(source.path)
            return try blkferry("-c", "1", server.url(source.path), image)
        }
    }

    @Test(arguments: Way.allCases)
    func `an image that was not written to gets its size back`(way: Way) throws {
        let before = try [UInt8](contentsOf: image)
        // A loop device answers EIO where its file no longer is.
        try must("truncate", "-s", "1M", source.backingFile)
        let result = try sync(way)
        #expect(result.status == 3, "\(result)")
        #expect(!result.errors.contains("extended"), "\(result)")
        #expect(try [UInt8](contentsOf: image) == before)
    }

    @Test(arguments: Way.allCases)
    func `the error says that an image that was written to has been extended`(way: Way) throws {
        let before = try [UInt8](contentsOf: image)
        try must("truncate", "-s", "\(size - (1 << 20))", source.backingFile)
        let result = try sync(way)
        #expect(result.status == 3, "\(result)")
        #expect(
            result.errors.contains(
                "it was extended from \(size / 2) to \(size) bytes and stays so"), "\(result)")
        let after = try [UInt8](contentsOf: image)
        #expect(after.count == size && after.starts(with: before))
    }
}
