// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import TestSupport
import Testing

/// Usage errors that only the open source shows, with a target that is missing.
@Suite(.blocking, .timeLimit(.minutes(60))) struct NothingCreatedTests {
    @Test(arguments: [["--move-backup-gpt"], ["-b", "16M", "-c", "256"]], [[], ["--dry-run"]])
    func `options that do not fit the source are wrong usage, and no image is created`(
        options: [String], dryRun: [String]
    ) throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 << 20)
        let target = scratch.file("target")
        let server = try ServeProcess("\(scratch.path)/:rw")
        for target in [target, server.url(target)] {
            let result = try RunningProgram(
                [program] + options + dryRun + [source, target]
            ).wait()
            #expect(result.status == 64, "\(result)")
            #expect(try must("ls", scratch.path) == "source\n")
        }
    }
}
