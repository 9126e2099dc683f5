// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Synchronization
import SystemPackage
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer
@testable import DeviceProbe

/// The cost of a question for the server, which reveals nothing that the client may not see.
@Suite(.serialized, .blocking, .timeLimit(.minutes(60))) struct HTTPQuestionTests {
    private let scratch: ScratchDirectory
    private static let token = "a-token-of-enough-characters"

    init() throws { scratch = try ScratchDirectory() }

    private var bearer: String { "Authorization: Bearer \(Self.token)" }

    /// A file that the server takes for one of tokens.
    private func tokens(_ words: String) throws -> String {
        let path = scratch.file("tokens")
        try "limited \(Self.token) \(words)\n".write(
            toFile: path, atomically: false, encoding: .utf8)
        chmod(path, 0o600)
        return path
    }

    /// How many times the server reads from files to answer a question.
    private func reads(_ server: ServeProcess, _ path: String, status: Int) throws -> Int {
        let connection = try HTTPConnection(port: server.port)
        // The first answers of a server and of a connection cost more than others.
        for _ in 0..<2 { _ = try connection.ask("GET", path, [bearer]) }
        let before = server.reads
        #expect(try connection.ask("GET", path, [bearer]).status == status)
        return server.reads - before
    }

    /// Whether two questions cost the same, except for the work of other threads of the server.
    ///
    /// Other tests make and remove devices, which counts in both. So they are asked several times,
    /// one after the other.
    private func costTheSame(
        _ server: ServeProcess, _ first: String, _ second: String
    ) throws -> Bool {
        for _ in 0..<15 {
            let difference =
                try reads(server, first, status: 404) - reads(server, second, status: 404)
            print("reads: \(difference)")
            if abs(difference) < 40 { return true }
        }
        return false
    }

    @Test(
        .enabled(if: isRoot, "loop devices need root"),
        arguments: ["", "LABEL=none-has-this", "vgnone", "/dev/null-image"])
    func `a request for a device that is not exported takes as long as for a missing one`(
        export: String
    ) throws {
        let loop = try LoopDevice(size: 8 << 20)
        let image = try scratch.sparseFile("a.img", size: 1 << 20)
        var arguments = ["--export", image, "--token-file", try tokens("")]
        if !export.isEmpty { arguments += ["--export", export] }
        let server = try ServeProcess(options: arguments)
        let (there, missing) = (Route.device(loop.path), Route.device("/dev/no-such-device"))
        #expect(try costTheSame(server, there.path, missing.path))
    }

    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `a request for a device outside the token takes as long as for a missing one`() throws {
        let loop = try LoopDevice(size: 8 << 20)
        let image = try scratch.sparseFile("a.img", size: 1 << 20)
        let server = try ServeProcess(
            options: ["--export-all", "--export", image, "--token-file", try tokens(image)])
        for form in [Route.device, Route.content] {
            let (there, missing) = (form(loop.path), form("/dev/no-such-device"))
            #expect(try costTheSame(server, there.path, missing.path))
        }
    }

    /// Images of a directory, old enough that their content may be cached.
    private func images(_ count: Int) throws -> String {
        let directory = try scratch.directory("images", ofImages: count, size: 64 << 10)
        usleep(2_200_000)
        return directory + "/"
    }

    @Test func `the server does not look at images that a token does not name`() throws {
        let directory = try images(200)
        let server = try ServeProcess(
            options: [
                "--export", directory, "--export", "LABEL=none-has-this", "--token-file",
                try tokens(directory + "7.img"),
            ])
        let names = [
            "UUID=aa", "LABEL=aa", "NAME=aa", "WWN=aa", "LVUUID=aa", "nothing", "7.img",
        ]
        for name in names {
            let reads = try self.reads(server, Route.device(name).path, status: 404)
            #expect(reads < 20_000, "\(name): \(reads) reads")
        }
        let list = try reads(server, "/v1/devices", status: 200)
        #expect(list < 20_000, "\(list) reads")
    }

    @Test func `a list reads /sys once, and an unchanged image once`() throws {
        let count = 2000
        let directory = try images(count)
        let server = try ServeProcess(
            options: ["--export", directory, "--token-file", try tokens("")])
        let connection = try HTTPConnection(port: server.port, patience: 120)
        func list() throws -> (answer: ExportList, reads: Int, time: Duration) {
            let before = server.reads
            let start = ContinuousClock.now
            let answer = try connection.ask("GET", "/v1/devices", [bearer])
            let time = ContinuousClock.now - start
            return (try answer.decoded(as: ExportList.self), server.reads - before, time)
        }
        let first = try list()
        let second = try list()
        print(
            "\(count) images: \(first.time), then \(second.time); "
                + "reads: \(first.reads), then \(second.reads)")
        #expect(first.answer == second.answer && first.answer.devices.count == count)
        // An image takes about 20 reads, and /sys about 100, more with more devices.
        #expect(second.reads < 5 * count, "\(second.reads) reads")
        // What has changed is seen at once.
        try must("mkswap", "-q", "-L", "new-label", directory + "7.img")
        let third = try list()
        #expect(
            third.answer.devices.first { $0.path == directory + "7.img" }?.tags
                .contains("LABEL=new-label") == true)
        #expect(
            try connection.ask("GET", Route.device("LABEL=new-label").path, [bearer]).status == 200)
    }

    @Test func `the description of an image is remembered until the image changes`() throws {
        var contents = ImageContents()
        let path = try scratch.sparseFile("a.img", size: 1 << 20)
        func description() throws -> DeviceDescription {
            try DeviceSurvey(contents: contents).describe(path: path, as: path)
        }
        // A second change within one tick of the clock would not show. After a stall of this test
        // the first one is old enough.
        let isForgotten = try holdsUndisturbed {
            contents = ImageContents()
            chmod(path, 0o600)
            _ = try description()
            return contents.count == 0
        }
        #expect(isForgotten)
        usleep(2_200_000)
        #expect(try description().tags.isEmpty)
        #expect(contents.count == 1)
        try must("mkswap", "-q", "-L", "new-label", path)
        #expect(try description().hasTag("LABEL=new-label"))
    }

    @Test func `requests of one client do not delay those of another`() throws {
        let directory = try images(300)
        let file = try tokens("")
        let other = "another-token-of-enough-characters"
        try must("sh", "-c", "echo 'other \(other)' >> \(file)")
        let server = try ServeProcess(options: ["--export", directory, "--token-file", file])
        let name = { (index: Int) in Route.device("UUID=\(index)").path }
        let one = try reads(server, name(0), status: 404)
        // If this test stalls, the server may answer the others meanwhile.
        let isSoon = try holdsUndisturbed {
            let before = server.reads
            let flood = try (1...200).map { index in
                let connection = try HTTPConnection(port: server.port)
                try connection.send(HTTPConnection.request("GET", name(index), [bearer]))
                return connection
            }
            let connection = try HTTPConnection(port: server.port)
            #expect(
                try connection.ask("GET", "/v1", ["Authorization: Bearer \(other)"]).status == 200)
            let reads = server.reads - before
            print("\(reads) reads, and \(one) for one question")
            withExtendedLifetime(flood) {}
            return reads < 100 * one
        }
        #expect(isSoon)
    }

    @Test func `a server that ends does not make the lists that still wait for a thread`() throws {
        let directory = try scratch.directory("images", ofImages: 200, size: 4096)
        // If this test stalls before the stop, the server may make all lists.
        let areLeftOut = try holdsUndisturbed {
            let server = try TestServer(directory + "/") { $0.threads = 2 }
            let clients = try (0..<100).map { _ in
                let client = try HTTPConnection(port: server.port)
                try client.send(HTTPConnection.request("GET", "/v1/devices"))
                return client
            }
            #expect(try clients[0].answer().status == 200)
            server.server.stop()
            // A client whose request the server had not read by then gets no answer.
            let answers = clients.dropFirst().compactMap { try? $0.answer() }
            #expect(answers.allSatisfy { $0.status == 200 || $0.problem == .busy })
            return answers.contains { $0.text.contains("the server is ending") }
        }
        #expect(areLeftOut)
    }

    @Test func `clients take turns at the threads`() throws {
        let queue = WorkQueue(threads: 1, memory: 4096)
        let gate = Gate()
        let order = Mutex<[String]>([])
        queue.add { _ in gate.wait() }
        for client in ["a", "a", "a", "a", "b", "c", "b"] {
            queue.add(for: client) { _ in order.withLock { $0.append(client) } }
        }
        gate.open()
        queue.close()
        #expect(order.withLock { $0 } == ["a", "b", "c", "a", "b", "a", "a"])
    }

    @Test func `one client leaves a thread to others, whatever devices it asks for`() throws {
        let queue = WorkQueue(threads: 4, memory: 4096)
        let gate = Gate()
        for index in 0..<32 {
            queue.add(on: "device \(index)", for: "a") { _ in gate.wait() }
            queue.add(isOfSession: true, on: "session of \(index)", for: "a") { _ in gate.wait() }
        }
        let done = Gate()
        for _ in 0..<8 {
            queue.add(for: "b") { _ in done.pass() }
            queue.add(isOfSession: true, on: "session of another", for: "b") { _ in done.pass() }
        }
        #expect(becomesTrue { done.passed == 16 })
        gate.open()
        // Its jobs go on without another wakeup.
        #expect(becomesTrue { gate.passed == 64 })
        queue.close()
    }

    @Test func `a queue that closes does the jobs of a client with its share of threads`() throws {
        let queue = WorkQueue(threads: 4, memory: 4096)
        let gate = Gate()
        for index in 0..<32 {
            queue.add(on: "device \(index)", for: "a") { _ in gate.wait() }
        }
        usleep(100_000)
        Thread.detachNewThread {
            usleep(100_000)
            gate.open()
        }
        queue.close()
        #expect(gate.passed == 32)
    }

    @Test func `requests leave threads to sessions, and one device leaves threads to others`()
        throws
    {
        let queue = WorkQueue(threads: 4, memory: 4096)
        let gate = Gate()
        // Devices that do not answer: of sessions, and of downloads.
        for index in 0..<64 {
            queue.add(on: "a device") { _ in gate.wait() }
            queue.add(isOfSession: true, on: "session of a device") { _ in gate.wait() }
            queue.add(on: index % 2 == 0 ? "a device" : nil) { _ in gate.pass() }
        }
        let done = Gate()
        queue.add { _ in done.pass() }
        queue.add(isOfSession: true, on: "session of another") { _ in done.pass() }
        #expect(becomesTrue { done.passed == 2 })
        gate.open()
        queue.close()
        #expect(gate.passed == 64 + 128)
    }
}

/// Holds threads until it is opened.
private final class Gate: Sendable {
    private struct State {
        var isOpen = false
        var passed = 0
    }
    private let state = Mutex(State())

    var passed: Int { state.withLock { $0.passed } }

    func open() { state.withLock { $0.isOpen = true } }
    func pass() { state.withLock { $0.passed += 1 } }
    func wait() {
        while !state.withLock({ $0.isOpen }) { usleep(1000) }
        pass()
    }
}
