// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import Glibc
import LinuxIO
import LogicalVolumes
import Synchronization
import TestSupport
import Testing

@Suite(.blocking, .timeLimit(.minutes(30))) struct ThinPoolTests {
    private let tools: ScriptedTools
    private let snapshots = MetadataSnapshots()

    init() throws { tools = try ScriptedTools() }

    private func delta(unless isOver: () -> Bool = { false }) throws(ChangeMapError) -> ThinDelta {
        try tools.pool.delta(from: 1, to: 2, snapshots: snapshots, unless: isOver)
    }

    private func failure(unless isOver: () -> Bool = { false }) -> ChangeMapError? {
        #expect(throws: ChangeMapError.self) { try delta(unless: isOver) }
    }

    private static let both: [Substring] = ["reserve_metadata_snap", "release_metadata_snap"]

    @Test func `the metadata snapshot is there for thin_delta, and gone afterwards`() throws {
        let delta = try delta()
        #expect(delta.changed == [ByteRange(offset: 3 << 16, length: 1 << 16)])
        #expect(tools.messages == Self.both)
        #expect(tools.text("held-meanwhile") == "77" && tools.text("held") == "-")
        #expect(
            tools.text("asked-for")
                == "-m --thin1 1 --thin2 2 \(tools.scratch.path)/vg--0-pool_tmeta")
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    @Test func `what a killed one has left is released by whoever comes first`() throws {
        #expect(try !tools.pool.releaseLeftover(snapshots: snapshots))
        tools.put("held", "77")
        // Somebody else's.
        #expect(try !tools.pool.releaseLeftover(snapshots: snapshots))
        tools.put(ScriptedTools.lock, ScriptedTools.record("76"))
        #expect(try !tools.pool.releaseLeftover(snapshots: snapshots))
        #expect(tools.messages == [])
        tools.put(ScriptedTools.lock, ScriptedTools.record("77"))
        #expect(try tools.pool.releaseLeftover(snapshots: snapshots))
        #expect(tools.messages == ["release_metadata_snap"] && tools.text("held") == "-")
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    @Test func `where another one is at work nobody waits to look for leftovers`() throws {
        tools.put("held", "77")
        tools.put(ScriptedTools.lock, ScriptedTools.record("77"))
        let file = try FileHandle(
            forUpdating: URL(fileURLWithPath: tools.scratch.file(ScriptedTools.lock)))
        #expect(flock(file.fileDescriptor, LOCK_EX) == 0)
        #expect(throws: ChangeMapError.self) {
            try tools.pool.releaseLeftover(snapshots: snapshots)
        }
        #expect(tools.messages == [] && tools.text("held") == "77")
        try file.close()
    }

    @Test func `names are what LVM makes of them`() {
        #expect(tools.pool.name == "vg--0-pool-tpool")
        #expect(DeviceMapper.name(group: "a", volume: "b--c-") == "a-b----c--")
    }

    @Test func `it is released where thin_delta fails, and its first words are the reason`() {
        tools.put("fails", "metadata contains errors")
        let error = failure()
        #expect(
            error?.reason == "thin_delta -m: it ended with status 1: metadata contains errors")
        #expect(tools.messages == Self.both && tools.text("held") == "-")
    }

    @Test func `it is released where what thin_delta tells is not understood`() {
        tools.put("xml", "<superblock data_block_size=\"128\"><diff>")
        #expect(failure()?.reason.contains("it is cut off") == true)
        #expect(tools.messages == Self.both && tools.text("held") == "-")
    }

    @Test func `it is released where the run ends while thin_delta works`() {
        tools.put("slow", "")
        let error = failure { tools.has("started") }
        #expect(error?.isCancellation == true)
        #expect(tools.messages == Self.both && tools.text("held") == "-")
    }

    @Test func `nothing is reserved where the run is over`() {
        #expect(failure { true }?.isCancellation == true)
        #expect(tools.messages == [])
    }

    @Test func `where it cannot be released there is no map, and it says what is left`() {
        tools.put("stuck", "")
        let error = failure()
        #expect(error?.reason.contains("Operation not supported") == true)
        #expect(error?.advice?.contains("dmsetup status vg--0-pool-tpool") == true)
        tools.remove("stuck")
        // The lock names it, so that the next one gets rid of it.
        #expect(throws: Never.self) { try delta() }
        #expect(tools.text("held") == "-")
        #expect(
            tools.messages == ["reserve_metadata_snap", "release_metadata_snap"] + [
                "release_metadata_snap"
            ] + Self.both)
    }

    @Test func `both reasons are told where it cannot be released after a failure`() {
        tools.put("stuck", "")
        tools.put("fails", "metadata contains errors")
        let error = failure()
        #expect(error?.reason.contains("metadata contains errors; then dmsetup message") == true)
    }

    @Test func `one that somebody else holds is let be`() {
        tools.put("held", "12")
        let error = failure()
        #expect(error?.reason == "somebody else holds its metadata snapshot")
        #expect(error?.advice?.contains("release_metadata_snap") == true)
        #expect(tools.messages == [] && tools.text("held") == "12")
    }

    @Test func `one that somebody else holds is let be, though a lock names another one`() {
        tools.put("held", "12")
        let records = ["77", "1", "12x", "-", "-12"].map { ScriptedTools.record($0) }
        for text in records + ["", "12", "0 8 linear 1 2/2 3/3 12 rw", "0 8 thin-pool 3 1/2 1/2"] {
            tools.put(ScriptedTools.lock, text)
            #expect(failure()?.reason == "somebody else holds its metadata snapshot")
        }
        #expect(tools.messages == [] && tools.text("held") == "12")
    }

    @Test func `where somebody else is faster nothing is released`() {
        tools.put("faster", "12")
        #expect(failure()?.reason.contains("Device or resource busy") == true)
        #expect(tools.messages == ["reserve_metadata_snap"] && tools.text("held") == "12")
    }

    @Test func `where somebody else has released it and holds another one, that is let be`() {
        tools.put("taken", "12")
        #expect(failure()?.reason.contains("somebody else has released") == true)
        #expect(tools.messages == ["reserve_metadata_snap"] && tools.text("held") == "12")
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    @Test func `one that a killed blkferry has left is released`() throws {
        tools.put("held", "77")
        tools.put(ScriptedTools.lock, ScriptedTools.record("77"))
        _ = try delta()
        #expect(tools.messages == ["release_metadata_snap"] + Self.both)
        #expect(tools.text("held") == "-")
    }

    @Test func `while it is held the lock says which one it is, and nothing else has the lock`()
        throws
    {
        tools.put("slow", "")
        let threads = Threads.start(count: 1) { _ in _ = try? delta() }
        while !tools.has("started") { usleep(1000) }
        #expect(
            tools.text(ScriptedTools.lock)
                == ScriptedTools.record("77").replacing("queue", with: "queue_if_no_space"))
        tools.remove("slow")
        threads.wait()
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    /// As if blkferry was killed while dmsetup works for it.
    @Test func `what was begun is finished and written down before another one has the lock`()
        throws
    {
        tools.put("slow-message", "")
        let path = tools.scratch.file(ScriptedTools.lock)
        let lock = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT)
        #expect(flock(lock.rawValue, LOCK_EX) == 0)
        let script = "\"$1\" message \"$0\" 0 reserve_metadata_snap && \"$1\" status \"$0\" >&0"
        let nothing = try OwnedDescriptor.open("/dev/null", flags: O_RDWR)
        let process = try Program.start(
            "/bin/sh", ["sh", "-c", script, tools.pool.name, tools.scratch.file("dmsetup")],
            .init(input: lock.rawValue, output: nothing.rawValue, errors: nothing.rawValue))
        while tools.messages.isEmpty { usleep(1000) }
        _ = consume lock
        var questions = 0
        let waiting = failure {
            questions += 1
            return questions > 3
        }
        #expect(waiting?.isCancellation == true)
        tools.remove("slow-message")
        var status: Int32 = 0
        #expect(waitpid(process, &status, 0) == process && status == 0)
        _ = try delta()
        #expect(tools.messages == ["reserve_metadata_snap", "release_metadata_snap"] + Self.both)
    }

    @Test(arguments: [
        ("Fail", "the pool has failed"),
        ("Error", "the pool has failed"),
        ("3 1/2 1/2 - ro discard_passdown queue_if_no_space - 1024", "not writable (ro)"),
        ("3 1/2 1/2 - fail discard_passdown queue_if_no_space - 1024", "not writable (fail)"),
        ("3 1/2 1/2 - rw discard_passdown queue_if_no_space needs_check 1024", "to be checked"),
        ("3 1/2 1/2 x rw discard_passdown queue_if_no_space - 1024", "status is not known"),
        ("3 1/2 1/2", "status is not known"),
        ("", "status is not known"),
    ])
    func `a pool that is not in order gets no message`(status: String, reason: String) {
        tools.put("status", "0 409600 thin-pool \(status)")
        #expect(failure()?.reason.contains(reason) == true)
        #expect(tools.messages == [])
    }

    @Test(arguments: [
        "0 8 linear 254:1 0", "", "Device does not exist.", "0 8 thin-pool Fail\n8 8 linear 1:1 0",
    ])
    func `what is no pool gets no message`(status: String) {
        tools.put("status", status)
        #expect(failure() != nil)
        #expect(tools.messages == [])
    }

    @Test func `a pool without room for data has a map all the same`() throws {
        tools.put("mode", "out_of_data_space")
        #expect(throws: Never.self) { try delta() }
        #expect(tools.messages == Self.both)
    }

    @Test func `where somebody else has released it at once nothing more is released`() {
        tools.put("status", "0 8 thin-pool 3 1/2 1/2 - rw discard_passdown queue_if_no_space - 9")
        #expect(failure()?.reason.contains("somebody else has released") == true)
        #expect(tools.messages == ["reserve_metadata_snap"])
    }

    @Test func `it is released where the pool fails right after it was reserved`() {
        tools.put("status", "0 8 thin-pool 3 1/2 1/2 - rw discard_passdown queue_if_no_space - 9")
        tools.put("status-next", "0 8 thin-pool 3 1/2 1/2 77 ro discard_passdown queue - 9")
        #expect(failure()?.reason.contains("not writable (ro)") == true)
        #expect(tools.messages == Self.both)
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    @Test func `it is released where the lock cannot say that it was reserved`() {
        tools.put("no-more", "")
        #expect(failure()?.reason.contains("dmsetup message: it ended with status 1") == true)
        #expect(tools.messages == Self.both && tools.text("held") == "-")
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    @Test func `a signal to all that was started does not leave it reserved`() throws {
        tools.put("slow-message", "")
        let threads = Threads.start(count: 1) { _ in _ = try? delta() }
        while tools.messages.isEmpty { usleep(1000) }
        try must("pkill", "-TERM", "-f", tools.scratch.file("dmsetup"))
        usleep(100_000)
        tools.remove("slow-message")
        threads.wait()
        #expect(tools.messages == Self.both && tools.text("held") == "-")
        #expect(tools.text("held-meanwhile") == "77")
    }

    @Test func `it is released where the first question about it was ended by a signal`() throws {
        tools.put("signal", "")
        _ = try delta()
        #expect(tools.messages == Self.both && tools.text("held") == "-")
        #expect(!tools.has("fails-once"))
    }

    @Test func `programs that are not there are named`() {
        let pool = ThinPool(
            group: "vg", pool: "pool", mapper: DeviceMapper(dmsetup: "/none/dmsetup"),
            lockDirectory: tools.scratch.path)
        let error = #expect(throws: ChangeMapError.self) {
            try pool.delta(from: 1, to: 2, snapshots: snapshots) { false }
        }
        #expect(error?.reason == "/none/dmsetup is not found on this machine")
    }

    @Test func `two at once have it one after the other`() throws {
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

    @Test func `waiting for another one ends with the run`() throws {
        let lock = try OwnedDescriptor.open(
            tools.scratch.file(ScriptedTools.lock), flags: O_RDWR | O_CREAT)
        #expect(flock(lock.rawValue, LOCK_EX) == 0)
        var questions = 0
        let error = failure {
            questions += 1
            return questions > 3
        }
        #expect(error?.isCancellation == true && tools.messages == [])
    }

    @Test func `a lock that is a symbolic link is not followed`() throws {
        tools.put("else", "12")
        try must("ln", "-s", tools.scratch.file("else"), tools.scratch.file(ScriptedTools.lock))
        #expect(failure()?.reason.contains("lock: ") == true)
        #expect(tools.text("else") == "12" && tools.messages == [])
    }

    @Test func `whoever ends the process releases all, and what was asked for is no map`() {
        tools.put("slow", "")
        let results = Mutex<ChangeMapError?>(nil)
        let threads = Threads.start(count: 1) { _ in
            do throws(ChangeMapError) { _ = try delta() } catch {
                results.withLock { $0 = error }
            }
        }
        while !tools.has("started") { usleep(1000) }
        #expect(snapshots.releaseAll() == [])
        #expect(tools.messages == Self.both && tools.text("held") == "-")
        #expect(tools.text(ScriptedTools.lock) == "")
        tools.remove("slow")
        threads.wait()
        #expect(results.withLock { $0?.isCancellation } == true)
        // From then on none is reserved.
        #expect(failure()?.isCancellation == true)
        #expect(tools.messages == Self.both)
    }
}
