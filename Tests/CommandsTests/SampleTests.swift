// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `verify --sample` of images; with a base, the scenario `verify-base` of tools/lab.
@Suite(.blocking) struct SampleTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let size = 20 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
        target = scratch.file("target")
        try must("cp", source, target)
    }

    private func verify(_ arguments: String...) throws -> ProgramResult {
        try RunningProgram(
            [program, "verify"] + arguments + [source, target],
            environment: ["STATE_DIRECTORY": scratch.file("state")]
        ).wait()
    }

    @Test func `a sample compares no more than its share and the two ends`() throws {
        let result = try verify("--sample", "10", "--json")
        #expect(result.status == 0)
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        let json = Record(try #require(object as? [String: Any]))
        #expect((2 << 20...4 << 20).contains(json.int("compared") ?? 0))
        #expect(json.int("unchanged") == 0 && json.double("covered") == 10)
        #expect(json.double("similarity") == 100)
        let text = try verify("--sample=10%").output
        #expect(text.contains("-> \(target): no difference in the sample\n"), "\(text)")
        #expect(text.contains(" of 20.0 MiB\ncovered     10.00 %, together with "), "\(text)")
    }

    @Test(arguments: [0, (20 << 20) - 1])
    func `a difference at an end of the devices is in each sample`(place: Int) throws {
        try overwrite(target, place == 0 ? [1, 2, 3] : [1], at: place)
        for _ in 0..<10 {
            let result = try verify("--sample", "0.1")
            #expect(result.status == 1 && result.output.contains("first differences:\n"))
        }
    }

    @Test func `the samples of a replica find each difference within a round`() throws {
        try overwrite(target, [1, 2, 3], at: 7_000_000)
        let statuses = try (0..<5).map { _ in
            try verify("--replica", "it", "--sample", "20").status
        }
        #expect(statuses.contains(1))
        // The windows of the sample that found it are compared again until they are equal.
        #expect(statuses.drop { $0 == 0 }.allSatisfy { $0 == 1 }, "\(statuses)")
        try must("cp", source, target)
        #expect(try verify("--replica", "it", "--sample", "20").status == 0)
    }

    @Test func `a round is over when everything was compared`() throws {
        for covered in ["40.00 %", "80.00 %", "100 %", "40.00 %"] {
            let text = try verify("--replica", "it", "--sample", "40").output
            #expect(text.contains("covered     \(covered),"), "\(text)")
        }
    }

    @Test(arguments: ["0", "-1", "101", "x"])
    func `another percentage is wrong usage`(percent: String) throws {
        let result = try verify("--sample=\(percent)")
        #expect(result.status == 64 && result.errors.contains("--sample"), "\(result)")
    }

    @Test func `a base needs a logical volume of this machine`() throws {
        let image = try verify("--base")
        #expect(image.status == 3)
        #expect(image.errors == "blkferry: \(source): find volume: it is no logical volume\n")
        let remote = try blkferry("verify", "--base", "http://127.0.0.1:1/a", target)
        #expect(remote.status == 64 && remote.errors.contains("--base: "), "\(remote)")
    }
}
