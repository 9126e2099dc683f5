// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Digests
import Foundation
import LinuxIO
import TestSupport
import Testing
import WireProtocol
import Zstandard

/// Sessions that compress, byte by byte: what a server does with any client.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPPackedTests {
    private static let size = 1 << 20

    private let scratch: ScratchDirectory
    private let path: String
    private let server: TestServer

    init() throws {
        scratch = try ScratchDirectory()
        path = scratch.file("image")
        try Data([UInt8](repeating: 7, count: Self.size)).write(to: URL(fileURLWithPath: path))
        server = try TestServer(path + ":rw")
    }

    private func open(_ mode: SessionRequest.Mode, zstd: Int?) throws -> HTTPAnswer {
        var request = Wire.sessionRequest(mode, size: mode == .read ? nil : Self.size)
        request.overwrite = true
        request.zstd = zstd
        return try server.ask(
            "POST", Route.sessions(device: path).path, [Wire.json], body: WireJSON.encode(request))
    }

    private func session(_ mode: SessionRequest.Mode, zstd: Int? = 1) throws -> String {
        try open(mode, zstd: zstd).decoded(as: SessionRecord.self).session
    }

    private func footer(_ count: Int, _ coding: PackedFrame.Coding) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: PackedFrame.footerSize)
        bytes.withUnsafeMutableBytes { PackedFrame.writeFooter(count: count, coding, to: $0) }
        return bytes
    }

    private func packed(_ sealed: [UInt8]) throws -> [UInt8] {
        let context = try #require(ZstdContext(), "\(Zstd.fault ?? "no memory")")
        var memory = [UInt8](repeating: 0, count: sealed.count)
        let length = sealed.withUnsafeBytes { bytes in
            memory.withUnsafeMutableBytes { context.compress(bytes, into: $0, level: 1) }
        }
        let end = try #require(length)
        return Array(memory[..<end]) + footer(sealed.count, .zstd)
    }

    private func write(_ session: String, _ body: [UInt8]) throws -> HTTPAnswer {
        try server.ask(
            "POST", Route.write(session: session).path, [Wire.frames], body: body)
    }

    private func content() throws -> [UInt8] { try [UInt8](contentsOf: path) }

    @Test(arguments: [(1, 1), (6, 6), (7, 6), (19, 6)])
    func `a session uses the level that was asked for, up to a limit`(level: Int, used: Int) throws
    {
        let answer = try open(.read, zstd: level)
        #expect(try answer.decoded(as: SessionRecord.self).zstd == used)
        let info = try server.ask("GET", "/v1").decoded(as: ServerRecord.self)
        #expect(info.features.contains("zstd"))
    }

    @Test(arguments: [0, -1, 20, Int.max])
    func `a session of an impossible level is refused`(level: Int) throws {
        let answer = try open(.read, zstd: level)
        #expect(answer.status == 400 && answer.problem == .malformed)
    }

    @Test func `a client that knows no compression gets none`() throws {
        let answer = try open(.write, zstd: nil)
        let session = try answer.decoded(as: SessionRecord.self)
        #expect(session.zstd == nil && !answer.text.contains("zstd"))
        let data = [UInt8](repeating: 1, count: 4096)
        #expect(try server.write(session.session, data, at: 0).status == 204)
        let packed = try write(session.session, packed(Wire.write(data, at: 4096)))
        #expect(packed.status == 422)
        let read = try server.ask(
            "POST", Route.read(session: session.session).path, [Wire.frames],
            body: Wire.read((0, 4096)))
        #expect(try read.body == Wire.write(data, at: 0))
        let coded = try server.ask(
            "POST", Route.read(session: session.session).path, [Wire.frames],
            body: readRequest(.zstd))
        #expect(coded.status == 400 && coded.problem == .malformed)
    }

    /// Asks for all of the image's first half.
    private func readRequest(_ coding: PackedFrame.Coding) throws -> [UInt8] {
        let extents = [Extent(ByteRange(0, to: Self.size / 2), .data)]
        var table = [UInt8](repeating: 0, count: ExtentFrame.tableSize(count: 1))
        table.withUnsafeMutableBytes {
            ExtentFrame.writeTable(extents, coding: coding, to: $0)
        }
        return try Wire.sealed(table)
    }

    @Test func `the client chooses for each read whether the answer may be compressed`() throws {
        let session = try session(.read)
        let data = [UInt8](repeating: 7, count: Self.size / 2)
        let sealed = try Wire.write(data, at: 0)
        for coding in [PackedFrame.Coding.plain, .zstd, .plain] {
            let answer = try server.ask(
                "POST", Route.read(session: session).path, [Wire.frames],
                body: readRequest(coding))
            #expect(answer.status == 200)
            #expect(answer.body.suffix(8).elementsEqual(footer(sealed.count, coding)))
            if coding == .plain {
                #expect(Array(answer.body.dropLast(8)) == sealed)
                continue
            }
            #expect(answer.body.count < 1000)
            try answer.body.withUnsafeBytes { bytes in
                let frame = try PackedFrame(bytes)
                let memory = UnsafeMutableRawBufferPointer.allocate(
                    byteCount: frame.count, alignment: 8)
                defer { memory.deallocate() }
                let context = try #require(ZstdContext())
                #expect(try frame.unpacked(into: memory, context).elementsEqual(sealed))
            }
        }
    }

    @Test func `a write is packed as it is, or compressed`() throws {
        let session = try session(.write)
        let (first, second) = (
            [UInt8](repeating: 1, count: 8192), [UInt8](repeating: 2, count: 8192)
        )
        let sealed = try Wire.write(first, at: 0)
        #expect(try write(session, sealed + footer(sealed.count, .plain)).status == 204)
        #expect(try write(session, packed(Wire.write(second, at: 8192))).status == 204)
        #expect(try server.commit(session).status == 204)
        #expect(try content().prefix(16384) == (first + second)[...])
    }

    @Test func `a packed write that is cut off, corrupted, or a bomb is refused, and not written`()
        throws
    {
        let session = try session(.write)
        let before = try content()
        let sealed = try Wire.write([UInt8](repeating: 1, count: 65536), at: 0)
        let good = try packed(sealed)
        var flipped = good
        flipped[good.count / 2] ^= 0x10
        var wrongSeal = sealed
        wrongSeal[0] ^= 1
        // RFC 8878: a frame that announces a TiB.
        let bomb: [UInt8] =
            [0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 0, 0, 1, 0, 0, 0x03, 0, 0, 0]
        let frame = Array(good.dropLast(PackedFrame.footerSize))
        let bodies: [(String, [UInt8])] = [
            ("empty", []), ("no footer", sealed), ("cut off", Array(good.dropLast(9))),
            ("without its start", Array(good.dropFirst())), ("flipped", flipped),
            ("seal", try packed(wrongSeal)), ("bomb", bomb + footer(Limits.body, .zstd)),
            ("large bomb", bomb + footer(1 << 31, .zstd)),
            ("two frames", frame + frame + footer(sealed.count, .zstd)),
            ("another size", frame + footer(sealed.count + 1, .zstd)),
        ]
        for (name, body) in bodies {
            let answer = try write(session, body)
            #expect(answer.status == 422 && answer.problem == .corrupted, "\(name): \(answer.text)")
        }
        #expect(try write(session, good).status == 204)
        #expect(try server.commit(session).status == 204)
        let after = try content()
        #expect(after[65536...] == before[65536...])
        #expect(after[..<65536].allSatisfy { $0 == 1 })
    }
}
