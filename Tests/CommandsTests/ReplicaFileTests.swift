// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing

@testable import Commands

/// The file of a replica, without its reading.
@Suite struct ReplicaFileTests {
    private func file(_ text: String) throws -> ReplicaFile {
        let file = try ReplicaFile(text, at: "web.conf")
        try file.check()
        return file
    }

    @Test func `each line is an option of refresh, and each target a run`() throws {
        let file = try file(
            """
            # The web server
            source = vg0/web
            target = https://backup:8443/UUID=web   # the first one
            target=/srv/web.img

            verify
            bwlimit =\t10M
            ssh-command = ssh -i "a key"
            """)
        #expect(file.targets == ["https://backup:8443/UUID=web", "/srv/web.img"])
        #expect(
            file.arguments(for: "/srv/web.img", and: ["--quiet"]) == [
                "refresh", "--verify", "--bwlimit=10M", "--ssh-command=ssh -i \"a key\"",
                "--quiet", "--", "vg0/web", "/srv/web.img",
            ])
    }

    @Test(arguments: [
        ("bwlimt = 10M", "1: Unknown option '--bwlimt'"),
        ("\n\nquiet\nbwlimit = fast", "4: The value 'fast' is invalid for '--bwlimit"),
        ("bwlimit = 10", "1: bwlimit 10: must be at least"),
        ("verify = yes", "1: The option '--verify' does not take any value"),
        ("bwlimit", "1: Missing value for '--bwlimit"),
        ("bwlimit =", "1: bwlimit: it has no value"),
        ("quiet\nverify\nquiet", "3: quiet: line 1 has it already"),
        ("quiet\nkeep = 3\nverify", "2: --keep goes with --snapshot-target"),
        ("snapshot-target = a\nkeep = 0\nverify", "2: --keep 0: must be at least 1"),
        ("config = other", "1: config: is for the command line only"),
        ("verify\nfinish-killed", "2: finish-killed: is for the command line only"),
        ("verify\nhelp", "2: only options of a run"),
        ("version", "1: only options of a run"),
        ("v", "1: v: not an option; a line is NAME = VALUE"),
        ("--verify", "1: --verify: not an option"), ("-v", "1: -v: not an option"),
        ("Verify", "1: Verify: not an option"), ("[replica]", "1: [replica]: not an option"),
        ("bwlimit: 10M", "1: bwlimit: 10M: not an option"),
        ("verify yes", "1: verify yes: not an option"), ("= 10M", "1: : not an option"),
        ("token-file = /a\0b", "1: the line is not UTF-8 text"),
        ("token-file = /\u{FFFD}", "1: the line is not UTF-8 text"),
    ])
    func `a wrong line is wrong usage, and the error names file and line`(
        lines: String, error: String
    ) {
        let failure = #expect(throws: CommandFailure.self) {
            try file("\(lines)\nsource = vg0/web\ntarget = /srv/web.img")
        }
        #expect(failure?.status == .usage)
        let message = failure?.message ?? ""
        #expect(message.hasPrefix("web.conf:\(error)"), "\(message)")
    }

    @Test(arguments: [
        ("source = vg0/web", "web.conf: a line target = LOCATION is missing"),
        ("target = /srv/web.img", "web.conf: a line source = LOCATION is missing"),
        ("", "web.conf: a line target = LOCATION is missing"),
        ("source\ntarget = /b", "web.conf:1: source: it has no value"),
        ("source = /a\nsource = /b\ntarget = /c", "web.conf:2: source: line 1 has it already"),
        ("source = /a\ntarget = /b\ntarget = /b", "web.conf:3: target: line 2 has it already"),
        ("source = /a\ntarget = /b\ntarget = http://host", "web.conf:3: http://host"),
        ("target = /b\nverify\nsource = http://host/a", "web.conf:3: SOURCE must be a logical"),
        ("source = /a\ntarget = sync", "web.conf:2: sync: commands come first"),
    ])
    func `a wrong or missing location is wrong usage`(text: String, error: String) {
        let failure = #expect(throws: CommandFailure.self) { try file(text) }
        #expect(failure?.status == .usage)
        let message = failure?.message ?? ""
        #expect(message.hasPrefix(error), "\(message)")
    }
}
