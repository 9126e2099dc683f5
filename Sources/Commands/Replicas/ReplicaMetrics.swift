// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// The states of all replicas in Prometheus' text format.
enum ReplicaMetrics {
    /// From where Debian's prometheus-node-exporter takes metrics.
    static let usualDirectory = "/var/lib/prometheus/node-exporter"

    /// Writes the metrics for node_exporter, if its directory exists.
    ///
    /// node_exporter reads only names that end in `.prom`, so no draft of the file.
    static func write(
        _ states: [ReplicaState], in directory: String = usualDirectory
    ) throws(IOError) {
        guard FileStatus.exists(directory) else { return }
        let path = "\(directory)/blkferry.prom"
        do throws(Errno) {
            try replaceFile(path, with: Array("\(text(of: states, at: time(nil)))\n".utf8))
        } catch {
            throw IOError(path, "write", error)
        }
    }

    private struct Family {
        /// Behind `blkferry_replica_`.
        var name: String
        /// node_exporter wants the same text in all versions.
        var help: String
        /// `nil` for no value.
        var value: (ReplicaState) -> Int?
        var labels: (ReplicaState) -> [(String, String)] = { _ in [] }
    }

    /// - Parameter now: in seconds since 1970.
    static func text(of states: [ReplicaState], at now: Int) -> String {
        families(at: now).flatMap { family in
            let name = "blkferry_replica_\(family.name)"
            let lines = states.compactMap { state in
                family.value(state).map { value in
                    let labels =
                        [
                            ("replica", state.name), ("source", state.source),
                            ("target", state.target),
                        ] + family.labels(state)
                    let list = labels.map { "\($0)=\"\(escaped($1))\"" }.joined(separator: ",")
                    return "\(name){\(list)} \(value)"
                }
            }
            return lines.isEmpty
                ? [] : ["# HELP \(name) \(family.help)", "# TYPE \(name) gauge"] + lines
        }.joined(separator: "\n")
    }

    private static func families(at now: Int) -> [Family] {
        let seconds = "in seconds since 1970."
        return [
            Family(
                name: "lag_seconds", help: "Age of the replica when this was written.",
                value: { state in state.lastSuccess.map { max(0, now - $0.start) } }),
            Family(
                name: "last_success_timestamp_seconds",
                help: "Start of the last run that ended with 0, \(seconds)",
                value: { $0.lastSuccess?.start }),
            Family(
                name: "running_since_timestamp_seconds",
                help: "Start of a run that has not ended or was killed, \(seconds)",
                value: { $0.running?.start }),
            Family(
                name: "last_run_timestamp_seconds", help: "End of the last run, \(seconds)",
                value: { $0.lastRun?.end }),
            Family(
                name: "last_run_exit_status", help: "Exit status of the last run.",
                value: { state in state.lastRun.map { Int($0.exitStatus) } }),
            Family(
                name: "last_run_duration_seconds", help: "Duration of the last run.",
                value: { state in state.lastRun.map { max(0, $0.end - $0.start) } }),
            Family(
                name: "size_bytes", help: "Size of the source in the last run.",
                value: { $0.lastRun?.size }),
            Family(
                name: "last_run_compared_bytes",
                help: "Bytes of the source that the last run compared, holes included.",
                value: { $0.lastRun?.compared }),
            Family(
                name: "last_run_different_bytes",
                help: "Bytes in blocks that differed in the last run.",
                value: { $0.lastRun?.different }),
            Family(
                name: "last_run_written_bytes", help: "Bytes of data that the last run wrote.",
                value: { $0.lastRun?.written }),
            Family(
                name: "last_run_full_comparison",
                help: "Whether the last run compared everything, and why.",
                value: { state in
                    guard let run = state.lastRun, run.size != nil else { return nil }
                    return run.fullComparison == nil ? 0 : 1
                },
                labels: { [("reason", $0.lastRun?.fullComparison ?? "")] }),
            Family(
                name: "last_verify_timestamp_seconds",
                help: "End of the last comparison of both sides, \(seconds)",
                value: { $0.lastVerify?.end }),
            Family(
                name: "last_verify_exit_status",
                help: "Exit status of the last comparison of both sides.",
                value: { state in state.lastVerify.map { Int($0.exitStatus) } }),
            Family(
                name: "last_verify_compared_bytes",
                help: "Bytes that the last comparison of both sides compared.",
                value: { $0.lastVerify?.compared }),
            Family(
                name: "last_verify_different_bytes",
                help: "Bytes in blocks that differed in the last comparison of both sides.",
                value: { $0.lastVerify?.different }),
        ]
    }

    private static func escaped(_ text: String) -> String {
        printable(text).map { $0 == "\\" ? "\\\\" : $0 == "\"" ? "\\\"" : String($0) }.joined()
    }
}
