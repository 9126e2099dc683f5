// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Glibc
import LinuxIO
import SystemPackage
import TestSupport
import Testing
import WireProtocol

/// The history of writes: after restarts of the server, and where it was lost.
extension HTTPContinuedSessionTests {
    @Test func `after a restart it is unknown whether another program has written`() throws {
        let run = try start()
        let server = try makeServer()
        let answer = try run.goOn(on: server)
        #expect(answer.status == 201, "\(answer.text)")
        #expect(try answer.decoded(as: SessionRecord.self).unchanged == nil)
    }

    @Test func `a restarted server knows the change counters of the server before it`() throws {
        // A child of another test may have the image open; then it is not proved unchanged.
        for attempt in 0..<20 {
            let path = try scratch.sparseFile("image \(attempt)", size: Self.size)
            let directory = scratch.file("run \(attempt)")
            let run = try Run(path, on: try makeServer(remembering: directory))
            let second = try makeServer(remembering: directory)
            let record = try run.goOn(on: second).decoded(as: SessionRecord.self)
            if record.unchanged != true { continue }
            try #require(becomesTrue { second.endSilentSessions() })
            try touch(path)
            try run.expectRefusal(try run.goOn(on: try makeServer(remembering: directory)))
            return
        }
        Issue.record("no run continues")
    }

    @Test func `a write by another client between two restarts ends the run`() throws {
        let path = try scratch.sparseFile("image", size: Self.size)
        let directory = scratch.file("run")
        let run = try Run(path, on: try makeServer(remembering: directory))
        let between = try makeServer(remembering: directory)
        let other = try between.session(path, .write, size: Self.size, run: "other")
        #expect(
            try between.write(other.session, [UInt8](repeating: 0, count: 512), at: 0).status == 204
        )
        #expect(try between.commit(other.session).status == 204)
        try run.expectRefusal(try run.goOn(on: try makeServer(remembering: directory)))
    }

    @Test(arguments: ["", "{", "[]", "directory", "other boot"])
    func `a damaged history proves nothing`(content: String) throws {
        let directory = scratch.file("run")
        let run = try Run(
            try scratch.sparseFile("image", size: Self.size),
            on: try makeServer(remembering: directory))
        let file = "\(directory)/writes.json"
        let text = try String(contentsOfFile: file, encoding: .utf8)
        try FileManager.default.removeItem(atPath: file)
        if content == "directory" {
            try FileManager.default.createDirectory(
                atPath: file, withIntermediateDirectories: false)
        } else {
            let boot = try #require(readSmallFile("/proc/sys/kernel/random/boot_id"))
            let other = text.replacingOccurrences(of: boot, with: String(boot.reversed()))
            try (content == "other boot" ? other : content)
                .write(toFile: file, atomically: false, encoding: .utf8)
        }
        let answer = try run.goOn(on: try makeServer(remembering: directory))
        #expect(try answer.decoded(as: SessionRecord.self).unchanged == nil)
    }

    @Test(arguments: ["{", "too large"])
    func `a run from before the loss of the history does not overwrite a later copy`(
        content: String
    ) throws {
        let path = try scratch.sparseFile("image", size: Self.size)
        let directory = scratch.file("run")
        let run = try Run(path, on: try makeServer(remembering: directory))
        let file = "\(directory)/writes.json"
        if content == "too large" {
            try must("truncate", "-s", "17M", file)
        } else {
            try content.write(toFile: file, atomically: false, encoding: .utf8)
        }
        let second = try makeServer(remembering: directory)
        // Any session replaces the file, also one of another device.
        let other = try scratch.sparseFile("other", size: Self.size)
        let session = try second.session(other, .write, size: Self.size, run: "other")
        #expect(try second.commit(session.session).status == 204)
        for server in [second, try makeServer(remembering: directory)] {
            try run.expectRefusal(try run.goOn(on: server))
        }
    }

    @Test(arguments: [true, false])
    func `the history grows little, whatever clients put into it`(isLong: Bool) throws {
        let path = try scratch.sparseFile("image", size: Self.size)
        let directory = scratch.file("run")
        let server = try makeServer(remembering: directory)
        let run = String(repeating: "\"", count: isLong ? 129 : 128)
        let answer = try server.open(path, .write, size: Self.size, run: run)
        #expect(answer.status == (isLong ? 400 : 201), "\(answer.text)")
        #expect(try server.open(path, .write, size: Self.size, run: "a\u{1}b").status == 400)
        let text = try? String(contentsOfFile: "\(directory)/writes.json", encoding: .utf8)
        #expect(text?.utf8.count ?? 0 < 1024)
    }

    @Test func `a run whose sessions were dropped from the history does not continue`() throws {
        let run = try start()
        for index in 0..<9 {
            let other = try run.server.session(
                run.path, .write, size: Self.size, run: "other \(index)")
            if index == 0 {
                let zeros = [UInt8](repeating: 0, count: 512)
                #expect(try run.server.write(other.session, zeros, at: 0).status == 204)
            }
            #expect(try run.server.commit(other.session).status == 204)
        }
        try run.expectRefusal(try run.goOn())
    }

    @Test func `after a restart a write by another client ends the run`() throws {
        let run = try start()
        let server = try makeServer()
        let other = try server.session(run.path, .write, size: Self.size, run: "other")
        let zeros = [UInt8](repeating: 0, count: 512)
        #expect(try server.write(other.session, zeros, at: 0).status == 204)
        #expect(try server.commit(other.session).status == 204)
        try run.expectRefusal(try run.goOn(on: server))
    }

    @Test func `what a run has written counts after its later sessions have written nothing`()
        throws
    {
        let run = try start()
        let server = try makeServer()
        for data in [[UInt8](repeating: 0, count: 512), []] {
            let other = try server.session(run.path, .write, size: Self.size, run: "other")
            if !data.isEmpty {
                #expect(try server.write(other.session, data, at: 0).status == 204)
            }
            #expect(try server.commit(other.session).status == 204)
        }
        try run.expectRefusal(try run.goOn(on: server))
    }
}
