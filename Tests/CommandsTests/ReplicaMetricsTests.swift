// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

@testable import Commands

@Suite struct ReplicaMetricsTests {
    private static let now = 1_764_500_000

    /// A refresh that fell back to a full comparison, after which a verification found a difference;
    /// a sync that was killed.
    private static let states: [ReplicaState] = {
        let run = ReplicaState.Run(
            start: now - 7200, end: now - 7100, exitStatus: 0, size: 1 << 40, compared: 1 << 40,
            unchanged: 0, different: 3 << 20, written: 2 << 20, fullComparison: "target-written")
        var web = ReplicaState(
            name: "web", source: "vg0/web", target: "ssh://root@backup/dev/vg1/web", lastRun: run,
            lastSuccess: run)
        web.lastVerify = .init(
            start: now - 600, end: now - 300, exitStatus: 1, size: 1 << 40, compared: 1 << 36,
            different: 4096)
        let failed = ReplicaState.Run(
            start: now - 90_000, end: now - 89_990, exitStatus: 4, error: "no connection")
        let data = ReplicaState(
            name: "data", source: "/srv/\"data\".img", target: "D:\\data\n",
            running: .init(start: now - 3600, process: "boot.1.2"), lastRun: failed)
        return [data, web]
    }()

    /// tools/check-alerts has promtool check this file.
    @Test func `the metrics are those of docs/metrics.prom`() throws {
        let tree = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let file = tree.appendingPathComponent("docs/metrics.prom")
        let text = ReplicaMetrics.text(of: Self.states, at: Self.now)
        #expect(try String(contentsOf: file, encoding: .utf8) == "\(text)\n")
    }

    @Test func `the file for node_exporter is replaced, and nothing stays beside it`() throws {
        let scratch = try ScratchDirectory()
        try ReplicaMetrics.write(Self.states, in: scratch.path)
        try ReplicaMetrics.write(Array(Self.states.prefix(1)), in: scratch.path)
        let names = try FileManager.default.contentsOfDirectory(atPath: scratch.path)
        #expect(names == ["blkferry.prom"])
        let text = try String(contentsOfFile: scratch.file("blkferry.prom"), encoding: .utf8)
        #expect(text.hasSuffix("\n") && !text.contains("vg0/web") && text.contains("data"))
    }

    @Test func `without node_exporter nothing is written`() throws {
        let scratch = try ScratchDirectory()
        try ReplicaMetrics.write(Self.states, in: scratch.file("none"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path).isEmpty)
    }
}
