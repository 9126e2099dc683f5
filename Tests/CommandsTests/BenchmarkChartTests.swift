// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import SyncEngine
import TestSupport
import Testing

@testable import Commands

/// The chart of a benchmark.
@Suite(.blocking, .timeLimit(.minutes(60))) struct BenchmarkChartTests {
    /// The texts of an SVG file that parses as XML, in their order.
    private func texts(_ path: String) throws -> [String] {
        let script = """
            import sys, xml.etree.ElementTree as tree
            root = tree.parse(sys.argv[1]).getroot()
            assert root.tag == '{http://www.w3.org/2000/svg}svg', root.tag
            names = [child.tag.split('}')[1] for child in root]
            assert names[:2] == ['title', 'desc'], names
            for child in root.iter('{http://www.w3.org/2000/svg}text'): print(child.text)
            """
        return try must("python3", "-c", script, path).split(separator: "\n").map(String.init)
    }

    @Test func `the file of --plot is XML with both lines labelled, whatever the names`() throws {
        let rig = try BenchmarkRig()
        let odd = rig.scratch.file("<&\"'>")
        try must("cp", rig.source, odd)
        let chart = rig.scratch.file("chart.svg")
        for _ in 0..<2 {
            let result = try rig.run(
                "benchmark", "-B", "2", "--plot", chart, "-q", odd, rig.target)
            #expect(result.status == 0, "\(result)")
            let texts = try texts(chart)
            #expect(texts[0].contains("2.00 MiB") && texts[0].contains("rsync"))
            #expect(texts[1].contains("<&\"'> to "))
            #expect(texts.contains { $0.hasPrefix("blkferry ") && $0.hasSuffix(" s") })
            #expect(texts.contains { $0.hasPrefix("rsync ") && $0.hasSuffix(" s") })
            #expect(texts.contains("seconds") && texts.contains("100 %"))
        }
        // Nothing is left of how it was made.
        let files = try FileManager.default.contentsOfDirectory(atPath: rig.scratch.path)
        #expect(files.filter { $0.contains("chart.svg") } == ["chart.svg"])
    }

    @Test func `without rsync the chart has one line, and one step is enough`() throws {
        let rig = try BenchmarkRig()
        let chart = rig.scratch.file("chart.svg")
        let result = try rig.run(
            "benchmark", "-B", "1", "--plot", chart, rig.source, rig.target, onlyOurs: true)
        #expect(result.status == 0, "\(result)")
        let texts = try texts(chart)
        #expect(texts.filter { $0.hasPrefix("blkferry ") }.count == 1)
        #expect(!texts.contains { $0.hasPrefix("rsync ") })
    }

    @Test func `a file that is no chart is not overwritten`() throws {
        let rig = try BenchmarkRig()
        try must("ln", "-s", "/dev/null", rig.scratch.file("link.svg"))
        for path in [rig.source, rig.scratch.path, rig.scratch.file("link.svg"), rig.target] {
            let before = try [UInt8](contentsOf: rig.source)
            let result = try rig.run(
                "benchmark", "-B", "1", "--plot", path, rig.source, rig.target, onlyOurs: true)
            #expect(result.status == 64, "\(path): \(result)")
            #expect(result.errors.contains("\(path): write chart: "))
            #expect(try [UInt8](contentsOf: rig.source) == before)
        }
        // The target was not there at first, and has become an image.
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test(arguments: [
        (0.0004, "0.001", 1), (0.004, "0.004", 4), (0.031, "0.04", 4), (0.2, "0.20", 4),
        (1, "1.0", 5), (4.9, "5", 5), (15.4, "20", 4), (360, "400", 4), (12_345, "15000", 3),
    ])
    func `the time axis has few and round ticks that reach above the largest time`(
        largest: Double, top: String, count: Int
    ) {
        let scale = BenchmarkChart.Scale(upTo: largest)
        #expect(scale.count == count && scale.label(count) == top)
        #expect(scale.top >= largest && (1...5).contains(scale.count))
        #expect(scale.label(0).allSatisfy { "0.".contains($0) })
    }

    /// Where the texts at the ends of the lines are, in pixels from the top.
    private func labelHeights(_ times: [(own: Double, other: Double)]) -> [Double] {
        var result = BenchmarkResult(source: "/a", target: "/b", steps: times.count)
        result.size = 1 << 20
        result.rows = times.enumerated().map { index, time in
            var row = BenchmarkResult.Row(
                percent: 100 * Double(index + 1) / Double(times.count), changed: 1, Tally(),
                wireBytes: nil, seconds: time.own)
            row.rsyncSeconds = time.other
            return row
        }
        return BenchmarkChart(result).text.split(separator: "\n")
            .filter { $0.contains("paint-order") }
            .compactMap { $0.firstMatch(of: /y="([0-9.]+)"/).flatMap { Double($0.1) } }
    }

    @Test func `the labels of lines that end together do not overlap`() throws {
        for (own, other) in [(1.0, 1.0), (0.99, 1.0), (1.0, 0.98), (0.001, 0.001)] {
            let heights = labelHeights([(0.5, 2), (own, other)])
            #expect(heights.count == 2)
            #expect(try abs(#require(heights.first) - #require(heights.last)) >= 20)
            #expect(heights.allSatisfy { (100.0...400).contains($0) })
        }
    }
}
