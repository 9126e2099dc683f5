// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Options for logical volumes where there are none; what they do is shown by the scenarios of
/// tools/lab.
@Suite(.blocking) struct VolumeTests {
    @Test(arguments: [
        ["sync", "--snapshot-size", "5G", "vg/a", "b"],
        ["sync", "--snapshot", "--snapshot-size", "0", "vg/a", "b"],
        ["sync", "--snapshot", "--snapshot-size", "101%", "vg/a", "b"],
        ["sync", "--snapshot", "--snapshot-size", "0%", "vg/a", "b"],
        ["sync", "--snapshot", "--snapshot-size", "x%", "vg/a", "b"],
        ["sync", "--snapshot", "http://127.0.0.1:1/vg/a", "b"],
        ["sync", "--since", "vg/s", "ssh://127.0.0.1/vg/a", "b"],
        ["sync", "--since", "vg/s", "--whole-file", "vg/a", "b"],
        ["sync", "--snapshot", "--benchmark", "2", "vg/a", "b"],
        ["refresh", "http://127.0.0.1:1/vg/a", "b"],
        ["refresh", "--since", "vg/s", "vg/a", "b"],
        ["refresh", "--snapshot-size", "1.5%", "vg/a", "b"],
        ["verify", "--snapshot", "vg/a", "b"],
    ])
    func `an impossible combination of snapshot options is wrong usage`(arguments: [String]) throws
    {
        let result = try RunningProgram([program] + arguments).wait()
        #expect(result.status == 64, "\(result)")
        #expect(result.errors.hasPrefix("blkferry: usage: ") && result.output.isEmpty)
    }

    @Test(arguments: [["sync", "--snapshot"], ["sync", "--since", "vg0/s"], ["refresh"]])
    func `the error names an image that is no logical volume, and nothing is written`(
        command: [String]
    ) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        let target = scratch.file("target")
        let result = try RunningProgram([program] + command + [image, target]).wait()
        #expect(result.status == 3)
        #expect(result.errors == "blkferry: \(image): find volume: it is no logical volume\n")
        #expect(!FileManager.default.fileExists(atPath: target))

        // Whether or not LVM is installed.
        let missing = try RunningProgram([program] + command + ["novg/nolv", target]).wait()
        #expect(missing.status == 3, "\(missing)")
        #expect(missing.errors.split(separator: "\n").count <= 2)
        #expect(!FileManager.default.fileExists(atPath: target))
    }
}
