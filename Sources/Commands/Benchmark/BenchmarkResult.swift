// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import SyncEngine

/// The measurements of a benchmark; sizes in bytes, times in seconds.
struct BenchmarkResult {
    struct Row: Encodable {
        /// The planned change.
        var percent: Double
        /// The actual change, in whole blocks.
        var changed: Int
        /// The difference that the sync found.
        var different: Int
        /// Data that the sync wrote.
        var written: Int
        /// Zeros that the sync made.
        var zeroed: Int
        /// Bytes sent and received, including headers; `nil` without a server.
        var wireBytes: Int?
        /// Time from opening the devices to releasing them.
        var seconds: Double
        /// Time of the rsync process; `nil` if rsync did not do the work.
        var rsyncSeconds: Double? { didSet { ratio = rsyncSeconds.map { $0 / seconds } } }
        /// rsync's time divided by blkferry's.
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
    /// Size of the comparison; `nil` if the first sync failed.
    var size: Int?
    var block = 0
    /// rsync's version; `nil` without rsync.
    var rsync: String?
    var rows: [Row] = []
    var warnings: [String] = []
    /// Whether a successful sync was the last write to the target.
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
    var conditions: String {
        "\(Format.bytes(size ?? 0)) in blocks of \(Format.bytes(block)), \(changes)"
    }

    var changes: String {
        switch pattern {
        case .sequential: "changed from the start"
        case .random: "blocks changed at random, seed \(seed)"
        }
    }

    var text: String {
        let hasWire = rows.contains { $0.wireBytes != nil }
        let header =
            ["delta", "changed", "data moved"] + (hasWire ? ["wire"] : [])
            + ["blkferry", "rsync", "rsync/blkferry"]
        let lines = rows.map { row in
            [Self.percent(row.percent), Format.bytes(row.changed), Format.bytes(row.written)]
                + (hasWire ? [row.wireBytes.map(Format.bytes) ?? "-"] : [])
                + [
                    Self.seconds(row.seconds), row.rsyncSeconds.map(Self.seconds) ?? "-",
                    row.ratio.map { Format.fixed($0, $0 < 9.995 ? 2 : 1) } ?? "-",
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
        return (["\(printable(source)) -> \(printable(target)): \(conditions)\(other)"] + table)
            .joined(separator: "\n")
    }

    /// Formats a percentage without needless zeros: `10 %`, `33.3 %`.
    static func percent(_ percent: Double) -> String {
        let isWhole = abs(percent - percent.rounded()) < 0.05
        return "\(Format.fixed(percent, isWhole ? 0 : 1)) %"
    }

    /// Formats a time with three significant digits: `0.031 s`, `4.56 s`, `15.4 s`.
    static func seconds(_ seconds: Double) -> String {
        seconds < 0.9995 ? "\(Format.fixed(seconds, 3)) s" : Format.seconds(seconds)
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
