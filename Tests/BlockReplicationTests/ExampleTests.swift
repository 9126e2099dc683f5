// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// The package of docs/example.
///
/// Its program is also a target of this package, without `package` access: a build of its own would
/// compile everything a second time.
@Suite(.blocking) struct ExampleTests {
    private static let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path

    @Test func `the example's package depends on the library and has its program`() throws {
        let scratch = try ScratchDirectory()
        let description = try must(
            "swift", "package", "--package-path", "\(Self.package)/docs/example", "--scratch-path",
            scratch.file("build"), "describe", "--type", "json")
        #expect(description.contains("\"product_dependencies\" : [\n        \"BlockReplication\""))
        #expect(description.contains("\"path\" : \"Sources/replicate\""))
    }

    @Test func `the example does what its documentation says`() throws {
        let program = builtProgram("replicate")
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
        for words in [["--refresh"], ["--since", "vg0/s"]] {
            let image = try RunningProgram([program] + words + [source, target]).wait()
            #expect(image.status == 3 && image.output.contains("it is no logical volume"))
        }
        #expect(try run(program).status == 64)
    }
}
