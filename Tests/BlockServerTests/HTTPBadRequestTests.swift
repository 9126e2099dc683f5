// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockServer
import Foundation
import LinuxIO
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// A live server and a great many requests that are wrong in some way.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPBadRequestTests {
    /// How many, and from which seed; both may be set for a longer run.
    private static let environment = ProcessInfo.processInfo.environment
    private static let count = environment["BLKFERRY_BAD_REQUESTS"].flatMap { Int($0) } ?? 100_000
    private static let seed = environment["BLKFERRY_SEED"].flatMap { UInt64($0) } ?? 1

    @Test
    func `after bad requests the server serves on, has forgotten them, and no export has changed`()
        throws
    {
        let scratch = try ScratchDirectory()
        let readOnly = try SeededImage(scratch, "ro", size: 1 << 20)
        let writable = try SeededImage(scratch, "rw", size: 1 << 20, seed: 2)
        let directory = scratch.file("d")
        try FileManager.default.createDirectory(
            atPath: directory, withIntermediateDirectories: false)
        let server = try ServeProcess(readOnly.path, writable.path + ":rw", directory + "/:ro")
        let requests = try BadRequests(
            port: server.port, readOnly: readOnly.path, writable: writable.path)
        // What is allocated once is there.
        try Self.throwAll(requests, count: Self.count / 10, seed: Self.seed &+ 1000, server.port)
        let (before, files) = (server.memory.now, server.descriptors)
        let start = ContinuousClock.now
        try Self.throwAll(requests, count: Self.count * 9 / 10, seed: Self.seed, server.port)
        print("seed \(Self.seed): \(Self.count) bad requests, \(ContinuousClock.now - start)")

        #expect(server.process.isRunning)
        #expect(becomesTrue { server.descriptors <= files + 2 })
        print("memory: \(before >> 20) MiB before, \(server.memory.now >> 20) MiB after")
        #expect(server.memory.now < before + 24 << 20)
        #expect(server.memory.peak < 200 << 20)
        #expect(try [UInt8](contentsOf: readOnly.path) == readOnly.bytes)
        #expect(try [UInt8](contentsOf: writable.path) == writable.bytes)
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory).isEmpty)
        for image in [readOnly, writable] {
            let answer = try HTTPConnection(port: server.port)
                .ask("GET", Route.content(image.path).path)
            #expect(answer.status == 200 && answer.body == image.bytes)
        }
        server.process.signal(SIGTERM)
        #expect(try server.process.wait().status == 0)
    }

    private static func throwAll(
        _ requests: BadRequests, count: Int, seed: UInt64, _ port: Int
    ) throws {
        let threads = 8
        let accepted = Mutex<[String]>([])
        Threads.start(count: threads) { index in
            var random = SeededGenerator(seed: seed &* 100 &+ UInt64(index))
            var left = count / threads
            while left > 0 {
                guard let connection = try? HTTPConnection(port: port, patience: 10) else {
                    continue
                }
                for _ in 0..<Int.random(in: 1...40, using: &random) where left > 0 {
                    left -= 1
                    let (bytes, isAnswered) = requests.next(&random)
                    guard (try? connection.send(bytes)) != nil else { break }
                    if !isAnswered { break }
                    guard let answer = try? connection.answer() else { break }
                    if !(400..<600).contains(answer.status) && answer.status != 200 {
                        accepted.withLock {
                            $0.append(
                                "\(answer.status): "
                                    + String(decoding: bytes.prefix(200), as: UTF8.self))
                        }
                    }
                    if answer.headers["connection"] == "close" { break }
                }
            }
        }.wait()
        #expect(accepted.withLock { $0.prefix(3) } == [])
    }
}

/// Makes requests that must not change anything.
private struct BadRequests {
    private let sessions: [String]
    private let paths: [String]
    private let files: [String]
    private let size = 1 << 20

    init(port: Int, readOnly: String, writable: String) throws {
        var sessions: [String] = []
        for (path, mode) in [(readOnly, SessionRequest.Mode.read), (writable, .write)] {
            let body = WireJSON.encode(Wire.sessionRequest(mode, size: size))
            let answer = try HTTPConnection(port: port).ask(
                "POST", Route.sessions(device: path).path, [Wire.json], body: body)
            sessions.append(try answer.decoded(as: SessionRecord.self).session)
        }
        self.sessions = sessions
        files = [readOnly, writable]
        paths = files.map { Route.device($0).path }
    }

    /// Of pdiffcopy's protocol; our own session keeps it from writing to the one file, and that it
    /// is read-only from the other.
    private func ofPdiffcopy(_ random: inout SeededGenerator) -> [UInt8] {
        let endpoints = PdiffcopyCall.Endpoint.allCases
        let endpoint = endpoints.randomElement(using: &random) ?? .info
        let values = [
            "", "0", "-1", "%zz", "x", "4096", "9999999999", "18446744073709551616", "%00", "+1",
            "sha1", "md5", "gmac",
        ]
        var query = "filename=" + (files.randomElement(using: &random) ?? "")
        if Int.random(in: 0..<4, using: &random) == 0 { query += ":overwrite" }
        for name in ["offset", "size", "block_size", "method"] {
            query += "&\(name)=" + (values.randomElement(using: &random) ?? "")
        }
        let body = random.bytes(Int.random(in: 0...3000, using: &random))
        let isWrite = endpoint == .resize || Bool.random(using: &random)
        return HTTPConnection.request(
            isWrite ? "POST" : "GET", "/\(endpoint.rawValue)?\(query)",
            body: endpoint == .blocks && isWrite ? body : nil)
    }

