// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe

/// A chart of a benchmark in SVG 1.1: time over change.
struct BenchmarkChart {
    private struct Line {
        var name: String
        var color: String
        /// Percent and seconds, ascending.
        var points: [(x: Double, y: Double)]
    }

    private let result: BenchmarkResult
    private let lines: [Line]
    private let scale: Scale

    init(_ result: BenchmarkResult) {
        self.result = result
        // Both colors are dark enough for text on white.
        let own = Line(
            name: "blkferry", color: "#0b5394",
            points: result.rows.map { ($0.percent, $0.seconds) })
        let other = Line(
            name: "rsync", color: "#a33b00",
            points: result.rows.compactMap { row in row.rsyncSeconds.map { (row.percent, $0) } })
        lines = [own, other].filter { !$0.points.isEmpty }
        scale = Scale(upTo: lines.flatMap { $0.points.map(\.y) }.max() ?? 1)
    }

    /// The ticks of the time axis: a few round numbers from 0.
    struct Scale {
        /// Distance of two ticks, in units of the last decimal.
        private let step: Int
        private let decimals: Int
        let count: Int
        private let unit: Double

        /// Chooses the smallest step of 1, 2 or 5 that needs at most five ticks.
        init(upTo largest: Double) {
            var unit = 0.001
            var decimals = 3
            while unit * 25 < largest {
                unit *= 10
                decimals -= 1
            }
            step = [1, 2, 5].first { unit * Double($0) * 5 >= largest } ?? 5
            count = max(1, Int((largest / (unit * Double(step))).rounded(.up)))
            (self.unit, self.decimals) = (unit, decimals)
        }

        var top: Double { value(count) }
        func value(_ tick: Int) -> Double { Double(tick * step) * unit }
        func label(_ tick: Int) -> String { Format.fixed(value(tick), max(0, decimals)) }
    }

    // Pixels.
    private static let (width, height) = (800.0, 460.0)
    private let left = 70.0
    private let right = 640.0
    private let top = 130.0
    private let bottom = 396.0
    private let labelHeight = 20.0

    private func x(_ percent: Double) -> Double { left + percent / 100 * (right - left) }
    private func y(_ seconds: Double) -> Double { bottom - seconds / scale.top * (bottom - top) }

    var text: String {
        let head = [
            element("title", ["id": "title"], title),
            element("desc", ["id": "desc"], description),
            element("rect", ["width": "100%", "height": "100%", "fill": "#fff"]),
            element("text", ["x": "24", "y": "34", "font-size": "19"], title),
            element("text", ["x": "24", "y": "58", "fill": "#555"], names),
            element("text", ["x": "24", "y": "78", "fill": "#555"], conditions),
        ]
        let (width, height) = (number(Self.width), number(Self.height))
        let start = element(
            "svg",
            [
                "xmlns": "http://www.w3.org/2000/svg", "version": "1.1", "role": "img",
                "aria-labelledby": "title desc", "viewBox": "0 0 \(width) \(height)",
                "width": width, "height": height, "font-family": "sans-serif",
                "font-size": "14", "fill": "#222",
            ], isOpen: true)
        return ([start] + head + axes + lines.flatMap(drawing) + labels + ["</svg>"])
            .joined(separator: "\n") + "\n"
    }

    private var title: String {
        let size = Format.bytes(result.size ?? 0)
        let names = lines.map { $0.name == "rsync" ? "rsync \(result.rsync ?? "")" : $0.name }
        return "Time of a sync of \(size) at growing change: \(names.joined(separator: " and "))"
    }

    private var names: String { "\(elided(result.source)) to \(elided(result.target))" }

    private var conditions: String {
        "blocks of \(Format.bytes(result.block)), \(result.changes)"
    }

    private var description: String {
        let figures = lines.map { line in
            let points = line.points.map { point in
                "\(BenchmarkResult.percent(point.x)) \(BenchmarkResult.seconds(point.y))"
            }
            return "\(line.name): \(points.joined(separator: ", "))."
        }
        return "\(result.source) to \(result.target), \(result.conditions). Time in seconds over "
            + "the changed part in percent. \(figures.joined(separator: " "))"
    }

