// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import LinuxIO
import TestSupport
import Testing

let MiB = 1 << 20

/// A mount that is undone with this object.
final class Mounted {
    let point: String
    private let scratch: ScratchDirectory

    init(_ device: String, name: String = "mnt", options: String = "rw") throws {
        scratch = try ScratchDirectory()
        point = scratch.file(name)
        try must("mkdir", point)
        try must("mount", "-o", options, device, point)
    }

    // Lazily: a child of another test may have a file on it open for a moment.
    deinit { _ = try? run("umount", "--lazy", point) }
}

/// Swap space that is switched off with this object.
final class Swap {
    /// Bytes at its start that the kernel does not write to while it is in use.
    static let header = 4096

    private let path: String

    init(_ path: String) throws {
        self.path = path
        try must("mkswap", "-q", path)
        try must("swapon", path)
    }

    deinit { _ = try? run("swapoff", path) }
}

/// A loop device with two partitions that the kernel knows.
///
/// This kernel reads no partition tables (CONFIG_EFI_PARTITION and the like are off), so partx(8)
/// tells it (BLKPG).
final class PartitionedDisk {
    let loop: LoopDevice
    var path: String { loop.path }
    var first: String { "\(path)p1" }
    var second: String { "\(path)p2" }

    convenience init(size: Int = 64 * MiB, sectorSize: Int = 512) throws {
        try self.init(LoopDevice(size: size, sectorSize: sectorSize, partitions: true))
    }

    /// Makes partitions on an empty loop device that looks for them.
    init(_ loop: LoopDevice) throws {
        self.loop = loop
        try must(
            "sgdisk", "-n", "1:0:+16M", "-c", "1:first", "-n", "2:0:+16M", "-c", "2:second part",
            loop.path)
        try must("partx", "--update", loop.path)
    }

    deinit { _ = try? run("partx", "-d", path) }
}

/// A program that holds an exclusive lock on a file.
final class Locker {
    private let program: RunningProgram

    init(_ path: String, scratch: ScratchDirectory) throws {
        let ready = scratch.file("ready-\(UInt32.random(in: 0 ... .max))")
        program = try RunningProgram([
            "python3", "-c",
            """
            import fcntl, struct, sys, time
            f = open(sys.argv[1], 'r+b')
            fcntl.fcntl(f, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))
            open(sys.argv[2], 'w').close()
            time.sleep(600)
            """, path, ready,
        ])
        try waitForFile(ready)
    }
}

/// Waits until another program has made a file.
func waitForFile(_ path: String) throws {
    let isThere = becomesTrue { FileManager.default.fileExists(atPath: path) }
    try #require(isThere, "no \(path) after a minute")
}

func facts(
    size: Int, content: Content = .empty, identity: DeviceIdentity? = nil, sector: Int? = 512
) -> SourceFacts {
    SourceFacts(
        name: "SOURCE", size: size, content: content, logicalSector: sector, identity: identity)
}

/// Opens the device that a text names.
func openSource(
    _ text: String, for purpose: ReadPurpose = .source, view: SystemView = SystemView()
) throws(IOError) -> OpenedSource {
    try openSource(Selector(text), for: purpose, view: view)
}

extension SafetyGate {
    /// Has the gate admit the target that a text names.
    static func admit(
        _ text: String, as name: String? = nil, source: SourceFacts, policy: GatePolicy,
        volumes: (any VolumeManager)? = nil, patience: GatePatience = GatePatience(),
        view: SystemView = SystemView()
    ) throws(IOError) -> AdmittedTarget {
        try admit(
            Selector(text), as: name, source: source, policy: policy, volumes: volumes,
            patience: patience, view: view)
    }
}

/// The refusal of the gate, which must not have changed the target.
///
/// If other programs write to the target, only its first bytes can be compared.
func refusal(
    _ target: String, source: SourceFacts, policy: GatePolicy = GatePolicy(),
    patience: GatePatience = GatePatience(.zero), view: SystemView = SystemView(),
    comparing count: Int = .max,
    sourceLocation: SourceLocation = #_sourceLocation
) throws -> IOError {
    let before = fingerprint(target, count)
    defer { #expect(fingerprint(target, count) == before, sourceLocation: sourceLocation) }
    do throws(IOError) {
        _ = try SafetyGate.admit(
            target, source: source, policy: policy, patience: patience, view: view)
    } catch {
        #expect(error.cause != nil, "\(error)", sourceLocation: sourceLocation)
        #expect(!error.reason.contains("\n"), sourceLocation: sourceLocation)
        return error
    }
    Issue.record("admitted", sourceLocation: sourceLocation)
    throw CancellationError()
}

/// Existence, size and content of what a path leads to, or that of its first bytes.
func fingerprint(_ path: String, _ count: Int = .max) -> String {
    guard let status = try? FileStatus(path: path) else { return "missing" }
    guard status.kind == .regular || status.kind == .blockDevice else { return "other" }
    let content =
        count == .max
        ? try? must("sha256sum", path)
        : try? must("head", "-c", "\(count)", path)
    return "\(status.size) " + (content ?? "unreadable")
}

/// A UUID that nothing on this machine has.
func freshUUID() -> String { UUID().uuidString.lowercased() }

func makeExt4(_ path: String, uuid: String, label: String = "") throws {
    try must("mkfs.ext4", "-q", "-F", "-U", uuid, "-L", label, path)
}
