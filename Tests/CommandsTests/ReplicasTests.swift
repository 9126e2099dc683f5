// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing
import WireProtocol

@testable import Commands

/// `blkferry replicas` where there is no LVM, so that no refresh succeeds; the scenario
/// `refresh-config` of tools/lab lists one that does.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ReplicasTests {
    private let scratch: ScratchDirectory
    private let file: String
    private let image: String

    init() throws {
        scratch = try ScratchDirectory()
        file = scratch.file("web.conf")
        image = try scratch.sparseFile("image", size: 4096)
        try write("source = \(image)\ntarget = /one\ntarget = /two\n", to: file)
    }

    private func write(_ text: String, to path: String) throws {
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
    }

    private var state: String { scratch.file("state") }

    private func run(_ arguments: String...) throws -> ProgramResult {
        try RunningProgram([program] + arguments, environment: ["STATE_DIRECTORY": state]).wait()
    }

    private func entries(_ result: ProgramResult) throws -> [Record] {
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        let list = Record(try #require(object as? [String: Any]))
        return try #require(list.records("replicas"))
    }

    /// Makes each state one of a run that succeeded so long ago.
    private func succeed(secondsAgo: Int) throws {
        let start = Int(Date().timeIntervalSince1970) - secondsAgo
        for name in try FileManager.default.contentsOfDirectory(atPath: state) {
            let path = "\(state)/\(name)"
            let data = try Data(contentsOf: URL(fileURLWithPath: path))
            var object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
            let run: [String: Any] = [
                "start": start, "end": start + 5, "exitStatus": 0, "different": 1 << 20,
            ]
            object["lastSuccess"] = run
            object["lastRun"] = run
            try JSONSerialization.data(withJSONObject: object)
                .write(to: URL(fileURLWithPath: path))
        }
    }

    @Test func `a replica that was never refreshed is wrong`() throws {
        let result = try run("replicas", file)
        #expect(result.status == 1)
        #expect(result.output.contains("\(file)  /one") && result.output.contains("  wrong\n"))
        #expect(
            result.errors.hasPrefix(
                "blkferry: warning: \(file): /one: it has never been refreshed by its file\n"))
    }

    @Test func `a run that failed is wrong until one succeeds`() throws {
        #expect(try run("refresh", "--config", file).status == 3)
        let failed = try run("replicas", file)
        #expect(failed.status == 1)
        let error = "\(image): find volume: it is no logical volume"
        #expect(
            failed.errors == """
                blkferry: warning: \(file): /one: the last run ended with 3: \(error)
                blkferry: warning: \(file): /two: the last run ended with 3: \(error)

                """)

        try succeed(secondsAgo: 7200)
        let good = try run("replicas", file)
        #expect(good.status == 0 && good.errors.isEmpty, "\(good)")
        #expect(good.output.contains(/\/two +\d{4}-\d\d-\d\d \d\d:\d\d +2:00:0\d +1.00 MiB +ok\n/))

        // A later failure does not change the age of the replica.
        #expect(try run("refresh", "--config", file).status == 3)
        let entries = try entries(run("replicas", "--json", file))
        let entry = try #require(entries.first)
        #expect(entry.record("lastRun")?.int("exitStatus") == 3)
        #expect(entry.record("lastRun")?.string("error") == error)
        #expect((7200...7300).contains(entry.int("lag") ?? 0))
        #expect(entry.strings("problems") == ["the last run ended with 3: \(error)"])
    }

    @Test func `a replica older than --max-lag is wrong`() throws {
        _ = try run("refresh", "--config", file)
        try succeed(secondsAgo: 7200)
        #expect(try run("replicas", "--max-lag", "3h", file).status == 0)
        let result = try run("replicas", "--max-lag", "1h", file)
        #expect(result.status == 1)
        #expect(result.errors.contains("/one: the replica is older than --max-lag"), "\(result)")
    }

    @Test func `a wrong file is an entry with its error`() throws {
        try write("source = \(image)\ntarget = /one\nbwlimt = 1M\n", to: file)
        let result = try run("replicas", "--json", file)
        #expect(result.status == 1 && result.errors.isEmpty)
        let entries = try entries(result)
        let entry = try #require(entries.first)
        #expect(entry.string("name") == file && entry.string("target") == nil)
        #expect(
            entry.strings("problems")?.first?.hasPrefix(
                "\(file):3: Unknown option '--bwlimt'") == true)
    }

    @Test func `a damaged state is wrong, and the next run replaces it`() throws {
        _ = try run("refresh", "--config", file)
        for name in try FileManager.default.contentsOfDirectory(atPath: state) {
            try write("{", to: "\(state)/\(name)")
        }
        #expect(try run("replicas", file).errors.contains("read: it is not JSON"))
        _ = try run("refresh", "--config", file)
        #expect(try run("replicas", file).errors.contains("the last run ended with 3"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: state).count == 2)
    }

    @Test func `a refresh without a file leaves no state`() throws {
        _ = try run("refresh", image, "/one")
        #expect(!FileManager.default.fileExists(atPath: state))
    }

    @Test func `the next run is that of the timer`() throws {
        // As systemctl list-timers --output=json prints it, in microseconds.
        let text = """
            [{"next":1764806400000000,"left":1764806400000000,"last":0,"passed":0,\
            "unit":"blkferry-refresh@web.timer","activates":"blkferry-refresh@web.service"},\
            {"next":null,"left":null,"last":0,"passed":0,"unit":"blkferry-refresh@db.timer",\
            "activates":"blkferry-refresh@db.service"}]
            """
        let timers = try Array(text.utf8).withUnsafeBytes {
            try WireJSON.decode([RefreshTimer].self, from: $0)
        }
        #expect(timers.filter { $0.isOf("web") }.map(\.seconds) == [1_764_806_400])
        #expect(timers.filter { $0.isOf("db") }.map(\.seconds) == [nil])
    }
}