    /// A request, and whether the server answers it.
    func next(_ random: inout SeededGenerator) -> (bytes: [UInt8], isAnswered: Bool) {
        let session = "/v1/sessions/" + (sessions.randomElement(using: &random) ?? "")
        let device = paths.randomElement(using: &random) ?? ""
        let names = ["/read", "/write", "/compare"]
        let path = session + (names.randomElement(using: &random) ?? "")
        func post(_ path: String, _ body: [UInt8], _ type: String = Wire.frames) -> [UInt8] {
            HTTPConnection.request("POST", path, [type], body: body)
        }
        switch Int.random(in: 0..<21, using: &random) {
        case 0: return (random.bytes(Int.random(in: 1...300, using: &random)), false)
        case 1: return (HTTPConnection.request("PUT", path, body: [1]), true)
        case 2: return (HTTPConnection.request("DELETE", device), true)
        case 3: return (post(path, random.bytes(Int.random(in: 0...5000, using: &random))), true)
        case 4...8: return (post(path, sealed(table(&random))), true)
        case 9: return (post(session + "/write", corrupted(&random)), true)
        case 10:
            let whole = post(path, random.bytes(2000))
            return (Array(whole.prefix(Int.random(in: 1...1999, using: &random))), false)
        case 11: return (post(session + "/commit", json(&random), Wire.json), true)
        case 12, 13: return (post(device + "/sessions", json(&random), Wire.json), true)
        case 14:
            let header = "Content-Length: \(Int64.random(in: .min ... .max, using: &random))"
            return (HTTPConnection.request("POST", path, [Wire.frames, header]), true)
        case 15: return (HTTPConnection.request("POST", path, [], body: random.bytes(10)), true)
        case 16:
            return (
                HTTPConnection.request("GET", device + "/content", ["Range: bytes=9999999-"]), true
            )
        case 17:
            let text = random.bytes(20).map { "%" + hexadecimal([$0]) }.joined()
            return (HTTPConnection.request("GET", "/v1/devices/\(text)/content"), true)
        case 18: return (post(session + "/compare", sealed(comparison(&random))), true)
        case 19: return (ofPdiffcopy(&random), true)
        default:
            var bytes = HTTPConnection.request("GET", "/v1")
            bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(
                in: 0...255, using: &random)
            return (bytes, false)
        }
    }

    private func sealed(_ content: [UInt8]) -> [UInt8] { (try? Wire.sealed(content)) ?? [] }

    private func number(_ random: inout SeededGenerator) -> UInt64 {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: UInt64(Int.random(in: 0...(1 << 21), using: &random))
        case 1: random.next()
        case 2: .max - UInt64.random(in: 0..<4096, using: &random)
        default: UInt64(Int.random(in: 0...256, using: &random) * 4096)
        }
    }

    /// A table of extents whose last one is always wrong: beyond the end, empty, or of no kind.
    private func table(_ random: inout SeededGenerator) -> [UInt8] {
        var words: [UInt64] = []
        let count = Int.random(in: 1...6, using: &random)
        for _ in 1..<count { words += [number(&random), number(&random)] }
        switch Int.random(in: 0..<4, using: &random) {
        case 0: words += [UInt64(size), 4096]
        case 1: words += [UInt64(size - 4096), 0]
        case 2: words += [UInt64(size - 4096), 7 << 56 | 4096]
        default: words += [UInt64(size - 4096), 8192]
        }
        let claimed = Bool.random(using: &random) ? count : Int.random(in: 0...9000, using: &random)
        words.append(UInt64(max(claimed, count)))
        return words.flatMap { word in withUnsafeBytes(of: word.littleEndian) { Array($0) } }
    }

    private func comparison(_ random: inout SeededGenerator) -> [UInt8] {
        let words = [UInt64.random(in: 0...3, using: &random), number(&random), UInt64(size) * 2]
        return words.flatMap { word in withUnsafeBytes(of: word.littleEndian) { Array($0) } }
            + random.bytes(Int.random(in: 0...200, using: &random))
    }

    /// A write that would be right, were its digest.
    private func corrupted(_ random: inout SeededGenerator) -> [UInt8] {
        guard var frame = try? Wire.write(random.bytes(4096), at: 8192) else { return [] }
        frame[Int.random(in: 0..<frame.count, using: &random)] ^= 1
        return frame
    }

    private func json(_ random: inout SeededGenerator) -> [UInt8] {
        let texts = [
            "", "{", "[]", "null", "{}", "{\"release\":1}", "{\"size\":4096,\"release\":false}",
            "{\"release\":\"yes\"}", "{\"mode\":\"write\",\"block\":-1,\"digest\":\"sha256\"}",
            "{\"mode\":\"write\",\"block\":4096,\"digest\":\"no\\u0000such\"}",
            "{\"mode\":\"read\",\"block\":1e30,\"digest\":\"sha256\"}",
            "{\"mode\":\"read\",\"block\":4096,\"digest\":\"poly1305\",\"key\":\"zz\"}",
            "{\"mode\":\"write\",\"block\":9223372036854775807,\"digest\":\"sha256\"}",
            String(repeating: "[", count: 1000), String(repeating: "{\"a\":", count: 1000),
        ]
        return Array((texts.randomElement(using: &random) ?? "").utf8)
    }
}
