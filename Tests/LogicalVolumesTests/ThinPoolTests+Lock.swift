// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import Glibc
import LinuxIO
import Synchronization
import TestSupport
import Testing

@testable import LogicalVolumes

/// Several that want the metadata snapshot of one pool, and the lock between them.
extension ThinPoolTests {
    @Test func `a metadata snapshot that another program holds is left alone`() {
        tools.put("held", "12")
        let error = failure()
        #expect(error?.reason == "another program holds its metadata snapshot")
        #expect(error?.advice?.contains("release_metadata_snap") == true)
        #expect(tools.messages == [] && tools.text("held") == "12")
    }

    @Test
    func
        `a metadata snapshot that another program holds is left alone, though a lock names another`()
    {
        tools.put("held", "12")
        let records = ["77", "1", "12x", "-", "-12"].map { ScriptedTools.record($0) }
        for text in records + ["", "12", "0 8 linear 12 2/2 3/3 12 rw", "3 1/2 1/2", "3 1 2 12 rw"]
        {
            tools.put(ScriptedTools.lock, text)
            #expect(failure()?.reason == "another program holds its metadata snapshot")
        }
        #expect(tools.messages == [] && tools.text("held") == "12")
    }

    @Test func `nothing is released if another program reserves the metadata snapshot first`() {
        tools.put("faster", "12")
        #expect(failure()?.reason.contains("Device or resource busy") == true)
        #expect(tools.messages == ["reserve_metadata_snap"] && tools.text("held") == "12")
    }

    @Test func `another program's new metadata snapshot is left alone after ours was released`() {
        tools.put("taken", "12")
        #expect(failure()?.reason.contains("another program has released") == true)
        #expect(tools.messages == ["reserve_metadata_snap"] && tools.text("held") == "12")
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    @Test func `a metadata snapshot that a killed blkferry has left is released`() throws {
        tools.put("held", "77")
        tools.put(ScriptedTools.lock, ScriptedTools.record("77"))
        _ = try delta()
        #expect(tools.messages == ["release_metadata_snap"] + Self.both)
        #expect(tools.text("held") == "-")
    }

    @Test func `a held metadata snapshot is named in the lock, and nothing else has the lock`()
        throws
    {
        tools.put("slow", "")
        let threads = Threads.start(count: 1) { _ in _ = try? delta() }
        while !tools.has("started") { usleep(1000) }
        #expect(
            tools.text(ScriptedTools.lock)
                == ScriptedTools.record("77"))
        tools.remove("slow")
        threads.wait()
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    /// As if blkferry was killed while a process sends the message for it.
    @Test
    func `a reservation that has begun is finished and recorded before another run has the lock`()
        throws
    {
        tools.put("slow-message", "")
        let path = tools.scratch.file(ScriptedTools.lock)
        let lock = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT)
        #expect(flock(lock.rawValue, LOCK_EX) == 0)
        let descriptor = lock.rawValue
        let threads = Threads.start(count: 1) { _ in
            try? tools.mapper.send(
                "reserve_metadata_snap", to: tools.pool.name, orElse: "release_metadata_snap",
                recordIn: descriptor)
        }
        while tools.messages.isEmpty { usleep(1000) }
        _ = consume lock
        var questions = 0
        let waiting = failure {
            questions += 1
            return questions > 3
        }
        #expect(waiting?.kind == .cancelled)
        tools.remove("slow-message")
        threads.wait()
        _ = try delta()
        #expect(tools.messages == ["reserve_metadata_snap", "release_metadata_snap"] + Self.both)
    }

    @Test func `the process that sends a message keeps no other lock, claim or connection`()
        throws
    {
        _ = try delta()
        // The lock's file, the control file, and the directory of the scripted device mapper.
        #expect(tools.text("descriptors") == "3")
    }

    @Test func `nothing is released if another program has released the metadata snapshot at once`()
    {
        tools.put("status", "0 8 thin-pool 3 1/2 1/2 - rw discard_passdown queue_if_no_space - 9")
        #expect(failure()?.reason.contains("another program has released") == true)
        #expect(tools.messages == ["reserve_metadata_snap"])
    }

    @Test func `runs at the same time have the metadata snapshot one after the other`() throws {
        let results = Mutex<[Bool]>([])
        // Each as a process of its own would: with snapshots of its own.
        Threads.start(count: 4) { _ in
            let delta = try? tools.pool.delta(from: 1, to: 2, snapshots: MetadataSnapshots()) {
                false
            }
            results.withLock { $0.append(delta != nil) }
        }.wait()
        #expect(results.withLock { $0 } == [true, true, true, true])
        #expect(tools.messages == Self.both + Self.both + Self.both + Self.both)
    }

    @Test func `waiting for another run ends with the run`() throws {
        let lock = try OwnedDescriptor.open(
            tools.scratch.file(ScriptedTools.lock), flags: O_RDWR | O_CREAT)
        #expect(flock(lock.rawValue, LOCK_EX) == 0)
        var questions = 0
        let error = failure {
            questions += 1
            return questions > 3
        }
        #expect(error?.kind == .cancelled && tools.messages == [])
    }

    @Test func `a pool lock that is a symbolic link is not followed`() throws {
        tools.put("else", "12")
        try must("ln", "-s", tools.scratch.file("else"), tools.scratch.file(ScriptedTools.lock))
        #expect(failure()?.reason.contains("lock: ") == true)
        #expect(tools.text("else") == "12" && tools.messages == [])
    }
}
