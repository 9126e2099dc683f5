// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockServer
import Digests
import Foundation
import LinuxIO
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// Who may have a device beside whom, and when that ends.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPSessionTests {
    private let scratch: ScratchDirectory
    private let image: SeededImage

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 1 << 20)
    }

    private func makeServer(
        _ change: (inout BlockServer.Options) -> Void = { _ in }
    ) throws -> TestServer {
        try TestServer(image.path + ":rw", scratch.path + "/:rw", change: change)
    }

    @Test func `many readers share a device, and no target's session is let in beside them`() throws
    {
        let server = try makeServer()
        let readers = try (0..<8).map { _ in try server.session(image.path, .read) }
        #expect(Set(readers.map(\.session)).count == 8)
        for mode in [SessionRequest.Mode.write, .dryRun] {
            let answer = try server.open(image.path, mode, size: 1 << 20)
            #expect(answer.status == 423 && answer.problem == .locked)
            let problem = try answer.decoded(as: Problem.self)
            #expect(problem.detail.contains("127.0.0.1:") && problem.detail.contains("reading"))
        }
        for reader in readers { #expect(try server.commit(reader.session).status == 204) }
        #expect(try server.open(image.path, .write, size: 1 << 20).status == 201)
    }

    @Test func `one writer has the device alone, and its content can be read`() throws {
        let server = try makeServer()
        let writer = try server.session(image.path, .write, size: 1 << 20)
        for mode in [SessionRequest.Mode.write, .dryRun, .read] {
            let answer = try server.open(image.path, mode, size: 1 << 20)
            #expect(answer.status == 423)
            let problem = try answer.decoded(as: Problem.self)
            #expect(problem.detail.contains("127.0.0.1:") && problem.detail.contains("writing"))
            #expect(problem.object == image.path)
        }
        let answer = try server.ask("GET", Route.content(image.path).path)
        #expect(answer.status == 200 && answer.body == image.bytes)
        #expect(try server.ask("DELETE", Route.session(writer.session).path).status == 204)
        #expect(try server.open(image.path, .read).status == 201)
    }

    @Test(arguments: ["a.img", "new.img"])
    func `a dry run has the device alone, and its client is named`(name: String) throws {
        let server = try makeServer()
        let path = scratch.file(name)
        let isNew = path != image.path
        let dry = try server.session(path, .dryRun, size: 1 << 20, run: "run-1")
        // A new image that a dry run does not create cannot be read.
        let modes: [SessionRequest.Mode] = isNew ? [.write, .dryRun] : [.write, .dryRun, .read]
        for mode in modes {
            let answer = try server.open(path, mode, size: 1 << 20, run: "run-2")
            #expect(answer.status == 423 && answer.problem == .locked)
            let problem = try answer.decoded(as: Problem.self)
            #expect(problem.detail.contains("127.0.0.1:") && problem.detail.contains("checking"))
            #expect(problem.object == path)
        }
        let again = try server.session(path, .dryRun, size: 1 << 20, run: "run-1")
        #expect(again.session == dry.session && server.server.sessionCount == 1)
        let answer = try server.ask("GET", Route.content(path).path)
        #expect(answer.status == (isNew ? 404 : 200))
        #expect(try server.ask("DELETE", Route.session(dry.session).path).status == 204)
        #expect(try server.open(path, .write, size: 1 << 20).status == 201)
    }

    @Test func `the digest is the requested one, unless both sides have a faster one`() throws {
        let server = try makeServer()
        var request = Wire.sessionRequest(.read)
        func digest() throws -> String? {
            try server.ask(
                "POST", Route.sessions(device: image.path).path, [Wire.json],
                body: WireJSON.encode(request)
            ).decoded(as: SessionRecord.self).digest
        }
        #expect(try digest() == "sha256")
        request.fasterDigests = ["md5", "nonsense"]
        #expect(try digest() == "sha256")
        request.fasterDigests = ["nonsense", "gmac"]
        request.key = String(repeating: "07", count: DigestKey.byteCount)
        #expect(try digest() == (DigestMethod.fasterOnes.contains(.gmac) ? "gmac" : "sha256"))
        request.fasterDigests = nil
        request.digest = "gmac"
        #expect(try digest() == "gmac")
        request.key = nil
        let answer = try server.ask(
            "POST", Route.sessions(device: image.path).path, [Wire.json],
            body: WireJSON.encode(request))
        #expect(answer.status == 400 && answer.problem == .digest)
    }

    @Test func `a session for reading cannot write`() throws {
        let server = try makeServer()
        let reader = try server.session(image.path, .read)
        let answer = try server.write(reader.session, [UInt8](repeating: 1, count: 4096), at: 0)
        #expect(answer.status == 403 && answer.problem == .access)
        #expect(try [UInt8](contentsOf: image.path) == image.bytes)
    }

    @Test(arguments: ["a.img", "new.img"])
    func `a second request for the same run gets the same session`(name: String) throws {
        let server = try makeServer()
        let path = scratch.file(name)
        let first = try server.session(path, .write, size: 1 << 20, run: "run-1")
        let again = try server.session(path, .write, size: 1 << 20, run: "run-1")
        #expect(first.session == again.session)
        #expect(try server.open(path, .write, size: 1 << 20, run: "run-2").status == 423)
        #expect(try server.open(path, .read, run: "run-1").status == 423)
        #expect(server.server.sessionCount == 1)
        #expect(again.host != nil && first.host == again.host)
    }

    @Test func `a silent session is released and flushed, and one with keepalives is not`() throws {
        let server = try makeServer { $0.sessionTimeout = 10 }
        let silent = try server.session(image.path, .write, size: 1 << 20)
        #expect(silent.timeout == 10)
        let data = [UInt8](repeating: 9, count: 8192)
        let written = try server.write(silent.session, data, at: 4096)
        #expect(written.status == 204)
        let other = try SeededImage(scratch, "b", size: 4096)
        let kept = try server.session(other.path, .read)
        let isReleased = try becomesTrue {
            usleep(200_000)
            let sign = try server.ask("GET", Route.session(kept.session).path)
            return sign.status == 200 && server.server.sessionCount == 1
        }
        #expect(isReleased)
        let answer = try server.ask("GET", Route.session(silent.session).path)
        #expect(answer.status == 404 && answer.problem == .noSession)
        #expect(server.log.all(with: "end=silent").count == 1)
        let content = try [UInt8](contentsOf: image.path)
        #expect(Array(content[4096..<12288]) == data)
        #expect(try server.open(image.path, .write, size: 1 << 20).status == 201)
    }

    @Test func `no request finds an ended session`() throws {
        let server = try makeServer()
        let session = try server.session(image.path, .write, size: 1 << 20).session
        #expect(try server.commit(session).status == 204)
        let path = Route.session(session).path
        let frame = try Wire.read((0, 4096))
        let answers = [
            try server.ask("GET", path), try server.ask("DELETE", path),
            try server.commit(session),
            try server.write(session, [UInt8](repeating: 1, count: 4096), at: 0),
            try server.ask("POST", path + "/read", [Wire.frames], body: frame),
            try server.ask("POST", path + "/compare", [Wire.frames], body: frame),
            try server.ask("GET", Route.session("0123").path),
        ]
        for answer in answers { #expect(answer.status == 404 && answer.problem == .noSession) }
        #expect(try [UInt8](contentsOf: image.path) == image.bytes)
        let ends = server.log.all(with: "session ends")
        #expect(ends.count == 1 && ends[0].contains("end=committed"))
        #expect(server.log.all(with: "session begins").count == 1)
    }

    @Test func `the number of sessions is limited`() throws {
        let server = try makeServer { $0.maximumSessions = 3 }
        let sessions = try (0..<3).map { _ in try server.session(image.path, .read) }
        let answer = try server.open(image.path, .read)
        #expect(answer.status == 503 && answer.problem == .busy)
        #expect(answer.headers["retry-after"] == "1")
        #expect(try server.commit(sessions[0].session).status == 204)
        #expect(try server.open(image.path, .read).status == 201)
    }

    @Test func `commits and session ends at the same time do not wait for each other`() throws {
        let server = try makeServer()
        for round in 0..<40 {
            let session = try server.session(image.path, .write, size: 1 << 20).session
            let statuses = Mutex<[Int]>([])
            let failures = Atomic(0)
            Threads.start(count: 8) { index in
                do {
                    let connection = try HTTPConnection(port: server.port, patience: 30)
                    let path = Route.session(session).path
                    let answer =
                        switch index % 4 {
                        case 0: try connection.ask("DELETE", path)
                        case 1:
                            try connection.ask(
                                "POST", path + "/write", [Wire.frames],
                                body: Wire.write([UInt8](repeating: 5, count: 1 << 19), at: 0))
                        default:
                            try connection.ask(
                                "POST", path + "/commit", [Wire.json],
                                body: WireJSON.encode(CommitRequest(release: index % 4 == 2)))
                        }
                    statuses.withLock { $0.append(answer.status) }
                } catch { failures.add(1, ordering: .relaxed) }
            }.wait()
            try #require(failures.load(ordering: .relaxed) == 0, "round \(round)")
            let all = statuses.withLock { $0 }
            #expect(all.allSatisfy { $0 == 204 || $0 == 404 })
        }
        #expect(server.server.sessionCount == 0)
    }

    @Test(arguments: [(0, 100), (4096, 5000), (0, 1), ((1 << 20) - 100, 100)])
    func `a write that is not whole blocks is done right or refused, and never crashes`(
        offset: Int, length: Int
    ) throws {
        let server = try makeServer()
        let session = try server.session(image.path, .write, size: 1 << 20).session
        let answer = try server.write(session, [UInt8](repeating: 0, count: length), at: offset)
        let now = try [UInt8](contentsOf: image.path)
        var expected = image.bytes
        if answer.status == 204 {
            expected.replaceSubrange(
                offset..<offset + length, with: [UInt8](repeating: 0, count: length))
        } else {
            #expect(answer.problem == .malformed)
        }
        #expect(now == expected)
    }
}