    private var axes: [String] {
        var parts: [String] = []
        for tick in 0...scale.count {
            let place = y(scale.value(tick))
            let line = "M\(number(left)) \(number(place))H\(number(right))"
            parts.append(element("path", ["d": line, "stroke": tick == 0 ? "#222" : "#ddd"]))
            parts.append(text(scale.label(tick), left - 10, place + 5, anchor: "end"))
        }
        for percent in stride(from: 0, through: 100, by: 20) {
            let place = x(Double(percent))
            let line = "M\(number(place)) \(number(bottom))v5"
            parts.append(element("path", ["d": line, "stroke": "#222"]))
            parts.append(text("\(percent) %", place, bottom + 22, anchor: "middle"))
        }
        parts.append(text("seconds", left - 46, top - 18))
        parts.append(
            text("changed part of the target", (left + right) / 2, bottom + 46, anchor: "middle"))
        return parts
    }

    private func drawing(_ line: Line) -> [String] {
        let places = line.points.map { (number(x($0.x)), number(y($0.y))) }
        let path = element(
            "polyline",
            [
                "points": places.map { "\($0.0),\($0.1)" }.joined(separator: " "),
                "fill": "none", "stroke": line.color, "stroke-width": "2.5",
                "stroke-linejoin": "round",
            ])
        // More circles would hide the line.
        guard places.count <= 20 else { return [path] }
        return [path]
            + places.map {
                element("circle", ["cx": $0.0, "cy": $0.1, "r": "4", "fill": line.color])
            }
    }

    /// Each line's name and last time at its end; overlapping labels are moved apart.
    private var labels: [String] {
        let ends = lines.compactMap { line in
            line.points.last.map { (line, x($0.x), y($0.y)) }
        }
        .sorted { $0.2 < $1.2 }
        var places = ends.map(\.2)
        if let first = places.first, let last = places.last, places.count == 2,
            last - first < labelHeight
        {
            // The lower label stays above the axis.
            let low = min((first + last + labelHeight) / 2, bottom - 4)
            places = [low - labelHeight, low]
        }
        return zip(ends, places).map { end, place in
            let (line, x, _) = end
            let seconds = line.points.last.map { BenchmarkResult.seconds($0.y) } ?? ""
            // The white outline keeps the label readable on a line.
            return element(
                "text",
                [
                    "x": number(x + 12), "y": number(place + 5), "font-weight": "bold",
                    "fill": line.color, "stroke": "#fff", "stroke-width": "4",
                    "paint-order": "stroke",
                ], "\(line.name) \(seconds)")
        }
    }

    private func text(
        _ content: String, _ x: Double, _ y: Double, anchor: String = "start"
    ) -> String {
        element("text", ["x": number(x), "y": number(y), "text-anchor": anchor], content)
    }

    private func element(
        _ name: String, _ attributes: KeyValuePairs<String, String>, _ content: String? = nil,
        isOpen: Bool = false
    ) -> String {
        let start = "<" + name + attributes.map { " \($0.key)=\"\($0.value)\"" }.joined()
        if isOpen { return start + ">" }
        return content.map { "\(start)>\(escaped($0))</\(name)>" } ?? "\(start)/>"
    }

    private func number(_ value: Double) -> String { Format.fixed(value, 1) }

    /// Shortens a long name to its end, which says more than its start.
    private func elided(_ name: String) -> String {
        name.count > 45 ? "…\(name.suffix(44))" : name
    }

    private func escaped(_ text: String) -> String {
        var escaped = ""
        for scalar in printable(text).unicodeScalars {
            switch scalar {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            // XML 1.0 (section 2.2) does not allow these in any form.
            case "\u{FFFE}", "\u{FFFF}": escaped += "\u{FFFD}"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }
}
