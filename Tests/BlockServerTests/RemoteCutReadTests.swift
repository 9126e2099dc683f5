// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import SyncEngine
import Synchronization
import SystemPackage
import TestSupport
import Testing
import WireProtocol
import Zstandard

/// Pulls from a server that cuts the answers to reads where no block ends, as the protocol permits.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RemoteCutReadTests {
    private static let size = 5 << 20

    /// Data, and zeros that neither begin nor end at a block's edge.
    private static func content(seed: UInt64) -> [UInt8] {
        var random = SeededGenerator(seed: seed)
        var bytes = random.bytes(size)
        for start in stride(from: 100_001, to: size - 80_000, by: 300_007) {
            for index in start..<start + 70_001 { bytes[index] = 0 }
        }
        return bytes
    }

    /// Forwards requests to a server, and cuts up its answers to reads.
    ///
    /// - Parameters:
    ///   - port: of the server.
    ///   - cuts: counts the extents that end within a block.
    /// - Returns: the server in between.
    /// - Throws: what the system says.
    private static func cutter(before port: Int, cuts: CutCounter) throws -> ScriptedServer {
        ScriptedServer.streams { (connection) throws(Errno) in
            do {
                let server = try HTTPConnection(port: port)
                while let request = try HTTPMessage(from: connection) {
                    try server.send(request.head)
                    try server.send(request.body)
                    var answer = try server.answer()
                    if answer.status == 200, request.head.contains("/read HTTP/1.1\r\n") {
                        answer.body = try cut(answer.body, cuts)
                    }
                    let type = answer.headers["content-type"].map { "Content-Type: \($0)\r\n" }
                    let length = "Content-Length: \(answer.body.count)\r\n"
                    try connection.send(
                        "HTTP/1.1 \(answer.status) X\r\n" + (type ?? "")
                            + (answer.status == 204 ? "" : length) + "\r\n")
                    try connection.send(answer.body)
                }
            } catch { throw .connectionReset }
        }
    }

    /// Cuts the extents of an answer into pieces of odd lengths; those of zeros carry no data.
    private static func cut(_ body: [UInt8], _ cuts: CutCounter) throws -> [UInt8] {
        var random = SeededGenerator(seed: UInt64(body.count))
        var extents: [Extent] = []
        var data: [UInt8] = []
        try body.withUnsafeBytes { bytes in
            let frame = UnsafeRawBufferPointer(rebasing: bytes.dropLast(32))
            let payload = try ExtentFrame.readPayload(frame, size: size, unit: 1)
            var position = 0
            for extent in payload.extents {
                var start = extent.range.offset
                while start < extent.range.end {
                    let length = 2 * Int.random(in: 0..<2000, using: &random) + 1
                    let piece = ByteRange(start, to: min(start + length, extent.range.end))
                    start = piece.end
                    if piece.end % 512 != 0 { cuts.count.add(1, ordering: .relaxed) }
                    guard extent.kind == .data else {
                        extents.append(Extent(piece, .zero))
                        continue
                    }
                    let part = payload.data[position..<position + piece.length]
                    position += piece.length
                    let isZero = part.allSatisfy { $0 == 0 }
                    extents.append(Extent(piece, isZero ? .zero : .data))
                    if !isZero { data += part }
                }
            }
        }
        return try Wire.extents(extents, data: data)
    }

    private final class CutCounter: Sendable {
        let count = Atomic<Int>(0)
    }

    /// Pulls an image through the cutter.
    ///
    /// - Returns: whether the run was good, and how often an answer was cut within a sector.
    private func pull(
        _ bytes: [UInt8], to target: any BlockDevice, wholeFile: Bool
    ) throws -> (isGood: Bool, cuts: Int) {
        let rig = try ServerRig()
        let image = rig.image("source")
        try makeImage(image, bytes)
        let cuts = CutCounter()
        let cutter = try Self.cutter(before: rig.port, cuts: cuts)
        defer { cutter.stop() }
        var run = RemoteRun(method: "sha256")
        run.options = SyncOptions(wholeFile: wholeFile, concurrency: 2)
        // The cutter reads payloads as they are.
        run.client.compression = .none
        run.port = cutter.port
        let report = try run.pull(image, of: rig, to: target)
        #expect(report.failure == nil)
        return (report.isGood, cuts.count.load(ordering: .relaxed))
    }

    @Test(
        .enabled(if: isRoot, "loop devices need root"), arguments: [512, 4096], [false, true])
    func `a block device gets the bytes of the source, with direct I/O`(
        sector: Int, wholeFile: Bool
    ) throws {
        let bytes = Self.content(seed: 1)
        let loop = try LoopDevice(size: Self.size, sectorSize: sector)
        let target = try BlockSpecialFile(path: loop.path, name: "target", access: .readWrite)
        try target.write(Self.content(seed: 2), at: 0)
        let result = try pull(bytes, to: target, wholeFile: wholeFile)
        #expect(result.isGood && result.cuts > 100)
        #expect(try target.content() == bytes)
    }

    @Test func `an image gets the bytes of the source`() throws {
        let bytes = Self.content(seed: 3)
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("target", size: Self.size)
        let target = try ImageFile(path: path, name: "target", access: .readWrite)
        let result = try pull(bytes, to: target, wholeFile: false)
        #expect(result.isGood && result.cuts > 100)
        #expect(try target.content() == bytes)
    }
}
