// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import SyncEngine
import TestSupport
import Testing

@testable import BlockReplication

/// Which files a checkpoint may be, and which runs leave it alone.
extension CheckpointRunTests {
    @Test func `a refused run, a dry run and a comparison leave the file as it was`() throws {
        _ = try run(stopsAt: half)
        let before = try Data(contentsOf: URL(fileURLWithPath: file))
        let dry = try run(.dryRun).report
        #expect(dry.isDone && dry.compared == size && dry.checkpoint == nil)
        #expect(try run(.compare).report.isDone)
        let limited = try run { $0.maximumChange = 10 }.report
        #expect(limited.refusal != nil)
        #expect(throws: ReplicationError.self) { try run(to: "/dev/null") }
        #expect(try Data(contentsOf: URL(fileURLWithPath: file)) == before)
        #expect(try run().report.checkpoint?.resumed == half)
    }

    @Test func `a file that is no checkpoint is refused and left alone`() throws {
        let text = Data("my notes".utf8)
        try text.write(to: URL(fileURLWithPath: file))
        let error = #expect(throws: ReplicationError.self) { try run() }
        #expect(error?.kind == .refused && error?.cause == "wrong-kind")
        #expect(try Data(contentsOf: URL(fileURLWithPath: file)) == text)
        for mode in ["o+w", "g+w"] {
            try must("rm", file)
            _ = try run(stopsAt: half)
            try must("chmod", mode, file)
            #expect(throws: ReplicationError.self) { try run() }
        }
        for path in [scratch.path, "/dev/null", "/dev/zero"] {
            let error = #expect(throws: ReplicationError.self) {
                try run { $0.checkpoint = .init(file: path) }
            }
            #expect(error?.kind == .refused)
        }
        let missing = #expect(throws: ReplicationError.self) {
            try run { $0.checkpoint = .init(file: scratch.file("none/checkpoint")) }
        }
        #expect(missing?.kind == .device)
    }

    @Test func `a checkpoint is neither the source nor the target, also a new one`() throws {
        let new = scratch.file("new")
        try must("ln", target, scratch.file("link"))
        for (path, to) in [
            (source, target), (target, target), (new, new), (scratch.file("link"), target),
            ("\(scratch.path)/./new", new),
        ] {
            let error = #expect(throws: ReplicationError.self) {
                try run(to: to) { $0.checkpoint = .init(file: path) }
            }
            #expect(error?.kind == .refused, "\(path)")
        }
        #expect(!FileManager.default.fileExists(atPath: new))
    }

    @Test func `a link to a checkpoint stays a link`() throws {
        let link = scratch.file("link")
        _ = try run(stopsAt: half)
        try must("ln", "-s", file, link)
        let report = try run(stopsAt: half + (4 << 20)) { $0.checkpoint = .init(file: link) }.report
        #expect(report.checkpoint?.resumed == half && report.checkpoint?.file == link)
        #expect(try must("readlink", link).hasPrefix(file))
        #expect(try run().report.checkpoint?.resumed == half + (4 << 20))
    }

    /// The counter of what is open must not be taken for that of the file that has its name now.
    @Test(arguments: [false, true])
    func `a file that is replaced during the run leaves no checkpoint`(isSource: Bool) throws {
        #expect(try run(stopsAt: half).report.checkpoint?.done == half)
        let name = isSource ? source : target
        let copy = scratch.file("copy")
        try must("cp", name, copy)
        let dd = "dd of=\(copy) bs=1 seek=1048581 conv=notrunc status=none"
        try must("sh", "-c", "printf BAD | \(dd)")
        var options = Replication.Options()
        options.concurrency = 1
        options.checkpoint = .init(file: file)
        let replication = try Replication(
            .synchronize, from: source, to: target, options: options,
            control: .init(RunControl(stopsAt: half + (4 << 20)))
        ) { event in
            // The run sends this note when it continues, before it copies anything.
            if case .note(let text) = event, text.contains("continues") { _ = rename(copy, name) }
        }
        let report = replication.run()
        #expect(report.checkpoint?.resumed == half && report.checkpoint?.done == nil)
        #expect(!FileManager.default.fileExists(atPath: copy))
        #expect(try run().report.isDone)
        #expect(FileManager.default.contentsEqual(atPath: source, andPath: target))
    }
}
