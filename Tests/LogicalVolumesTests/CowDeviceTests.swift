// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import LogicalVolumes
import TestSupport
import Testing

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct CowDeviceTests {
    private let tools: ScriptedTools
    private let loop: LoopDevice
    private let number: String

    /// A snapshot of 1 MiB whose origin has changed in chunks 3 and 5 of 4 KiB.
    init() throws {
        tools = try ScriptedTools()
        loop = try LoopDevice(size: 1 << 20)
        try must("ln", "-s", loop.path, tools.scratch.file("vg--0-snap-cow"))
        number = try must(
            "sh", "-c", "printf '%d:%d' 0x$(stat -c %t \(loop.path)) 0x$(stat -c %T \(loop.path))")
        let device = try BlockSpecialFile(path: loop.path, name: loop.path, access: .readWrite)
        func words(_ values: [UInt32]) -> [UInt8] {
            values.flatMap { value in withUnsafeBytes(of: value.littleEndian) { Array($0) } }
        }
        let rest = [UInt32](repeating: 0, count: 120)
        try device.write(words([0x7041_6E53, 1, 1, 8, 0, 0, 0, 0] + rest), at: 0)
        try device.write(words([3, 0, 2, 0, 5, 0, 3, 0] + rest), at: 4096)
        tools.put("table", "0 2048 snapshot 254:9 \(number) P 8")
        tools.put("status", "0 2048 snapshot 32/2048 16")
    }

    private func map() throws(IOError) -> ChangeMap {
        try CowDevice(group: "vg-0", snapshot: "snap", mapper: tools.mapper)
            .map(size: 2 << 20) { false }
    }

    @Test(arguments: ["P", "PO"])
    func `the map of a classic snapshot has its store's chunks, and what the origin has grown by`(
        type: String
    ) throws {
        tools.put("table", "0 2048 snapshot 254:9 \(number) \(type) 8")
        #expect(
            try map().ranges == [
                ByteRange(offset: 3 * 4096, length: 4096),
                ByteRange(offset: 5 * 4096, length: 4096),
                ByteRange(1 << 20, to: 2 << 20),
            ])
    }

    @Test(arguments: [
        "snapshot Invalid", "snapshot Overflow", "snapshot Merge failed", "snapshot Unknown",
        "snapshot 32/2048", "snapshot x/y 16", "snapshot 32/2048 16 more", "snapshot",
        "snapshot-merge 32/2048 16",
    ])
    func `a snapshot that the kernel has invalidated has no map`(status: String) {
        tools.put("status", "0 2048 \(status)")
        let error = #expect(throws: IOError.self) { try map() }
        #expect(error?.reason.hasPrefix("the snapshot's status is") == true)
    }

    @Test func `a snapshot that overflows while its store is read has no map`() {
        tools.put("status-next", "0 2048 snapshot Overflow")
        let error = #expect(throws: IOError.self) { try map() }
        #expect(error?.reason == "the snapshot's status is overflow")
    }

    @Test(arguments: [
        ("0 2048 snapshot 254:9 NUMBER N 8", "exception store is of type N"),
        ("0 2048 snapshot-merge 254:9 NUMBER P 8", "no classic snapshot"),
        ("0 2048 linear 254:9 0", "no classic snapshot"),
        ("0 2048 snapshot 254:9 254:4095 P 8", "on 254:4095, not on"),
        ("0 1024 linear 254:9 0\n1024 1024 linear 254:9 0", "it has 2 targets, not one"),
    ])
    func `a volume that is no persistent snapshot has no map`(table: String, reason: String) {
        tools.put("table", table.replacing("NUMBER", with: number))
        let error = #expect(throws: IOError.self) { try map() }
        #expect(error?.reason.contains(reason) == true, "\(error?.reason ?? "")")
    }

    @Test func `a snapshot without its COW device has no map`() {
        tools.remove("vg--0-snap-cow")
        let error = #expect(throws: IOError.self) { try map() }
        #expect(error?.reason.contains("No such file") == true)
    }
}
