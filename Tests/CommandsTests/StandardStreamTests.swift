// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

/// Targets and sources that are the program's own output.
@Suite(.blocking, .timeLimit(.minutes(60))) struct StandardStreamTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let size = 1 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
    }

    private func shell(_ script: String) throws -> ProgramResult {
        try run("sh", "-c", "cd \(scratch.path); \(script)", environment: ["B": program])
    }

    @Test(arguments: [
        "$B source /dev/stdout > t", "$B --verify source /proc/self/fd/1 > t",
        "ln -s /dev/fd/1 l; $B -q source l > t", "$B source t > t", "$B source t 2> t",
        "$B -q source /dev/stderr 2> t", "$B --json -W source /dev/fd/1 >> t",
        "touch t; $B source /dev/stdout 1<> t",
    ])
    func `an image that standard output goes to is no target`(script: String) throws {
        let result = try shell("\(script); echo $? > status")
        #expect(result.status == 0)
        #expect(try String(contentsOfFile: scratch.file("status"), encoding: .utf8) == "2\n")
        if !script.contains("2> t") {
            #expect(result.errors.contains("it is where standard output goes"), "\(result)")
            #expect(try [UInt8](contentsOf: scratch.file("t")).isEmpty)
        }
    }

    @Test func `an image that standard output goes to is no source`() throws {
        let before = try [UInt8](contentsOf: source)
        for script in ["$B source t 1<> source", "$B --json source t 2<> source"] {
            #expect(try shell(script).status == 2)
            #expect(try [UInt8](contentsOf: source) == before)
        }
    }

    @Test func `another descriptor of the caller is a target like any other file`() throws {
        let named = try shell("$B source /dev/fd/7 7> t")
        #expect(named.status == 0, "\(named)")
        #expect(try areEqual(source, scratch.file("t")))
        let nameless = try shell("exec 7<> t; rm t; $B source /dev/fd/7")
        #expect(nameless.status == 0, "\(nameless)")
    }

    @Test(arguments: ["$B source - | cat", "$B - - < source", "$B verify source -"])
    func `a dash is no target`(script: String) throws {
        let result = try shell("\(script)")
        #expect(result.errors.contains("./- is the file of that name"), "\(result)")
        #expect(!FileManager.default.fileExists(atPath: scratch.file("-")))
        #expect(try shell("$B source ./-").status == 0)
        #expect(try areEqual(source, scratch.file("-")))
    }

    @Test(
        .enabled(if: isRoot, "a /dev of its own needs root"),
        arguments: ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"], [true, false])
    func `closed descriptors never become those of the target`(
        closed: String, hasNull: Bool
    ) throws {
        let hiding = hasNull ? "" : "mount -t tmpfs none /dev && "
        let script =
            "\(hiding)exec \(program) --progress json \(source) \(scratch.file("t")) \(closed)"
        let result = try run("unshare", "--mount", "sh", "-c", script)
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, scratch.file("t")))
    }
}
