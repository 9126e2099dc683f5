// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import LinuxIO
import SystemPackage
import Testing
import WireProtocol

@Suite(.timeLimit(.minutes(60))) struct JSONTests {
    private func reason(_ text: String) -> String? {
        rejection { try decoded(CommitRequest.self, text) }
    }

    @Test func `an unknown field is skipped, and an optional field may be null`() throws {
        let request = try decoded(CommitRequest.self, #" {"x":[{}],"release":true,"size":null} "#)
        #expect(request == CommitRequest(size: nil, release: true))
    }

    @Test func `the error names a field that is missing or of the wrong type`() {
        #expect(reason("{}") == "JSON: release is missing")
        #expect(reason(#"{"release":1}"#) == "JSON: release is not of the right type")
        #expect(reason(#"{"release":null}"#) == "JSON: release is not of the right type")
        #expect(reason(#"{"release":true,"size":"1"}"#) == "JSON: size is not of the right type")
        #expect(reason("[]") == "JSON: it is not of the right type")
        let mode = #"{"mode":"x","block":1,"digest":"d"}"#
        #expect(
            rejection { try decoded(SessionRequest.self, mode) }
                == "JSON: mode has a value that is unknown")
    }

    @Test(arguments: ["1.5", "1e999", "-1e999", "9223372036854775808", "1e19", "0x10", "NaN", "+1"])
    func `a number that is no size is rejected`(number: String) {
        #expect(reason(#"{"release":true,"size":\#(number)}"#) != nil)
    }

    @Test(
        arguments: [
            "", " ", "{", #"{"release":tru"#, #"{"release":true}x"#, "\u{0}",
            #"{"release" true}"#,
        ])
    func `text that is not JSON is rejected`(text: String) { #expect(reason(text) != nil) }

    @Test func `bytes that are no UTF-8 are rejected`() {
        for bytes in [
            [0xFF], [0xFE, 0xFF], [0xEF, 0xBB, 0xBF], [0x7B, 0xC3, 0x7D], [0, 0, 0xFE, 0xFF],
        ] as [[UInt8]] {
            #expect(
                rejection {
                    try bytes.withUnsafeBytes { try WireJSON.decode(CommitRequest.self, from: $0) }
                } != nil)
        }
    }

    @Test(arguments: ["[", "{\"a\":", "[[{\"a\":[", "{\"content\":{\"signatures\":["])
    func `JSON of any depth is rejected`(opening: String) {
        let deep = String(repeating: opening, count: 100_000)
        #expect(reason(deep) != nil)
        #expect(reason(#"{"release":true,"x":\#(deep)"#) != nil)
        #expect(rejection { try decoded(SessionRequest.self, deep) } != nil)
    }

    @Test func `an answer larger than its limit is not parsed`() {
        let text = #"{"release":true}"# + String(repeating: " ", count: Limits.answer)
        #expect(reason(text) == "too much JSON")
    }
}

