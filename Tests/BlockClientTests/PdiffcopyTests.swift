// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import DeviceProbe
import LinuxIO
import SyncEngine
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// A server of pdiffcopy as it should be, and one that lies.
@Suite(.blocking, .timeLimit(.minutes(60))) struct PdiffcopyTests {
    private static let block = 64 << 10
    private static let size = 5 * block + 777

    private let content: [UInt8]

    init() {
        var random = SeededGenerator(seed: 7)
        content = random.bytes(Self.size)
    }

    private func device(
        _ server: ScriptedPdiffcopy, block: Int = block, cancel: Flag = Flag()
    ) throws -> PdiffcopyDevice {
        let found = try #require(try findPdiffcopy(server.url, cancel: cancel))
        let source = try found.source(block: block)
        return try #require(source.device as? PdiffcopyDevice)
    }

    /// Compares with a device here that has the same content.
    private func comparison(
        _ server: ScriptedPdiffcopy, block: Int = block, with other: [UInt8]? = nil,
        cancel: Flag = Flag()
    ) throws -> SyncReport {
        compare(
            source: try device(server, block: block, cancel: cancel),
            target: MemoryDevice(other ?? content), options: engineOptions(block: block),
            control: RunControl())
    }

    @Test(arguments: [512, 4096, 5120, 64 << 10, 1 << 20])
    func `a comparison finds the blocks that differ, whatever the region size`(block: Int) throws {
        let server = ScriptedPdiffcopy(content)
        let same = try comparison(server, block: block)
        #expect(same.failure == nil && same.tally.different == 0)
        #expect(same.tally.compared == Self.size)
        var other = content
        other[100_000] ^= 1
        let report = try comparison(server, block: block, with: other)
        #expect(report.failure == nil && report.tally.differentBlocks == 1)
        #expect(report.firstDifferences.first?.offset == 100_000 / block * block)
    }

    @Test(arguments: [1, 1000, 65536, 65537])
    func `the last block of a shorter side is compared as far as it goes`(length: Int) throws {
        let report = try comparison(ScriptedPdiffcopy(content), with: Array(content[..<length]))
        #expect(report.failure == nil && report.tally.different == 0)
        #expect(report.tally.compared == length)
    }

    @Test(arguments: [false, true])
    func `zeros are written as zeros, and read back from the server`(wholeFile: Bool) throws {
        let there = ScriptedPdiffcopy([UInt8](repeating: 9, count: Self.size))
        var source = content
        for index in 0..<3 * Self.block { source[index] = 0 }
        let target = try device(there)
        var options = engineOptions(block: Self.block, wholeFile: wholeFile)
        options.verifies = true
        let report = synchronize(
            source: MemoryDevice(source), target: target, options: options, control: RunControl())
        #expect(report.failure == nil && report.verification?.different == 0)
        #expect(!report.isFlushed && report.flushError == nil)
        #expect(there.bytes == source)
        #expect(report.tally.zeroed == 3 * Self.block)
        let asked = there.requests.filter { $0.hasPrefix("GET /hashes") }.count
        #expect(asked == (wholeFile ? 1 : 2))
    }

    @Test(arguments: [false, true])
    func `a pull fetches the blocks that differ, zeros as zeros`(wholeFile: Bool) throws {
        var source = content
        for index in Self.block..<2 * Self.block { source[index] = 0 }
        let target = MemoryDevice([UInt8](repeating: 3, count: Self.size))
        let there = ScriptedPdiffcopy(source)
        let report = try withExtendedLifetime(there) {
            synchronize(
                source: try device(there), target: target,
                options: engineOptions(block: Self.block, wholeFile: wholeFile),
                control: RunControl())
        }
        #expect(report.failure == nil && report.isFlushed, "\(String(describing: report.failure))")
        #expect(target.bytes == source && report.tally.zeroed == Self.block)
    }

    @Test func `digests may come in any pieces, and again after a lost connection`() throws {
        let attempts = Mutex(0)
        let server = ScriptedPdiffcopy(content) { [content] connection, endpoint, _ in
            guard endpoint == "/hashes" else { return false }
            let text = Array(
                digestLines(content, block: Self.block, method: "sha1").joined().utf8)
            connection.write(ScriptedConnection.head(length: text.count))
            let isFirst = attempts.withLock { count in
                count += 1
                return count == 1
            }
            for (index, byte) in text.enumerated() {
                if isFirst && index == 100 {
                    connection.close()
                    return true
                }
                connection.write([byte])
            }
            return true
        }
        let report = try comparison(server)
        #expect(report.failure == nil && report.tally.different == 0)
        #expect(attempts.withLock { $0 } == 2)
    }

    /// A false list of hashes, and a word of the error.
    struct Lie: CustomTestStringConvertible {
        var name: String
        var word: String
        var tell: @Sendable ([String]) -> [String]
        var testDescription: String { name }
    }

    static let lies = [
        Lie(name: "one is missing", word: "1 of 6 blocks are missing") { $0.dropLast() },
        Lie(name: "none", word: "6 of 6 blocks are missing") { _ in [] },
        Lie(name: "one twice", word: "offset 0: twice") { [$0[0]] + $0 },
        Lie(name: "between blocks", word: "offset 1: not one") { lines in
            ["1" + lines[0].dropFirst()] + lines
        },
        Lie(name: "beyond the end", word: "offset 393216: not one") { lines in
            ["393216" + lines[0].dropFirst()] + lines
        },
        Lie(name: "an offset too large", word: "too large") { lines in
            ["9999999999999999999" + lines[0].dropFirst()] + lines
        },
        Lie(name: "a negative one", word: "not an offset") { ["-" + $0[0]] + $0 },
        Lie(name: "not hexadecimal", word: "not hexadecimal") { lines in
            [lines[0].dropLast(2) + "g\n"] + lines.dropFirst()
        },
        Lie(name: "too short", word: "not a digest of 20 bytes") { lines in
            [lines[0].dropLast(3) + "\n"] + lines.dropFirst()
        },
        Lie(name: "a line without end", word: "too long") { lines in
            [String(repeating: "0", count: 1000)]
        },
        Lie(name: "the last line has no end", word: "has no end") { lines in
            lines.dropLast() + [String(lines[5].dropLast())]
        },
        Lie(name: "a page", word: "not an offset") { _ in ["<html>\n<body>\n"] },
    ]

    @Test(arguments: lies)
    func `impossible digests are refused`(lie: Lie) throws {
        let server = ScriptedPdiffcopy(content) { [content] connection, endpoint, _ in
            guard endpoint == "/hashes" else { return false }
            let lines = digestLines(content, block: Self.block, method: "sha1")
            connection.answer(200, Array(lie.tell(lines).joined().utf8))
            return true
        }
        let failure = try #require(try comparison(server).failure)
        #expect(failure.isNetwork)
        #expect(failure.reason.contains(lie.word), "\(failure)")
    }

    @Test func `data that does not match its digest is refused`() throws {
        let server = ScriptedPdiffcopy(content) { connection, endpoint, query in
            guard endpoint == "/blocks", query["offset"] == "\(3 * Self.block)" else {
                return false
            }
            connection.answer(200, type: MediaType.bytes, [UInt8](repeating: 0, count: Self.block))
            return true
        }
        // One block differs, so that the client asks for it.
        var other = content
        other[3 * Self.block] ^= 1
        let target = MemoryDevice(other)
        let report = synchronize(
            source: try device(server), target: target,
            options: engineOptions(block: Self.block), control: RunControl())
        let failure = try #require(report.failure)
        #expect(failure.isNetwork && failure.reason.contains("not what the server has hashed"))
        #expect(target.bytes == other)
    }

    @Test func `a digest after the last block is refused`() throws {
        let server = ScriptedPdiffcopy(content) { [content] connection, endpoint, _ in
            guard endpoint == "/hashes" else { return false }
            let lines = digestLines(content, block: Self.block, method: "sha1")
            connection.answer(200, Array((lines + [lines[2]]).joined().utf8))
            return true
        }
        let failure = try #require(try comparison(server).failure)
        #expect(failure.isNetwork && failure.reason.contains("twice"), "\(failure)")
    }

    /// What follows the lines, then byte by byte without end, and a word of the error.
    @Test(
        arguments: [
            ("", nil), ("1;", nil), ("0\r\nX-A: ", nil), ("2\r\nx\n\r\n1;", "not an offset"),
        ] as [(String, String?)])
    func `the client does not wait for the end of digests that have all come`(
        start: String, word: String?
    ) throws {
        let server = ScriptedPdiffcopy(content) { [content] connection, endpoint, _ in
            guard endpoint == "/hashes" else { return false }
            let text = digestLines(content, block: Self.block, method: "sha1").joined()
            connection.write("HTTP/1.1 200 X\r\nContent-Type: text/plain\r\n")
            connection.write("Transfer-Encoding: chunked\r\n\r\n")
            connection.write("\(String(text.utf8.count, radix: 16))\r\n\(text)\r\n\(start)")
            // It ends with the connection.
            while !start.isEmpty, connection.write("a") { pauseBriefly() }
            connection.waitForEnd()
            return true
        }
        let before = ContinuousClock.now
        let report = try comparison(server)
        #expect(ContinuousClock.now - before < .seconds(40))
        #expect(report.tally.different == 0)
        let failure = report.failure
        #expect((failure == nil) == (word == nil), "\(String(describing: failure))")
        if let word { #expect(failure?.reason.contains(word) == true) }
    }

    @Test(arguments: ["0\tda39a3ee5e6b4b0d3255bfef95601890afd80709\n", "1\n", "0"])
    func `digests without end are cut off`(piece: String) throws {
        let server = ScriptedPdiffcopy(content) { connection, endpoint, _ in
            guard endpoint == "/hashes" else { return false }
            connection.write("HTTP/1.1 200 X\r\nContent-Type: text/plain\r\n\r\n")
            let many = String(repeating: piece, count: 1000)
            while connection.write(many) {}
            return true
        }
        let failure = try #require(try comparison(server).failure)
        #expect(failure.isNetwork && failure.reason.contains("cannot be used"), "\(failure)")
    }

    @Test func `a cancelled run does not wait for digests that do not come`() throws {
        let cancel = Flag()
        let server = ScriptedPdiffcopy(content) { connection, endpoint, _ in
            guard endpoint == "/hashes" else { return false }
            cancel.set()
            connection.waitForEnd()
            return true
        }
        let failure = try #require(try comparison(server, cancel: cancel).failure)
        #expect(failure.isNetwork && failure.reason == "cancelled", "\(failure)")
    }

    @Test(arguments: ["/hashes", "/blocks"])
    func `a server that keeps failing ends the run with its error`(failing: String) throws {
        let isOpen = Flag()
        let server = ScriptedPdiffcopy(content) { connection, endpoint, _ in
            guard endpoint == failing, isOpen.isSet else { return false }
            connection.answer(500, type: "text/html", Array("<h1>Internal Server Error".utf8))
            return true
        }
        let target = MemoryDevice([UInt8](repeating: 3, count: Self.size))
        let source = try device(server)
        isOpen.set()
        let report = synchronize(
            source: source, target: target,
            options: engineOptions(block: Self.block), control: RunControl())
        let failure = try #require(report.failure)
        #expect(failure.isNetwork && failure.reason == "the pdiffcopy server answers HTTP 500")
        #expect(target.bytes.allSatisfy { $0 == 3 })
    }

    @Test(arguments: [-1, 1, -65536, 65536])
    func `data of another length is never written`(excess: Int) throws {
        let isOpen = Flag()
        let server = ScriptedPdiffcopy(content) { connection, endpoint, query in
            guard endpoint == "/blocks", isOpen.isSet else { return false }
            let length = max(0, (Int(query["size"] ?? "") ?? 0) + excess)
            connection.answer(200, [UInt8](repeating: 1, count: length))
            return true
        }
        let target = MemoryDevice([UInt8](repeating: 3, count: Self.size))
        let source = try device(server)
        isOpen.set()
        let report = synchronize(
            source: source, target: target,
            options: engineOptions(block: Self.block), control: RunControl())
        #expect(report.failure?.isNetwork == true, "\(String(describing: report.failure))")
        #expect(target.bytes.allSatisfy { $0 == 3 })
    }
}
