// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import SyncEngine

/// What a benchmark has measured; sizes in bytes, times in seconds.
struct BenchmarkResult {
    /// One step.
    struct Row: Encodable {
        /// How much was to be changed.
        var percent: Double
        /// What was changed, in whole blocks.
        var changed: Int
        /// What the sync found to differ.
        var different: Int
        /// Data that the sync wrote.
        var written: Int
        /// What it made zeros.
        var zeroed: Int
        /// What was sent and received; `nil` where no server took part.
        var wireBytes: Int?
        /// From opening the devices to releasing them.
        var seconds: Double
        /// The same of the process of rsync; `nil` where it has not done the work.
        var rsyncSeconds: Double? { didSet { ratio = rsyncSeconds.map { $0 / seconds } } }
        /// How many times as long rsync took.
        private(set) var ratio: Double?

        init(percent: Double, changed: Int, _ tally: Tally, wireBytes: Int?, seconds: Double) {
            self.percent = percent
            self.changed = changed
            different = tally.different
            written = tally.written
            zeroed = tally.zeroed
            self.wireBytes = wireBytes
            self.seconds = seconds
        }
    }

    let source: String
    let target: String
    let steps: Int
    let pattern: ChangePlan.Pattern
    let seed: UInt64
    /// Of what was compared; `nil` where the first sync did not get to its end.
    var size: Int?
    var block = 0
    /// Its version; `nil` without it.
    var rsync: String?
    var rows: [Row] = []
    var warnings: [String] = []
    /// Whether the last thing that the target saw was a sync that went well.
    var isEqual = false

    init(
        source: String, target: String, steps: Int, pattern: ChangePlan.Pattern = .sequential,
        seed: UInt64 = 1
    ) {
        self.source = source
        self.target = target
        self.steps = steps
        self.pattern = pattern
        self.seed = seed
    }
}

extension BenchmarkResult {
    /// What was compared, in a few words.
    var conditions: String {
        "\(Wording.bytes(size ?? 0)) in blocks of \(Wording.bytes(block)), \(changes)"
    }

    var changes: String {
        switch pattern {
        case .sequential: "changed from the start"
        case .random: "blocks changed at random, seed \(seed)"
        }
    }

    /// The table that a person reads.
    var text: String {
        let hasWire = rows.contains { $0.wireBytes != nil }
        let header =
            ["delta", "changed", "data moved"] + (hasWire ? ["wire"] : [])
            + ["blkferry", "rsync", "rsync/blkferry"]
        let lines = rows.map { row in
            [Self.percent(row.percent), Wording.bytes(row.changed), Wording.bytes(row.written)]
                + (hasWire ? [row.wireBytes.map(Wording.bytes) ?? "-"] : [])
                + [
                    Self.seconds(row.seconds), row.rsyncSeconds.map(Self.seconds) ?? "-",
                    row.ratio.map { Wording.fixed($0, $0 < 9.995 ? 2 : 1) } ?? "-",
                ]
        }
        let widths = header.indices.map { column in
            ([header] + lines).map { $0[column].count }.max() ?? 0
        }
        let table = ([header] + lines).map { cells in
            zip(cells, widths).map { cell, width in
                String(repeating: " ", count: width - cell.count) + cell
            }.joined(separator: "  ")
        }
        let other = rsync.map { ", beside rsync \($0)" } ?? ""
        return (["\(source) -> \(target): \(conditions)\(other)"] + table)
            .joined(separator: "\n")
    }

    /// A percentage without zeros that say nothing: `10 %`, `33.3 %`.
    static func percent(_ percent: Double) -> String {
        let isWhole = abs(percent - percent.rounded()) < 0.05
        return "\(Wording.fixed(percent, isWhole ? 0 : 1)) %"
    }

    /// A time with three digits that count: `0.031 s`, `4.56 s`, `15.4 s`.
    static func seconds(_ seconds: Double) -> String {
        seconds < 0.9995 ? "\(Wording.fixed(seconds, 3)) s" : Wording.seconds(seconds)
    }
}

/// A benchmark as `--json` prints it (docs/json.md).
struct BenchmarkRecord: Encodable {
    private var command = "benchmark"
    private var source: String
    private var target: String
    private var size: Int
    private var blockSize: Int
    private var steps: Int
    private var pattern: String
    private var seed: UInt64?
    private var rsync: String?
    private var rows: [BenchmarkResult.Row]
    private var equal: Bool
    private var interrupted: Bool
    private var exitStatus: Int32
    private var warnings: [String]
    private var errors: [String]

    init(
        _ result: BenchmarkResult, status: ExitStatus, wasInterrupted: Bool,
        _ failures: [CommandFailure]
    ) {
        source = result.source
        target = result.target
        size = result.size ?? 0
        blockSize = result.block
        steps = result.steps
        pattern = result.pattern.rawValue
        seed = result.pattern == .random ? result.seed : nil
        rsync = result.rsync
        rows = result.rows
        equal = result.isEqual
        interrupted = wasInterrupted
        exitStatus = status.rawValue
        warnings = result.warnings
        errors = failures.map(\.message)
    }
}
