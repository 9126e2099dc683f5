// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import WireProtocol

extension StatusService {
    /// What the sessions of one export did in one mode.
    private struct Row {
        var export: String
        var mode: String
        var open = 0
        var sum: EndedSessions.Sum
        /// With those of the open sessions.
        var counts: Session.Counts

        func sample(_ value: Int) -> MetricsText.Sample {
            MetricsText.Sample(value, ["export": export, "mode": mode])
        }
    }

    /// The metrics of what a client sees.
    ///
    /// A client that sees only some exports gets nothing of the process and of other clients.
    func metrics(for grant: Grant) -> String {
        var text = MetricsText()
        text.add(
            "blkferry_build_info", .gauge, "The version of the server.",
            [MetricsText.Sample(1, ["version": version])])
        let access =
            exports.exports.filter(grant.maySee).map { grant.limited($0.access) }
            + (exports.offersAll && grant.maySeeDevices ? [.readOnly] : [])
        text.add(
            "blkferry_exports", .gauge, "Configured exports, by what clients may do.",
            [ExportAccess.readOnly, .readWrite].map { wanted in
                MetricsText.Sample(
                    access.count(where: { $0 == wanted }), ["access": wanted.rawValue])
            })
        addSessions(to: &text, for: grant)
        if grant.selectors == nil {
            addRequests(to: &text)
            addProcess(to: &text)
        }
        return text.text
    }

    private func addSessions(to text: inout MetricsText, for grant: Grant) {
        let rows = rows(for: grant)
        func add(
            _ name: String, _ kind: MetricsText.Kind, _ help: String, _ value: (Row) -> Int?
        ) {
            text.add(
                "blkferry_\(name)", kind, help,
                rows.compactMap { row in value(row).map { row.sample($0) } })
        }
        add("sessions", .gauge, "Sessions that are open.") { $0.open }
        add("sessions_started", .counter, "Sessions that were opened.") { row in
            row.sum.ends.values.reduce(row.open, +)
        }
        text.add(
            "blkferry_sessions_ended", .counter, "Sessions that have ended, by how they ended.",
            rows.flatMap { row in
                row.sum.ends.sorted { $0.key < $1.key }.map { end, count in
                    MetricsText.Sample(
                        count, ["export": row.export, "mode": row.mode, "end": end])
                }
            })
        add("compared_bytes", .counter, "Bytes hashed for comparisons.") { $0.counts.compared }
        add("changed_bytes", .counter, "Bytes of regions that differed.") { $0.counts.changed }
        add("read_bytes", .counter, "Bytes read and sent to clients.") { $0.counts.read }
        add("written_bytes", .counter, "Bytes written to exports.") { $0.counts.written }
        add("zeroed_bytes", .counter, "Bytes of exports that were made zero.") { $0.counts.zeroed }
        add(
            "last_complete_run_timestamp_seconds", .gauge,
            "When a run was last complete, in seconds since 1970."
        ) { $0.sum.lastComplete }
    }

    /// By export and mode, in the order of their names.
    private func rows(for grant: Grant) -> [Row] {
        var rows: [EndedSessions.Key: Row] = [:]
        // At once, so that no session is counted twice or left out.
        let (open, ended) = sessions.state.withLock { (Array($0.sessions.values), $0.ended) }
        for (key, sum) in ended.sums where grant.limit(sum.found) != nil {
            rows[key] = Row(
                export: key.export.text, mode: key.mode.rawValue, sum: sum, counts: sum.counts)
        }
        for session in open {
            let found = session.permission.found
            guard grant.limit(found) != nil else { continue }
            let key = EndedSessions.Key(export: ByteString(found.name), mode: session.mode)
            var row =
                rows[key]
                ?? Row(
                    export: found.name, mode: session.mode.rawValue,
                    sum: EndedSessions.Sum(found: found), counts: Session.Counts())
            row.open += 1
            row.counts += session.counts
            rows[key] = row
        }
        return rows.values.sorted { ($0.export, $0.mode) < ($1.export, $1.mode) }
    }

    private func addRequests(to text: inout MetricsText) {
        let counts = sessions.counts
        text.add(
            "blkferry_sessions_failed", .counter, "Requests for a session that got none.",
            [MetricsText.Sample(counts.failedSessions.counted)])
        text.add(
            "blkferry_http_requests", .counter, "Answered requests, by the class of the status.",
            counts.answers.enumerated().map { index, count in
                MetricsText.Sample(count, ["status": "\(index + 1)xx"])
            })
        text.add(
            "blkferry_http_received_bytes", .counter, "Bytes in the bodies of requests.",
            [MetricsText.Sample(counts.received.counted)])
        text.add(
            "blkferry_http_sent_bytes", .counter, "Bytes in the bodies of answers.",
            [MetricsText.Sample(counts.sent.counted)])
        text.add(
            "blkferry_connections", .gauge, "Connections that are open.",
            [MetricsText.Sample(connections.count)])
    }

    /// The names are those that Prometheus's own clients use.
    private func addProcess(to text: inout MetricsText) {
        func add(_ name: String, _ kind: MetricsText.Kind, _ help: String, _ value: Int?) {
            text.add("process_\(name)", kind, help, value.map { [MetricsText.Sample($0)] } ?? [])
        }
        add("open_fds", .gauge, "Open descriptors.", ProcessUsage.descriptors)
        add("max_fds", .gauge, "The limit of open descriptors.", ProcessUsage.mostDescriptors)
        guard let usage = ProcessUsage(), let start = ProcessUsage.startTime else { return }
        text.add(
            "process_start_time_seconds", .gauge, "When the process started, since 1970.",
            [MetricsText.Sample(start)])
        text.add(
            "process_cpu_seconds", .counter, "Processor time of user and system.",
            [MetricsText.Sample(usage.processorTime)])
        add("threads", .gauge, "Threads.", usage.threads)
        add("virtual_memory_bytes", .gauge, "Virtual memory.", usage.virtualMemory)
        add("resident_memory_bytes", .gauge, "Resident memory.", usage.residentMemory)
    }
}

extension Grant {
    fileprivate func limited(_ access: ExportAccess) -> ExportAccess {
        self.access == .readOnly ? .readOnly : access
    }
}
