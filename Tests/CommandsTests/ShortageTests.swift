// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Limits of a process: each is one clear line, and no limit is a reason to crash.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ShortageTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.sparseFile("source", size: 24 << 20)
        target = scratch.file("target")
        try fill(source, seed: 11, size: 12 << 20)
    }

    /// Runs the program under a limit of ulimit.
    private func limited(_ limit: String, _ words: [String]) throws -> ProgramResult {
        try RunningProgram(
            ["bash", "-c", "ulimit \(limit) && exec \"$0\" \"$@\"", program] + words
        ).wait()
    }

    @Test(arguments: [1_000_000, 300_000, 150_000, 110_000, 95_000, 85_000, 75_000])
    func `too little memory is a clear error, here and with a server`(kilobytes: Int) throws {
        let server = try ServeProcess(source)
        for from in [source, server.url(source)] {
            let result = try limited("-v \(kilobytes)", ["-q", from, target])
            guard result.status != 0 else {
                #expect(try areEqual(source, target))
                continue
            }
            #expect(result.status == 3 && result.errors.contains("not enough memory"), "\(result)")
        }
    }

    @Test(arguments: [7, 8, 10, 12, 16, 24])
    func `too few descriptors are a clear error, or fewer connections do the work`(count: Int)
        throws
    {
        let server = try ServeProcess(source)
        let result = try limited("-n \(count)", ["-q", "-c", "4", server.url(source), target])
        guard result.status != 0 else { return #expect(try areEqual(source, target)) }
        #expect([3, 4].contains(result.status), "\(result)")
        #expect(result.errors.lowercased().contains("too many open files"), "\(result)")
        #expect(result.errors.contains("ulimit -n"), "\(result)")
    }

    @Test func `a list of more images than the server may open has all of them`() throws {
        for index in 0..<300 { _ = try scratch.sparseFile("\(index).img", size: 1 << 20) }
        let server = try ServeProcess(
            scratch.path + "/", prefix: ["bash", "-c", "ulimit -n 200 && exec \"$0\" \"$@\""])
        let result = try blkferry("list", server.url(""), "--json")
        #expect(result.status == 0, "\(result.errors)")
        #expect(result.output.components(separatedBy: ".img\"").count > 300)
    }

    @Test(arguments: [6, 8, 10, 12, 20, 100])
    func `a server with too few descriptors ends with a line`(count: Int) throws {
        let words = ["serve", "--listen", "127.0.0.1:0", "--export", source]
        let result = try limited("-n \(count)", words)
        #expect(result.status == 3, "\(result)")
        #expect(
            result.errors.hasPrefix(
                "blkferry: server: start: the limit of open files is \(count), and 128 are needed\n"
            ),
            "\(result)")
        #expect(result.errors.contains("ulimit -n"), "\(result)")
    }

    @Test func `a server raises its limit of descriptors as far as it may`() throws {
        let server = try ServeProcess(
            source, prefix: ["bash", "-c", "ulimit -Sn 20 && exec \"$0\" \"$@\""])
        let result = try blkferry("-q", server.url(source), target)
        #expect(result.status == 0, "\(result)")
    }

    @Test(arguments: [4, 5, 6, 7, 8])
    func `a shortage of descriptors is never reported as a missing file`(count: Int) throws {
        try must("cp", source, target)
        for words in [
            ["-q", source, target], ["-q", source, scratch.file("new")], ["list"],
            ["list", "--json"],
            ["-q", "UUID=no-such-uuid", target],
        ] {
            let result = try limited("-n \(count)", words)
            guard result.status != 0 else { continue }
            #expect(result.status == 3, "\(words) \(result)")
            let isOther = result.errors.contains("no device")
            #expect(isOther || result.errors.contains("Too many open files"), "\(words) \(result)")
            #expect(isOther || result.errors.contains("ulimit -n"), "\(words) \(result)")
            #expect(!result.errors.contains("Mount /sys and /proc"), "\(words) \(result)")
        }
        let list = try limited("-n 4", ["list"])
        #expect(list.status == 3 || !list.errors.contains("Too many open files"), "\(list)")
    }

    @Test(arguments: [400_000, 140_000, 110_000, 100_000, 90_000, 70_000])
    func `a server with little memory serves, or ends with a line`(kilobytes: Int) throws {
        do {
            let server = try ServeProcess(
                source, prefix: ["bash", "-c", "ulimit -v \(kilobytes) && exec \"$0\" \"$@\""])
            let result = try blkferry("-q", "-c", "4", server.url(source), target)
            #expect(result.status == 0, "\(result)")
            #expect(server.process.isRunning)
        } catch let failure as NotListening {
            #expect(
                failure.errors.contains("not enough memory") || failure.errors.contains("threads"),
                "\(failure)")
        }
    }

    @Test func `short runs of zeros between data need no call of their own`() throws {
        var bytes = [UInt8](repeating: 0, count: 4 << 20)
        for block in stride(from: 0, to: bytes.count, by: 8192) {
            for index in block..<block + 4096 { bytes[index] = 7 }
        }
        try overwrite(source, bytes, at: 0)
        try must("cp", source, target)
        try fill(target, seed: 5, size: bytes.count)
        let log = scratch.file("log")
        let sync = try RunningProgram(
            ["strace", "-f", "-o", log, "-e", "trace=fallocate", program, "-q", source, target]
        ).wait()
        #expect(sync.status == 0, "\(sync)")
        #expect(try areEqual(source, target))
        let calls = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
        #expect(calls.filter { $0.contains("fallocate(") }.isEmpty, "\(calls.prefix(5))")
    }
}
