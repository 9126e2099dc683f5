// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import LinuxIO
import LogicalVolumes
import Synchronization
import TestSupport
import Testing

/// A loop device in place of a logical volume; it records the operations on it.
final class LoopVolume: VolumeManager, ManagedVolume {
    let loop: LoopDevice
    let tree: MadeUpTree
    private let hindrance: String?
    private let calls = Mutex<[String]>([])

    var done: [String] { calls.withLock { $0 } }
    private func note(_ call: String) { calls.withLock { $0.append(call) } }

    let name = "vg0/root"
    let sizeUnit = 4 * MiB
    var path: String { tree.scratch.file("dev/mapper/vg0-root") }
    var size: Int { (try? FileStatus(path: loop.backingFile).size) ?? 0 }

    /// Whether it refuses another size after all.
    private let isStuck: Bool

    init(size: Int, obstacle: String? = nil, isStuck: Bool = false) throws {
        self.isStuck = isStuck
        loop = try LoopDevice(size: size)
        tree = try MadeUpTree()
        hindrance = obstacle
        try describe()
        try must("cp", "-a", loop.path, path)
        try fill(0..<size, 0xEE)
    }

    /// Has the kernel say something else of it.
    func describe(suffix: String = "", on slaves: [String] = []) throws {
        let entry = "/sys/class/block/\(loop.path.dropFirst("/dev/".count))"
        try tree.add(
            "dm-9", number: readSmallFile("\(entry)/dev") ?? "", sectors: size / 512,
            slaves: slaves,
            attributes: [
                "dm/name": "vg0-root",
                "dm/uuid": "LVM-" + String(repeating: "v", count: 64) + suffix,
            ])
    }

    /// What other volumes have left.
    private func fill(_ range: Range<Int>, _ byte: UInt8) throws {
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: loop.backingFile))
        try file.seek(toOffset: UInt64(range.lowerBound))
        try file.write(contentsOf: Data(repeating: byte, count: range.count))
        try file.close()
        try must("blockdev", "--flushbufs", loop.path)
    }

    func volume(at path: String) throws(IOError) -> any ManagedVolume {
        note("find")
        return self
    }

    func sizeOfNew(_ place: VolumePlace, size: Int, as name: String) throws(IOError) -> Int {
        note("plan \(place.name)")
        return (size + sizeUnit - 1) / sizeUnit * sizeUnit
    }

    func create(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(IOError) -> any ManagedVolume {
        note("create \(place.name)")
        return self
    }

    func obstacle(
        toResizing size: Int, withSnapshot: Bool
    ) -> (reason: String, advice: String?)? { hindrance.map { (reason: $0, advice: nil) } }

    func resize(to size: Int) throws(IOError) {
        note("resize \(size / MiB) MiB")
        if isStuck { throw IOError(name, "resize", reason: "it does not go") }
        do {
            let before = self.size
            try must("truncate", "-s", "\(size)", loop.backingFile)
            if size > before { try fill(before..<size, 0xEE) }
            try must("losetup", "-c", loop.path)
        } catch { throw IOError("loop", "resize", reason: "\(error)") }
    }

    func take(
        _ snapshot: TargetSnapshot, as name: String
    ) throws(IOError) -> String {
        if snapshot.name == "taken" { throw .refusal(.nameTaken, name, "it is there") }
        note("take \(snapshot.name)")
        return "vg0/\(snapshot.name)"
    }

    func removeOlder(than snapshot: String, of wish: TargetSnapshot) -> [String] {
        note("rotate \(snapshot)")
        return ["an older one stays"]
    }

    func remove() throws(IOError) { note("remove") }
    func removeSnapshot(_ snapshot: String) throws(IOError) { note("remove \(snapshot)") }

    func admit(
        _ size: Int, _ policy: GatePolicy, target: String? = nil
    ) throws(IOError) -> AdmittedTarget {
        try SafetyGate.admit(
            target ?? path, as: "TARGET", source: facts(size: size), policy: policy,
            volumes: self, view: tree.view)
    }
}

/// What a run wants of a volume.
func policy(
    resizes: Bool = true, isDryRun: Bool = false, shrinks: Bool = false, creates: Bool = false,
    snapshot: String? = nil
) -> GatePolicy {
    var policy = GatePolicy(
        sizePolicy: resizes ? .resize : nil, overwrite: true, isDryRun: isDryRun)
    policy.shrinks = shrinks
    policy.creates = creates
    policy.snapshot = snapshot.map { TargetSnapshot(name: $0) }
    return policy
}
