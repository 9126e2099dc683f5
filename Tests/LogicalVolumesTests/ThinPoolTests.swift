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

@Suite(.blocking, .timeLimit(.minutes(60))) struct ThinPoolTests {
    let tools: ScriptedTools
    let snapshots = MetadataSnapshots()

    init() throws { tools = try ScriptedTools() }

    func delta(unless isCancelled: () -> Bool = { false }) throws(IOError) -> ThinDelta {
        try tools.pool.delta(from: 1, to: 2, snapshots: snapshots, unless: isCancelled)
    }

    func failure(unless isCancelled: () -> Bool = { false }) -> IOError? {
        #expect(throws: IOError.self) { try delta(unless: isCancelled) }
    }

    static let both: [Substring] = ["reserve_metadata_snap", "release_metadata_snap"]

    @Test func `the metadata snapshot is held for thin_delta, and released afterwards`() throws {
        let delta = try delta()
        #expect(delta.changed == [ByteRange(offset: 3 << 16, length: 1 << 16)])
        #expect(tools.messages == Self.both)
        #expect(tools.text("held-meanwhile") == "77" && tools.text("held") == "-")
        #expect(
            tools.text("asked-for")
                == "-m --thin1 1 --thin2 2 \(tools.scratch.path)/vg--0-pool_tmeta")
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    @Test func `the old volume is read from the same metadata snapshot, if thin_dump can`() throws {
        func dump() throws -> ThinDump? {
            try tools.pool.deltaAndOld(from: 1, to: 2, snapshots: snapshots) { false }.1
        }
        #expect(try dump() == nil)
        tools.put(
            "dump",
            """
            <superblock data_block_size="128"><device dev_id="1" mapped_blocks="1" creation_time="2">
            <single_mapping origin_block="0" data_block="0" time="1"/></device></superblock>
            """)
        #expect(try dump()?.mapped == 1 << 16)
        #expect(tools.text("dumped") == "-m --dev-id 1 \(tools.scratch.path)/vg--0-pool_tmeta")
        #expect(tools.messages == Self.both + Self.both)
    }

    /// A base that blkferry made, unchanged or changed since.
    @Test(.enabled(if: isRoot, "the lock of a pool is the superuser's"))
    func `a base that another program has changed since blkferry made it has no map`() throws {
        var base = try ScriptedLVM.volume("root.blkferry.20261123T031500.7", tags: ["blkferry"])
        var new = try ScriptedLVM.volume("new", tags: [])
        (base.thinID, new.thinID) = (1, 2)
        func map(mappedThen mapped: Int?) throws(IOError) -> ChangeMap {
            let mapSource = try new.changeMapSource(since: base, mappedThen: mapped)
            return try new.changes(
                since: base, from: mapSource, mapper: tools.mapper, programs: tools.programs
            ) { false }
        }
        func put(blocks: Int, time: Int) {
            let mappings = (0..<blocks).map {
                "<single_mapping origin_block=\"\($0)\" data_block=\"\($0)\" time=\"\(time)\"/>"
            }
            tools.put(
                "dump",
                "<superblock data_block_size=\"128\"><device dev_id=\"1\" mapped_blocks=\"\(blocks)\""
                    + " creation_time=\"2\">\(mappings.joined())</device></superblock>")
        }
        put(blocks: 2, time: 1)
        #expect(try map(mappedThen: 2 << 16).byteCount == 1 << 16)
        // What is not known to have been empty in the base is in the map.
        #expect(try map(mappedThen: nil).byteCount == base.size)
        tools.remove("dump")
        #expect(try map(mappedThen: 2 << 16).byteCount == base.size)
        for (blocks, time) in [(1, 1), (3, 1), (2, 2), (2, 9)] {
            put(blocks: blocks, time: time)
            #expect {
                try map(mappedThen: 2 << 16)
            } throws: {
                "\($0)".contains("another program has changed it")
            }
        }
        put(blocks: 2, time: 1)
        base.attributes = "Vwi-a-tz--"
        #expect(throws: IOError.self) { try map(mappedThen: 2 << 16) }
    }

    @Test func `a metadata snapshot that a killed run has left is released by the next run`() throws
    {
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

    @Test func `the search for leftovers does not wait for a run at work`() throws {
        tools.put("held", "77")
        tools.put(ScriptedTools.lock, ScriptedTools.record("77"))
        let file = try FileHandle(
            forUpdating: URL(fileURLWithPath: tools.scratch.file(ScriptedTools.lock)))
        #expect(flock(file.fileDescriptor, LOCK_EX) == 0)
        #expect(throws: IOError.self) {
            try tools.pool.releaseLeftover(snapshots: snapshots)
        }
        #expect(tools.messages == [] && tools.text("held") == "77")
        try file.close()
    }

    @Test func `the name of a pool has the suffix of its device`() throws {
        #expect(tools.pool.name == "vg--0-pool-tpool")
        _ = try delta()
        #expect(tools.text("name") == "vg--0-pool-tpool")
    }

    @Test func `the metadata snapshot is released if thin_delta fails, and its message is kept`() {
        tools.put("fails", "metadata contains errors")
        let error = failure()
        #expect(
            error?.reason == "thin_delta: it ended with status 1: metadata contains errors")
        #expect(tools.messages == Self.both && tools.text("held") == "-")
    }

    @Test func `the metadata snapshot is released if thin_delta's output is not understood`() {
        tools.put("xml", "<superblock data_block_size=\"128\"><diff>")
        #expect(failure()?.reason.contains("it is cut off") == true)
        #expect(tools.messages == Self.both && tools.text("held") == "-")
    }

    @Test func `the metadata snapshot is released if the run ends while thin_delta works`() {
        tools.put("slow", "")
        let error = failure { tools.has("started") }
        #expect(error?.kind == .cancelled)
        #expect(tools.messages == Self.both && tools.text("held") == "-")
    }

    @Test func `no metadata snapshot is reserved if the run is over`() {
        #expect(failure { true }?.kind == .cancelled)
        #expect(tools.messages == [])
    }

    @Test func `a metadata snapshot that cannot be released is an error that names it`() {
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

    @Test
    func `both reasons are given if the metadata snapshot cannot be released after a failure`() {
        tools.put("stuck", "")
        tools.put("fails", "metadata contains errors")
        let error = failure()
        #expect(
            error?.reason.hasSuffix(
                "metadata contains errors; then \(tools.scratch.file("control")): "
                    + "message release_metadata_snap: Operation not supported") == true)
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
        "0 8 linear 254:1 0", "", "0 8 thin-pool Fail\n8 8 linear 1:1 0",
        "0 8 thin-pool 3 1/2 1/2 - rw\n8 8 linear 1:1 0",
    ])
    func `a device that is no pool gets no message`(status: String) {
        tools.put("status", status)
        #expect(failure() != nil)
        #expect(tools.messages == [])
    }

    @Test func `a pool that the device mapper does not have gets no message`() {
        tools.remove("held")
        #expect(failure()?.reason.hasSuffix("status: No such device or address") == true)
        #expect(tools.messages == [])
    }

    @Test func `a pool without room for data has a map as well`() throws {
        tools.put("mode", "out_of_data_space")
        #expect(throws: Never.self) { try delta() }
        #expect(tools.messages == Self.both)
    }

    @Test func `the metadata snapshot is released if the pool fails right after the reservation`() {
        tools.put("status", "0 8 thin-pool 3 1/2 1/2 - rw discard_passdown queue_if_no_space - 9")
        tools.put("status-next", "0 8 thin-pool 3 1/2 1/2 77 ro discard_passdown queue - 9")
        #expect(failure()?.reason.contains("not writable (ro)") == true)
        #expect(tools.messages == Self.both)
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    @Test func `the metadata snapshot is released if the lock cannot record it`() {
        tools.put("no-more", "")
        #expect(
            failure()?.reason.hasSuffix("message reserve_metadata_snap: Input/output error") == true
        )
        #expect(tools.messages == Self.both && tools.text("held") == "-")
        #expect(tools.text(ScriptedTools.lock) == "")
    }

    @Test func `a signal to all children does not leave the metadata snapshot reserved`() throws {
        tools.put("slow-message", "")
        let threads = Threads.start(count: 1) { _ in
            unblockSignals()
            _ = try? delta()
        }
        while tools.messages.isEmpty { usleep(1000) }
        let process = try #require(pid_t(tools.text("process")))
        for signal in [SIGHUP, SIGINT, SIGTERM] { #expect(kill(process, signal) == 0) }
        usleep(100_000)
        tools.remove("slow-message")
        threads.wait()
        #expect(tools.messages == Self.both && tools.text("held") == "-")
        #expect(tools.text("held-meanwhile") == "77")
    }

    private func failure(
        _ mapper: DeviceMapper, _ programs: ThinPool.Programs = ThinPool.Programs()
    ) -> IOError? {
        let pool = ThinPool(
            group: "vg-0", pool: "pool", mapper: mapper, programs: programs,
            lockDirectory: tools.scratch.path)
        return #expect(throws: IOError.self) {
            try pool.delta(from: 1, to: 2, snapshots: snapshots) { false }
        }
    }

    @Test func `the error names missing programs`() {
        var programs = tools.programs
        programs.delta = "/none/thin_delta"
        let error = failure(tools.mapper, programs)
        #expect(error?.reason == "/none/thin_delta is not found on this machine")
        #expect(tools.messages == Self.both && tools.text("held") == "-")
    }

    @Test func `without a device mapper in the kernel there is no map`() {
        let directory = tools.scratch.file("none")
        let error = failure(DeviceMapper(directory: directory))
        #expect(error?.reason == "\(directory)/control: open: No such file or directory")
        // Of the kernel itself, which may have a device mapper, but no such pool.
        #expect(failure(DeviceMapper())?.reason.hasPrefix("/dev/mapper/control: ") == true)
    }

    @Test func `the end of the process releases every metadata snapshot, and its run has no map`() {
        tools.put("slow", "")
        let results = Mutex<IOError?>(nil)
        let threads = Threads.start(count: 1) { _ in
            do throws(IOError) { _ = try delta() } catch {
                results.withLock { $0 = error }
            }
        }
        while !tools.has("started") { usleep(1000) }
        #expect(snapshots.releaseAll() == [])
        #expect(tools.messages == Self.both && tools.text("held") == "-")
        #expect(tools.text(ScriptedTools.lock) == "")
        tools.remove("slow")
        threads.wait()
        #expect(results.withLock { $0?.kind } == .cancelled)
        // From then on none is reserved.
        #expect(failure()?.kind == .cancelled)
        #expect(tools.messages == Self.both)
    }
}
