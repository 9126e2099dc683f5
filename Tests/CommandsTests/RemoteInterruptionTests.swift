// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Runs over the network that do not come to their end, or not at once.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RemoteInterruptionTests {
    private let scratch: ScratchDirectory
    private let there: String
    private let server: ServeProcess
    private let source: String
    private let size = 24 << 20

    init() throws {
        scratch = try ScratchDirectory()
        there = scratch.file("there")
        try FileManager.default.createDirectory(atPath: there, withIntermediateDirectories: false)
        server = try ServeProcess("\(there)/:rw", options: ["--session-timeout", "30"])
        source = try scratch.filledFile("source", size: size, seed: 1)
    }

    private func url(_ name: String) -> String { server.url("\(there)/\(name)") }

    /// Starts a run that takes about six seconds, and waits until its target has some of the data.
    ///
    /// - Parameter rate: less for a run that does not come to its end.
    private func start(
        _ from: String, _ to: String, target: String, _ flags: [String] = [], rate: String = "4M"
    ) throws -> RunningProgram {
        let sync = try RunningProgram(
            [program, "--json", "-c", "2", "--bwlimit", rate] + flags + [from, to])
        let wanted = try [UInt8](contentsOf: source, count: 4096)
        while sync.isRunning, (try? [UInt8](contentsOf: target, count: 4096)) != wanted {
            usleep(2_000)
        }
        return sync
    }

    private func json(_ result: ProgramResult) throws -> Record {
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        return Record(try #require(object as? [String: Any]))
    }

    @Test(arguments: [true, false], [[], ["--whole-file"]])
    func `a signal soon ends the run in order, and a second run finishes the job`(
        isPush: Bool, flags: [String]
    ) throws {
        try must("cp", source, "\(there)/other")
        let target = try scratch.sparseFile(isPush ? "there/image" : "image", size: size)
        let (from, to) = isPush ? (source, url("image")) : (url("other"), target)
        let sync = try start(from, to, target: target, flags)
        sync.signal(SIGINT)
        let result = try sync.wait()
        #expect(result.status == 130, "\(result)")
        let record = try json(result)
        #expect(record.bool("interrupted") == true && record.bool("flushed") == true)
        #expect(try #require(record.int("compared")) < size, "not all the data is waited for")
        #expect(try !areEqual(source, target))

        let (second, again) = try blkferryJSON(from, to)
        #expect(second.status == 0, "\(second)")
        #expect(try #require(again.int("written")) < size)
        #expect(try areEqual(source, target))
    }

    @Test func `on a line on which a request takes minutes, a signal still ends the run`() throws {
        for flags in [[], ["--whole-file"]] {
            _ = try scratch.sparseFile("there/image", size: size)
            let sync = try RunningProgram(
                [program, "--bwlimit", "20K", "-c", "2"] + flags + [source, url("image")])
            usleep(1_500_000)
            let clock = ContinuousClock()
            let interrupt = clock.now
            sync.signal(SIGINT)
            let result = try sync.wait()
            #expect(result.status == 130, "\(result)")
            #expect(clock.now - interrupt < .seconds(30))
        }
    }

    @Test(arguments: ["missing", "same", "larger"])
    func `a server that is killed and restarted does not end a push`(target: String) throws {
        let image = "\(there)/image"
        switch target {
        case "same": _ = try scratch.sparseFile("there/image", size: size)
        case "larger": _ = try scratch.sparseFile("there/image", size: 2 * size)
        default: break
        }
        let sync = try start(source, url("image"), target: image)
        try server.kill()
        usleep(700_000)
        try server.startAgain()
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, image))
        #expect(try json(result).bool("flushed") == true)
    }

    @Test func `a server that is killed and restarted does not end a pull`() throws {
        try must("cp", source, "\(there)/image")
        let target = scratch.file("target")
        let sync = try start(url("image"), target, target: target)
        try server.kill()
        usleep(700_000)
        try server.startAgain()
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(!result.errors.contains("changed"), "\(result)")
        #expect(try areEqual(source, target))
    }

    @Test(arguments: [true, false])
    func `a server that is gone for good ends the run with one clear line, after one for the wait`(
        isPush: Bool
    ) throws {
        try must("cp", source, "\(there)/other")
        let target = try scratch.sparseFile(isPush ? "there/image" : "image", size: size)
        let (from, to) = isPush ? (source, url("image")) : (url("other"), target)
        let sync = try start(from, to, target: target)
        let clock = ContinuousClock()
        let death = clock.now
        try server.kill()
        let result = try sync.wait()
        #expect(result.status == 4, "\(result)")
        let seconds = (clock.now - death) / .seconds(1)
        #expect(seconds > 25 && seconds < 60, "\(seconds)")
        let lines = result.errors.split(separator: "\n")
        #expect(lines.count == 2, "\(result.errors)")
        #expect(lines.first?.hasPrefix("blkferry: waiting for http://127.0.0.1:") == true)
        #expect(lines.allSatisfy { $0.hasSuffix(": connection refused") }, "\(result.errors)")
        let record = try json(result)
        #expect(record.bool("flushed") == !isPush)
        #expect(record.bool("sourceChanged") == false)
    }

    @Test func `a killed client leaves the target locked for other machines alone`() throws {
        let image = try scratch.sparseFile("there/image", size: size)
        let sync = try start(source, url("image"), target: image, rate: "1M")
        let beside = try blkferry(source, url("image"))
        #expect(beside.status == 2)
        #expect(beside.errors.contains("a client at 127.0.0.1:"), "\(beside)")
        #expect(beside.errors.contains("is writing to it"), "\(beside)")
        #expect(try blkferry(url("image"), scratch.file("back")).status == 2, "nor is it read")
        sync.signal(SIGKILL)
        _ = try sync.wait()
        if isRoot {
            let elsewhere = try run(
                "unshare", "-m", "sh", "-c", "mount -t tmpfs none /run && exec \"$0\" \"$@\"",
                program, source, url("image"))
            #expect(elsewhere.status == 2, "\(elsewhere)")
        }
        let again = try blkferry("--verify", source, url("image"))
        #expect(again.status == 0, "\(again)")
        #expect(try areEqual(source, image))
        #expect(try server.log().contains("end=abandoned"))
    }

    @Test func `a client that is stopped keeps its target until its session is silent`() throws {
        let image = try scratch.sparseFile("there/image", size: size)
        let server = try ServeProcess("\(there)/:rw", options: ["--session-timeout", "10"])
        let sync = try start(source, server.url(image), target: image)
        sync.signal(SIGSTOP)
        #expect(try blkferry(source, server.url(image)).status == 2)
        #expect(try becomesTrue { try server.log().contains("end=silent") })
        sync.signal(SIGCONT)
        #expect(try sync.wait().status == 0)
        #expect(try areEqual(source, image))
    }

    @Test func `a server that gets SIGTERM flushes everything and says so`() throws {
        let image = try scratch.sparseFile("there/image", size: size)
        let sync = try start(source, url("image"), target: image)
        server.process.signal(SIGTERM)
        let ended = try server.process.wait()
        #expect(ended.status == 0, "\(ended)")
        #expect(ended.errors.contains("ended"))
        #expect(sync.isRunning)
        try server.startAgain()
        #expect(try sync.wait().status == 0)
        #expect(try areEqual(source, image))
    }
}
