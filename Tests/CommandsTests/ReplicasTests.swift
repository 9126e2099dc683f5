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

    /// The files of all states.
    private func states() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: state)
            .filter { $0.hasSuffix(".json") }.map { "\(state)/\($0)" }
    }

    private func change(_ change: (inout [String: Any]) -> Void) throws {
        for path in try states() {
            let data = try Data(contentsOf: URL(fileURLWithPath: path))
            var object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
            change(&object)
            try JSONSerialization.data(withJSONObject: object)
                .write(to: URL(fileURLWithPath: path))
        }
    }

    /// Makes each state one of a run that succeeded so long ago.
    private func succeed(secondsAgo: Int) throws {
        let start = Int(Date().timeIntervalSince1970) - secondsAgo
        try change {
            let run: [String: Any] = [
                "start": start, "end": start + 5, "exitStatus": 0, "different": 1 << 20,
            ]
            $0["lastSuccess"] = run
            $0["lastRun"] = run
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
        for path in try states() { try write("{", to: path) }
        #expect(try run("replicas", file).errors.contains("read: it is not JSON"))
        _ = try run("refresh", "--config", file)
        #expect(try run("replicas", file).errors.contains("the last run ended with 3"))
        #expect(try states().count == 2)
    }

    @Test func `a run without the name of a replica leaves no state`() throws {
        _ = try run("refresh", image, "/one")
        _ = try run(image, scratch.file("copy"))
        _ = try run("verify", image, scratch.file("copy"))
        #expect(!FileManager.default.fileExists(atPath: state))
    }

    @Test func `a sync and a verification with a name are listed`() throws {
        let copy = scratch.file("copy")
        #expect(try run("sync", "--replica", "mine", image, copy).status == 0)
        let entry = try #require(entries(run("replicas", "--json", "mine")).first)
        #expect(entry.string("name") == "mine" && entry.string("target") == copy)
        #expect(entry.record("lastRun")?.int("compared") == 4096)
        #expect(entry.record("lastSuccess")?.string("fullComparison") == "sync")
        #expect(entry.strings("problems") == [] && entry.record("lastVerify") == nil)

        try overwrite(image, [1], at: 0)
        #expect(try run("verify", "--replica", "mine", image, copy).status == 1)
        let wrong = try run("replicas", "mine")
        #expect(wrong.status == 1)
        let problem = "the last verify ended with 1: 4096 bytes (4.00 KiB) differ"
        #expect(wrong.errors == "blkferry: warning: mine: \(copy): \(problem)\n")
        // A sync that reads back has verified as well.
        #expect(try run("--verify", "--replica", "mine", image, copy).status == 0)
        #expect(try run("replicas", "mine").status == 0)
        let metrics = try run("replicas", "--metrics").output
        #expect(metrics.contains("_last_verify_exit_status{replica=\"mine\","), "\(metrics)")
        #expect(metrics.contains("target=\"\(copy)\",reason=\"sync\"} 1\n"), "\(metrics)")
    }

    @Test func `a state that cannot be left is a warning, and the result stays`() throws {
        try write("", to: state)
        let result = try run("sync", "--replica", "mine", image, scratch.file("copy"))
        #expect(result.status == 0)
        #expect(result.errors.contains("blkferry: warning: \(state)/"), "\(result)")
    }

    @Test func `a run that was killed has left its start, and its unit records the end`() throws {
        _ = try run("refresh", "--config", file)
        try change { $0["running"] = ["start": 1_764_500_000, "process": "boot.1.1"] }
        let killed = try run("replicas", file)
        #expect(killed.status == 1)
        #expect(killed.errors.contains("/one: the run that began at 20"), "\(killed)")
        #expect(killed.errors.contains(" did not end\n"))
        let metrics = try run("replicas", "--metrics").output
        #expect(metrics.contains("_running_since_timestamp_seconds{replica="), "\(metrics)")

        #expect(try run("refresh", "--config", file, "--finish-killed").status == 0)
        let errors = try run("replicas", file).errors
        #expect(errors.contains("/one: the last run ended with 137: killed\n"), "\(errors)")
        #expect(!errors.contains("did not end"))
    }

    @Test func `a run in progress is no problem, and its trace stays`() throws {
        try succeedingRun()
        let own = try String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        let fields =
            try String(contentsOfFile: "/proc/self/stat", encoding: .utf8)
            .split(separator: ")").last?.split(separator: " ") ?? []
        let identity = "\(own).\(ProcessInfo.processInfo.processIdentifier).\(fields[19])"
        try change { $0["running"] = ["start": 1_764_500_000, "process": identity] }
        _ = try run("refresh", "--config", file, "--finish-killed")
        let result = try run("replicas", file)
        #expect(result.status == 0 && result.output.contains("  running\n"), "\(result)")
    }

    private func succeedingRun() throws {
        _ = try run("refresh", "--config", file)
        try succeed(secondsAgo: 7200)
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
