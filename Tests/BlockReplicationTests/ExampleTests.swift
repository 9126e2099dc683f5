// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// The package of docs/example, built as its users build theirs.
@Suite(.blocking) struct ExampleTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path

    /// Builds it; `tools/test` has done so before, so that little is left to do.
    private func example() throws -> String {
        let build = [
            "swift", "build", "--package-path", "\(Self.root)/docs/example", "--scratch-path",
            "\(Self.root)/.build/example",
        ]
        try must(build)
        return try must(build + ["--show-bin-path"]).split(separator: "\n").last.map {
            "\($0)/replicate"
        } ?? ""
    }

    @Test func `the example builds, and does what it says`() throws {
        let program = try example()
        let scratch = try ScratchDirectory()
        let (source, target) = (scratch.file("source"), scratch.file("target"))
        var random = SeededGenerator(seed: 2)
        try Data(random.bytes(3_000_000)).write(to: URL(fileURLWithPath: source))
        let first = try run(program, source, target)
        #expect(first.status == 0, "\(first)")
        #expect(first.output.contains("733 blocks of 4096 bytes differ"))
        #expect(first.output.contains("3000000 bytes written, 0 zeroed\na replica\n"))
        #expect(try must("cmp", source, target).isEmpty)
        let second = try run(program, source, target)
        #expect(second.status == 0)
        #expect(second.output.contains("0 bytes written, 0 zeroed\na replica\n"))

        try must("mkfs.ext4", "-q", "-F", target)
        let refused = try run(program, source, target)
        #expect(refused.status == 2)
        #expect(refused.output.contains("refused: it holds ext4"))
        let missing = try run(program, scratch.file("missing"), target)
        #expect(missing.status == 3 && missing.output.contains("missing"))
        #expect(try run(program).status == 64)
    }
}
