// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import ArgumentParser
import Foundation
import TestSupport
import Testing

@testable import BlockReplication
@testable import Commands

/// The programs around a refresh; the scenario `refresh-config` of tools/lab has a snapshot between
/// them.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HooksTests {
    private let scratch: ScratchDirectory
    private let log: String

    init() throws {
        scratch = try ScratchDirectory()
        log = scratch.file("log")
    }

    /// A command that writes its variables of blkferry into the log, and ends with a status.
    ///
    /// BLKFERRY_PROGRAMS is that of the tests.
    private func command(_ status: Int = 0) -> String {
        "sh -c '{ env | grep ^BLKFERRY_ | grep -v _PROGRAMS= | sort; echo; } >>\(log); echo said; "
            + "exit \(status)'"
    }

    private func hooks(_ arguments: String..., config: String? = "web") throws -> Hooks {
        try Hooks(
            try HookOptions.parse(arguments), try Operands("vg0/web", "/srv/web.img"),
            config: config, Console(isQuiet: true), lockDirectory: scratch.file("locks"))
    }

    /// What the programs have written, without the variables that all of them have.
    private func logged() throws -> [String] {
        guard FileManager.default.fileExists(atPath: log) else { return [] }
        return try String(contentsOfFile: log, encoding: .utf8).components(separatedBy: "\n\n")
            .dropLast().map { text in
                text.split(separator: "\n")
                    .filter { !isCommon($0) }
                    .map { $0.dropFirst("BLKFERRY_".count) }.joined(separator: " ")
            }
    }

    private func isCommon(_ variable: Substring) -> Bool {
        ["CONFIG=", "SOURCE=", "TARGET=", "SNAPSHOT="].contains {
            variable.hasPrefix("BLKFERRY_\($0)")
        }
    }

    @Test func `each program has the variables of its moment, in the order of the run`() throws {
        let hooks = try hooks(
            "--before-snapshot", command(), "--after-snapshot", command(), "--after-run",
            command(), "--on-failure", command())
        try hooks.beforeSnapshot { false }
        try hooks.afterSnapshot("vg0/web.blkferry")
        hooks.finish(.init(status: .deviceError, error: "a: read: failed"))
        #expect(
            try logged() == [
                "HOOK=before-snapshot", "HOOK=after-snapshot",
                "ERROR=a: read: failed EXIT_STATUS=3 HOOK=after-run",
                "ERROR=a: read: failed EXIT_STATUS=3 HOOK=on-failure",
            ])
        let text = try String(contentsOfFile: log, encoding: .utf8)
        #expect(
            text.hasPrefix(
                "BLKFERRY_CONFIG=web\nBLKFERRY_HOOK=before-snapshot\nBLKFERRY_SOURCE=vg0/web\n"
                    + "BLKFERRY_TARGET=/srv/web.img\n\n"))
        #expect(text.contains("BLKFERRY_SNAPSHOT=vg0/web.blkferry\n"))
    }

    @Test func `after a run that ends with 0 no program for failures is started`() throws {
        let hooks = try hooks("--after-run", command(), "--on-failure", command())
        hooks.finish(.init(status: .done))
        #expect(try logged() == ["EXIT_STATUS=0 HOOK=after-run"])
    }

    @Test func `a program that fails before the snapshot refuses the run`() throws {
        let hooks = try hooks("--before-snapshot", command(7), "--after-snapshot", command())
        let failure = #expect(throws: ReplicationError.self) { try hooks.beforeSnapshot { false } }
        #expect(failure?.kind == .refused)
        #expect(failure?.message == "before-snapshot: sh: run: it ended with status 7: said")
        // The run calls this nevertheless.
        try hooks.afterSnapshot(nil)
        #expect(try logged() == ["HOOK=before-snapshot", "HOOK=after-snapshot"])
    }

    @Test(arguments: [("/no/such", "start: there is no such program"), ("/", "start: Permission")])
    func `a program that cannot be started refuses the run`(name: String, text: String) throws {
        let hooks = try hooks("--before-snapshot", name)
        let failure = #expect(throws: ReplicationError.self) { try hooks.beforeSnapshot { false } }
        #expect(failure?.kind == .refused)
        #expect(failure?.message.hasPrefix("before-snapshot: \(name): \(text)") == true)
    }

    @Test func `a signal kills the program before the snapshot, and not the one after it`() throws {
        let hooks = try hooks("--before-snapshot", "sleep 1000", "--after-snapshot", command())
        let failure = #expect(throws: ReplicationError.self) { try hooks.beforeSnapshot { true } }
        #expect(failure?.kind == .interrupted)
        try hooks.afterSnapshot(nil)
        #expect(try logged() == ["HOOK=after-snapshot"])
    }

    @Test(arguments: [false, true])
    func `what a killed run has left is started once`(isAfterSnapshot: Bool) throws {
        let arguments = ["--after-snapshot", command(), "--after-run", command()]
        do {
            let killed = try hooks(arguments[0], arguments[1], arguments[2], arguments[3])
            try killed.beforeSnapshot { false }
            if isAfterSnapshot { try killed.afterSnapshot("vg0/s") }
            // While it runs, nothing has been left.
            let other = try hooks(arguments[0], arguments[1], arguments[2], arguments[3])
            let before = try logged()
            #expect(other.finishKilled() == .done)
            #expect(try logged() == before)
            #expect(throws: ReplicationError.self) { try other.beforeSnapshot { false } }
            try other.afterSnapshot(nil)
            #expect(try logged() == before)
            withExtendedLifetime(killed) {}
        }
        let next = try hooks(arguments[0], arguments[1], arguments[2], arguments[3])
        #expect(next.finishKilled() == .done)
        #expect(try logged() == ["HOOK=after-snapshot", "EXIT_STATUS=137 HOOK=after-run"])
        #expect(next.finishKilled() == .done)
        #expect(try logged().count == 2)
    }

    @Test func `the next run starts first what a killed run has left`() throws {
        do {
            let killed = try hooks("--before-snapshot", command(), "--after-snapshot", command())
            try killed.beforeSnapshot { false }
        }
        let next = try hooks("--before-snapshot", command(), "--after-snapshot", command())
        try next.beforeSnapshot { false }
        #expect(
            try logged() == ["HOOK=before-snapshot", "HOOK=after-snapshot", "HOOK=before-snapshot"])
        next.finish(.init(status: .done))
        #expect(next.finishKilled() == .done)
        #expect(try logged().count == 3)
    }

    @Test func `a run that fails starts its programs, and keeps its status`() throws {
        let image = try scratch.sparseFile("image", size: 4096)
        let result = try blkferry(
            "refresh", "-v", "--before-snapshot", command(), "--after-run", command(4),
            "--on-failure", command(), image, "/new", environment: ["BLKFERRY_HOOK": "old"])
        #expect(result.status == 3)
        #expect(
            result.errors == """
                blkferry: \(image): find volume: it is no logical volume
                blkferry: after-run: said
                blkferry: after-run: sh: run: it ended with status 4: said
                blkferry: on-failure: said

                """)
        let error = "ERROR=\(image): find volume: it is no logical volume"
        #expect(
            try logged() == [
                "\(error) EXIT_STATUS=3 HOOK=after-run", "\(error) EXIT_STATUS=3 HOOK=on-failure",
            ])
    }

    @Test(arguments: ["a | b", "'a"])
    func `a command that only a shell could read is wrong usage`(command: String) throws {
        let result = try blkferry("refresh", "--after-run=\(command)", "/a", "/b")
        #expect(result.status == 64 && result.errors.contains("--after-run"), "\(result)")
    }
}
