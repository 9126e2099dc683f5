// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// A target as `blkferry replicas` lists it (docs/json.md); times in seconds since 1970.
struct ReplicaEntry: Encodable {
    var name: String
    /// Missing if the file is wrong.
    var source: String?
    var target: String?
    var lastRun: ReplicaState.Run?
    var lastSuccess: ReplicaState.Run?
    var lastVerify: ReplicaState.Run?
    /// The start of a run that is in progress.
    var runningSince: Int?
    /// The age of the replica in seconds.
    var lag: Int?
    var nextRun: Int?
    var problems: [String] = []

    /// Reads what the last runs have left.
    mutating func addState(of operands: Operands) {
        source = "\(operands.source)"
        target = "\(operands.target)"
        do throws(IOError) {
            if let state = try ReplicaState.of(operands) { add(state) }
            if lastRun == nil, runningSince == nil, problems.isEmpty {
                problems.append("it has never been refreshed by its file")
            }
        } catch {
            problems.append(error.description)
        }
    }

    mutating func add(_ state: ReplicaState) {
        source = state.source
        target = state.target
        lastRun = state.lastRun
        lastSuccess = state.lastSuccess
        lastVerify = state.lastVerify
        lag = state.lastSuccess.map { max(0, time(nil) - $0.start) }
        addProblem("run", state.lastRun)
        addProblem("verify", state.lastVerify)
        guard let running = state.running else { return }
        if isRunning(running.process) {
            runningSince = running.start
        } else {
            problems.append("the run that began at \(date(running.start)) did not end")
        }
    }

    private mutating func addProblem(_ kind: String, _ run: ReplicaState.Run?) {
        guard let run, run.exitStatus != 0 else { return }
        let reason =
            run.error
            ?? (run.different ?? 0 > 0 ? "\(Format.exactBytes(run.different ?? 0)) differ" : nil)
        problems.append(
            "the last \(kind) ended with \(run.exitStatus)" + (reason.map { ": \($0)" } ?? ""))
    }

    func printProblems(_ console: Console) {
        let object = target.map { "\(name): \($0)" } ?? name
        for problem in problems { console.warning("\(object): \(problem)") }
    }

    private static let heading = [
        "NAME", "TARGET", "LAST SUCCESS", "LAG", "CHANGED", "LAST VERIFY", "NEXT RUN", "STATE",
    ]

    static func table(of entries: [ReplicaEntry]) -> String {
        let rows = entries.map(\.row)
        let columns = Columns(heading, rows)
        return ([heading] + rows).map { columns.line($0) }.joined(separator: "\n")
    }

    private var row: [String] {
        [
            printable(name), printable(target ?? ""), lastSuccess.map { date($0.start) } ?? "",
            lag.map { Format.clock(Double($0)) } ?? "",
            lastSuccess?.different.map(Format.bytes) ?? "",
            lastVerify.map { date($0.end) } ?? "", nextRun.map(date) ?? "",
            !problems.isEmpty ? "wrong" : runningSince != nil ? "running" : "ok",
        ]
    }

    /// Local time, such as `2026-11-30 03:15`.
    private func date(_ seconds: Int) -> String {
        var seconds = seconds
        var parts = tm()
        localtime_r(&seconds, &parts)
        var text = [CChar](repeating: 0, count: 32)
        let count = strftime(&text, text.count, "%Y-%m-%d %H:%M", &parts)
        return String(decoding: text[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A timer that systemd will start next, from `systemctl list-timers`.
struct RefreshTimer: Decodable {
    private var unit: String
    /// Microseconds since 1970; `nil` if systemd knows no time.
    private var next: Int?

    var seconds: Int? { next.map { $0 / 1_000_000 } }

    func isOf(_ name: String) -> Bool { unit == "blkferry-refresh@\(name).timer" }

    /// All active ones; none without systemd.
    static func active() -> [RefreshTimer] {
        guard let program = Program.findOfSystem("systemctl"),
            let run = try? ProgramRun(
                program, ["list-timers", "--output=json", "blkferry-refresh@*"],
                reading: .wholeOutput(limit: 1 << 20), unless: { false }),
            run.failure == nil
        else { return [] }
        return run.bytes.withUnsafeBytes { (try? WireJSON.decode([Self].self, from: $0)) ?? [] }
    }
}