@Suite struct ContentRecordTests {
    static let contents: [Content] = [
        .empty, .unreadable("Input/output error"),
        .signatures([Signature(usage: .filesystem, type: "ext4", uuid: "1", label: "é \"x\"")]),
        .ambiguous([
            Signature(usage: .raid, type: "linux_raid_member", uuid: "1", subUUID: "2"),
            Signature(usage: .crypto, type: "crypto_LUKS"), Signature(usage: .other, type: "swap"),
        ]),
        .signatures([
            Signature(
                usage: .partitionTable, type: "gpt", uuid: "1",
                partitions: [
                    Partition(
                        number: 1, range: ByteRange(offset: 1 << 20, length: 1 << 40),
                        type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", name: "boot", uuid: "2")
                ], sectorSize: 4096)
        ]),
        .signatures([
            Signature(
                usage: .filesystem, type: "squashfs", places: [0], fingerprint: "0123456789abcdef"),
            Signature(usage: .other, type: "qcow2", places: [0], fingerprint: "fedcba9876543210"),
        ]),
        .partial(
            .init(
                [Signature(usage: .filesystem, type: "ext4", uuid: "1", places: [1080])],
                missing: [ByteRange(offset: 1 << 30, length: 4096)], reason: "Input/output error")),
    ]

    @Test func `a signature without a place, from an older version, is compared without it`() throws
    {
        let text =
            #"{"state":"signatures","signatures":[{"usage":"crypto","type":"x","uuid":"1"}]}"#
        let content = try decoded(ContentRecord.self, text).content()
        let here = Content.signatures([
            Signature(usage: .crypto, type: "x", uuid: "1", places: [16384])
        ])
        #expect(here.isReplica(of: content))
        let elsewhere = Content.signatures([
            Signature(usage: .crypto, type: "x", uuid: "1", places: [0])
        ])
        #expect(!here.isReplica(of: elsewhere))
    }

    @Test(arguments: contents) func `the content of a device is the same after the wire`(
        content: Content
    ) throws {
        let text = String(decoding: WireJSON.encode(ContentRecord(content)), as: UTF8.self)
        #expect(try decoded(ContentRecord.self, text).content() == content)
    }

    private func rejected(_ text: String) -> String? {
        rejection { try decoded(ContentRecord.self, text).content() }
    }

    @Test func `content that contradicts itself is rejected`() {
        #expect(rejected(#"{"state":"signatures"}"#) != nil)
        #expect(rejected(#"{"state":"ambiguous","signatures":[]}"#) != nil)
        #expect(rejected(#"{"state":"new"}"#) != nil)
        #expect(rejected(#"{"state":"signatures","signatures":[{"usage":"x","type":"y"}]}"#) != nil)
        for place in ["-1,\"length\":1", "1,\"length\":-1", "\(Int.max),\"length\":1"] {
            let partition = #"{"number":1,"type":"t","offset":\#(place)}"#
            let table = #"{"usage":"partition-table","type":"dos","partitions":[\#(partition)]}"#
            #expect(rejected(#"{"state":"signatures","signatures":[\#(table)]}"#) != nil)
        }
    }

    @Test func `an impossible source is rejected`() throws {
        func reason(size: Int, sector: Int?) -> String? {
            rejection {
                let facts = SourceFacts(
                    name: "x", size: size, content: .empty, logicalSector: sector, identity: nil)
                return try SourceRecord(facts, boot: nil).facts(boot: nil)
            }
        }
        #expect(reason(size: 1, sector: nil) == nil)
        #expect(reason(size: 1 << 60, sector: 4096) == nil)
        for size in [0, -1, .min, 1 << 60 + 1, .max] {
            #expect(reason(size: size, sector: nil) != nil)
        }
        for sector in [0, -512, 1, 256, 513, .min, .max, 1 << 60, 1 << 62] {
            #expect(reason(size: 1, sector: sector) != nil)
        }
    }

    @Test
    func `a signature before the device is rejected, and one beyond every device has no place`()
        throws
    {
        func content(_ offset: Int) -> String {
            let signature = #"{"usage":"filesystem","type":"ext4","offset":\#(offset)}"#
            return #"{"state":"signatures","signatures":[\#(signature)]}"#
        }
        for offset in [-1, -4096, Int.min] { #expect(rejected(content(offset)) != nil) }
        for (offset, places) in [(1080, [1080]), (1 << 60 + 1, []), (Int.max, [])] {
            let record = try decoded(ContentRecord.self, content(offset))
            #expect(try record.content().found.map(\.places) == [places])
        }
    }

    @Test func `a device's identity is valid on its own machine only`() {
        let device = HostRecord(.device(64768), boot: "a")
        #expect(device?.identity(boot: "a") == .device(64768))
        #expect(device?.identity(boot: "b") == nil && device?.identity(boot: nil) == nil)
        let file = FileIdentity(fileSystem: 1, inode: .max)
        let image = HostRecord(.image(file, path: "/secret"), boot: "a")
        #expect(image?.identity(boot: "a") == .image(file, path: ""))
        #expect(HostRecord(.newImage(fileSystem: 1, directory: "/d"), boot: "a") == nil)
    }
}

/// What the user of a client sees of an error on a server.
@Suite struct ProblemTests {
    private func onTheWire(_ problem: Problem) throws -> Problem {
        let text = String(decoding: WireJSON.encode(problem), as: UTF8.self)
        let again = try decoded(Problem.self, text)
        #expect(again == problem)
        return again
    }

    @Test func `a refusal stays a refusal, under the client's name`() throws {
        for (cause, kind, status) in [
            (.inUse, .refused, 409), (.locked, .locked, 423), (.readOnly, .refused, 409),
            (.wrongKind, .refused, 409), (.overlap, .refused, 409), (.signature, .refused, 409),
            (.size, .refused, 409), (.sectorSize, .refused, 409),
            (.ambiguousSelector, .ambiguous, 409),
        ] as [(IOError.Refusal, Problem.Kind, Int)] {
            let refusal = IOError.refusal(cause, "/dev/x", "a reason", advice: "an advice")
            let problem = try onTheWire(Problem(refusal))
            #expect(problem.kind == kind && problem.status == status)
            let expected = IOError.refusal(cause, "http://h/x", "a reason", advice: "an advice")
            #expect(problem.refusal(of: "http://h/x") == expected)
            #expect(problem.deviceError(of: "x") == nil)
        }
    }

    @Test func `a device's error stays an error, with its number`() throws {
        for (error, status) in [
            (IOError("/dev/x", "read at 0, 512 bytes", .ioError, advice: "y"), 500),
            (IOError("/dev/x", "write at 0", .noSpace), 507),
            (IOError("/dev/x", "resize", reason: "it cannot"), 500),
        ] {
            let problem = try onTheWire(Problem(error))
            #expect(problem.kind == .deviceError && problem.status == status)
            var expected = error
            expected.object = "http://h/x"
            #expect(problem.deviceError(of: "http://h/x") == expected)
            #expect(problem.refusal(of: "x") == nil)
        }
    }

    @Test func `a type or a cause of a newer version is neither trusted nor fatal`() throws {
        var problem = Problem(.refused, status: 409, "t", detail: "d")
        problem.cause = "new"
        #expect(problem.refusal(of: "x")?.cause == .inUse)
        problem.type = "urn:blkferry:problem:new"
        #expect(problem.kind == nil && problem.refusal(of: "x") == nil)
        problem.type = "about:blank"
        #expect(problem.kind == nil && problem.deviceError(of: "x") == nil)
    }

    @Test(arguments: [0, -1, Int(Int32.max) + 1, .min, .max])
    func `an impossible errno does not crash`(number: Int) {
        var problem = Problem(.deviceError, status: 500, "t", detail: "d")
        problem.errno = number
        #expect(problem.deviceError(of: "x")?.reason == "d")
    }
}
