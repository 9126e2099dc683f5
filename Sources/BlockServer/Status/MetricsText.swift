// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A text in the format of OpenMetrics 1.0.
///
/// The format: https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
struct MetricsText {
    enum Kind: String {
        case counter
        case gauge
    }

    struct Sample {
        /// Names and values.
        var labels: KeyValuePairs<String, String> = [:]
        var value: String

        init(_ value: Int, _ labels: KeyValuePairs<String, String> = [:]) {
            self.value = "\(value)"
            self.labels = labels
        }

        init(_ value: Double) { self.value = "\(value)" }
    }

    static let mediaType = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    private var lines = ""

    /// Adds a metric family; one without samples is left out.
    ///
    /// - Parameter name: without the `_total` of counters; ends with the unit, if there is one.
    mutating func add(_ name: String, _ kind: Kind, _ help: String, _ samples: [Sample]) {
        guard !samples.isEmpty else { return }
        lines += "# TYPE \(name) \(kind.rawValue)\n"
        for unit in ["bytes", "seconds"] where name.hasSuffix("_\(unit)") {
            lines += "# UNIT \(name) \(unit)\n"
        }
        lines += "# HELP \(name) \(help)\n"
        for sample in samples {
            let labels = sample.labels.map { "\($0)=\"\(Self.escaped($1))\"" }
            lines += name + (kind == .counter ? "_total" : "")
            if !labels.isEmpty { lines += "{\(labels.joined(separator: ","))}" }
            lines += " \(sample.value)\n"
        }
    }

    var text: String { lines + "# EOF\n" }

    private static func escaped(_ value: String) -> String {
        var text = ""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\\": text += "\\\\"
            case "\"": text += "\\\""
            case "\n": text += "\\n"
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text
    }
}
