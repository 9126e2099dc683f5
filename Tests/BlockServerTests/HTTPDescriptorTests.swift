// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Logging
import SystemPackage
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// Connections that say nothing, or are too many, and a server that has no descriptor left.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPDescriptorTests {
    private let scratch: ScratchDirectory
    private let image: SeededImage

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 1 << 20)
    }

    private func tlsServer(
        _ change: (inout BlockServer.Options) -> Void
    ) throws -> TestServer {
        let identity = try ServerIdentity(selfSignedFor: ["localhost"], clientAuthorities: nil)
        return try TestServer(image.path) {
            $0.identity = identity
            change(&$0)
        }
    }

    @Test func `a TLS connection beyond the limit is closed, and leaves no trace`() throws {
        let server = try tlsServer {
            $0.maximumConnections = 1
            $0.handshakeTime = 60
        }
        let first = try HTTPConnection(port: server.port)
        #expect(becomesTrue { server.server.connectionCount == 1 })
        for _ in 0..<20 {
            let other = try HTTPConnection(port: server.port, patience: 10)
            #expect(try other.isEnded())
        }
        #expect(server.server.connectionCount == 1)
        withExtendedLifetime(first) {}
    }

    @Test(arguments: [[], [22, 3, 1]] as [[UInt8]])
    func `a TLS handshake that does not go on is ended`(beginning: [UInt8]) throws {
        let server = try tlsServer { $0.handshakeTime = 0.3 }
        let connection = try HTTPConnection(port: server.port, patience: 10)
        if !beginning.isEmpty { try connection.send(beginning) }
        // The server had accepted it then.
        #expect(try connection.isEnded())
        #expect(becomesTrue { server.server.connectionCount == 0 })
    }

    @Test(.enabled(if: isRoot && isInstalled("prlimit"), "prlimit(1) sets the limit of a server"))
    func `a server without descriptors never answers that a device does not exist`() throws {
        let server = try ServeProcess(image.path, scratch.path + "/", "LABEL=none")
        let connection = try HTTPConnection(port: server.port)
        let names = [image.path, scratch.path + "/other.img", "UUID=aa", "LABEL=none", "/dev/none"]
        let paths =
            names.map { Route.device($0).path } + [
                "/v1/devices", Route.content(image.path).path, "/info?filename=\(image.path)",
            ]
        let before = try paths.map { try connection.ask("GET", $0).status }
        #expect(Set(before) == [200, 404])
        func limit(_ count: Int) throws {
            try must(
                "prlimit", "--pid", "\(server.process.processID)", "--nofile=\(count):4096")
        }
        // No number below 3 is free.
        try limit(3)
        for path in paths where path != Route.content(image.path).path {
            let answer = try connection.ask("GET", path)
            #expect(answer.status == 503, "\(path): \(answer.text)")
            #expect(answer.text.contains("Too many open files"), "\(path): \(answer.text)")
        }
        try limit(4096)
        #expect(try paths.map { try connection.ask("GET", $0).status } == before)
    }

    @Test(arguments: [
        Errno.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory, .ioError,
    ])
    func `a shortage or a failing disk is 503 and never a missing export`(errno: Errno) {
        let problem = #expect(throws: Problem.self) {
            try ExportTable.require(absenceOf: "/srv/a.img", by: errno)
        }
        #expect(problem?.status == 503 && problem?.kind == .busy)
        #expect(problem?.object == "/srv/a.img" && problem?.errno == Int(errno.rawValue))
        // Only a limit of the server can be raised.
        #expect((problem?.advice == nil) == (errno == .ioError))
    }

    @Test func `a file that is missing or not permitted may be answered with 404`() throws {
        for errno in [nil, .noSuchFileOrDirectory, .notDirectory, .permissionDenied] as [Errno?] {
            try ExportTable.require(absenceOf: "/srv/a.img", by: errno)
        }
    }

    @Test(
        arguments: [
            (128, [20, 10, 8, 4, 4, 2]), (256, [84, 42, 16, 8, 9, 4]),
            (512, [212, 106, 33, 16, 18, 9]),
            (1024, [468, 234, 64, 32, 41, 20]), (4096, [1024, 512, 64, 32, 880, 440]),
        ] as [(Int, [Int])])
    func `descriptors are shared among connections, sessions and downloads`(
        count: Int, expected: [Int]
    ) {
        let options = BlockServer.Options(
            address: .standardStreams, exports: [], logger: Logger(label: "test"))
        let shares = DescriptorShares(of: count, options)
        let found = [
            shares.connections, shares.connectionsOfClient, shares.sessions,
            shares.sessionsOfClient, shares.downloads, shares.downloadsOfClient,
        ]
        #expect(found == expected)
        // A session counts as six and a download as three; twice 24 are for the server's own use.
        let most = shares.connections + 6 * shares.sessions + 3 * shares.downloads
        #expect(most <= count - 24 - 24)
    }

    @Test(
        .enabled(if: isInstalled("prlimit"), "prlimit(1) sets the limit of a server"),
        arguments: [128, 256])
    func `one client's sessions and downloads leave descriptors to others`(limit: Int) throws {
        let size = 64 << 20
        for index in 0..<60 {
            try must("truncate", "-s", "\(size)", scratch.file("\(index).img"))
        }
        let server = try ServeProcess(
            options: ["--export", scratch.path + "/:rw"],
            prefix: ["prlimit", "--nofile=\(limit):\(limit)"])
        func open(
            _ index: Int, _ mode: SessionRequest.Mode, by client: HTTPConnection
        ) throws -> HTTPAnswer {
            let asked = Wire.sessionRequest(mode, size: mode == .read ? nil : size)
            return try client.ask(
                "POST", Route.sessions(device: scratch.file("\(index).img")).path, [Wire.json],
                body: WireJSON.encode(asked))
        }
        let greedy = try HTTPConnection(port: server.port, from: 2)
        let statuses = try (0..<10).map { try open($0, .write, by: greedy).status }
        // 4 of 8, or 8 of 16.
        let most = limit == 128 ? 4 : 8
        #expect(statuses == (0..<10).map { $0 < most ? 201 : 429 })
        // Downloads that their client does not read, of more images than it may have.
        let downloads = (20..<60).compactMap { index -> HTTPConnection? in
            let path = Route.content(scratch.file("\(index).img")).path
            let download = try? HTTPConnection(port: server.port, from: 2)
            try? download?.send(HTTPConnection.request("GET", path))
            return download
        }
        let other = try HTTPConnection(port: server.port, from: 3)
        #expect(try other.ask("GET", "/v1/devices").status == 200)
        #expect(try open(15, .write, by: other).status == 201)
        #expect(try other.ask("HEAD", Route.content(image.path).path).status == 200)
        #expect(server.descriptors < limit)
        withExtendedLifetime((greedy, downloads)) {}
    }

    @Test(.enabled(if: isRoot && isInstalled("prlimit"), "prlimit(1) sets the limit of a server"))
    func `a server without descriptors accepts later, and does not spin`() throws {
        let server = try ServeProcess(image.path)
        let known = try HTTPConnection(port: server.port)
        #expect(try known.ask("GET", "/v1").status == 200)
        func limit(_ count: Int) throws {
            try must(
                "prlimit", "--pid", "\(server.process.processID)", "--nofile=\(count):4096")
        }
        /// Hundredths of a second that the server has used a processor (proc_pid_stat(5)).
        func ticks() throws -> Int {
            let path = "/proc/\(server.process.processID)/stat"
            let text = try String(contentsOfFile: path, encoding: .utf8)
            let fields = try #require(text.split(separator: ")").last).split(separator: " ")
            return fields[11...12].compactMap { Int($0) }.reduce(0, +)
        }
        try limit(3)
        let waiting = try HTTPConnection(port: server.port)
        let before = try ticks()
        Thread.sleep(forTimeInterval: 2)
        #expect(try ticks() - before < 60)
        #expect(try known.ask("GET", "/v1").status == 200)
        try limit(4096)
        #expect(try waiting.ask("GET", "/v1").status == 200)
    }

    @Test(.enabled(if: isInstalled("prlimit"), "prlimit(1) sets the limit of a server"))
    func `connections leave 64 descriptors to devices, whatever their number`() throws {
        let limit = 200
        let server = try ServeProcess(
            options: ["--export", scratch.path + "/"],
            prefix: ["prlimit", "--nofile=\(limit):\(limit)"])
        let first = try HTTPConnection(port: server.port)
        #expect(try first.ask("GET", "/v1").status == 200)
        let others = try (0..<120).map { index in
            try HTTPConnection(port: server.port, from: UInt8(1 + index % 2))
        }
        // A rejected connection may be reset before its answer has come.
        let answered = others.count { (try? $0.ask("GET", "/v1").status) == 200 }
        // 24 are the server's own, and each connection counts as two.
        let most = (limit - 24 - 64) / 2
        #expect((most / 2...most).contains(answered), "\(answered) of \(most)")
        #expect(becomesTrue { server.descriptors <= limit - 64 })
        #expect(try first.ask("GET", Route.device(image.path).path).status == 200)
        #expect(try first.ask("GET", Route.content(image.path).path).body == image.bytes)
        let missing = Route.device(scratch.file("other.img")).path
        #expect(try first.ask("GET", missing).status == 404)
        withExtendedLifetime(others) {}
    }
}
