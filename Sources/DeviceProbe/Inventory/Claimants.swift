// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Names programs that may have claimed a device or locked an image.
///
/// It looks at every process, so only to explain a refusal that nothing else explains.
struct Claimants: Sendable {
    let host: HostState

    /// Mounts in other mount namespaces, or else processes that have a related block device open.
    ///
    /// The kernel does not tell which of these processes has claimed the device.
    func ofDevice(_ number: UInt64) -> [String] {
        let related = relatives(of: number)
        let mounts = elsewhereMounted(related)
        guard mounts.isEmpty else { return mounts }
        return openers(ofDevices: related)
    }

    /// Mounts in other mount namespaces, or else processes that have this very block device open.
    func openers(ofDevice number: UInt64) -> [String] {
        let mounts = elsewhereMounted([number])
        return mounts.isEmpty ? openers(ofDevices: [number]) : mounts
    }

    private func openers(ofDevices numbers: Set<UInt64>) -> [String] {
        openers { path in
            path.hasPrefix("/dev/")
                && (try? FileStatus(path: path)).map { numbers.contains($0.device) } ?? false
        }
    }

    /// Mounts of a device, its disk or its partitions in other mount namespaces.
    func mounts(of number: UInt64) -> [String] { elsewhereMounted(relatives(of: number)) }

    func ofImage(_ file: FileIdentity, path: String) -> [String] {
        let name = lastComponent(path)
        return openers { target in
            // Compares names first: stat(2) on a file of a dead server would never return.
            lastComponent(target).isSame(as: name)
                && (try? FileStatus(path: target)).map { FileIdentity($0) == file } ?? false
        }
    }

    /// The device, its disk and its partitions: a claim on one excludes claims on the others.
    private func relatives(of number: UInt64) -> Set<UInt64> {
        guard let device = host[number] else { return [number] }
        let disk = device.disk.flatMap { host[$0] }
        let others = host.partitions(of: device) + (disk.map { [$0] } ?? [])
        return Set([number] + others.map(\.number))
    }

    private func openers(_ isWanted: (_ path: String) -> Bool) -> [String] {
        let known = filesKnownToHelper()
        let processes = namesInDirectory(host.view.proc).filter { process in
            guard Int(process) != nil, process != "\(getpid())",
                !Self.isOurOwnCopy(process, in: host.view.proc)
            else { return false }
            if let known { return known[process]?.paths.contains(where: isWanted) ?? false }
            let directory = "\(host.view.proc)/\(process)/fd"
            return namesInDirectory(directory).contains { descriptor in
                symbolicLinkTarget("\(directory)/\(descriptor)").map(isWanted) ?? false
            }
        }
        return processes.map(describe)
    }

    /// Whether a process is a copy of this one that has our descriptors for a moment only: a child
    /// between fork and exec, or one of `clb_fork_orphan` or `clb_tell_mapper` before it closes
    /// them.
    ///
    /// It also leaves out such copies of other runs, which write nothing. The kernel releases a
    /// process's program before its descriptors.
    static func isOurOwnCopy(_ process: String, in proc: String) -> Bool {
        let isNamed = readSmallFile("\(proc)/\(process)/comm") == CLB_FORK_NAME
        guard let program = symbolicLinkTarget("\(proc)/\(process)/exe") else { return isNamed }
        return program == symbolicLinkTarget("\(proc)/self/exe")
            && (isNamed || ProcessStatus(process, in: proc).parent == getpid())
    }

    /// The open files of all processes, if this process may not see them and has a helper.
    private func filesKnownToHelper() -> [String: PrivilegedCalls.OpenFiles]? {
        host.view.proc == SystemView().proc ? PrivilegedCalls.openFiles() : nil
    }

    private func describe(_ process: String) -> String {
        let command = readSmallFile("\(host.view.proc)/\(process)/comm") ?? "?"
        return "process \(process) (\(printable(command)))"
    }

    /// Mounts of a device in the mount namespaces of other processes, such as containers.
    private func elsewhereMounted(_ numbers: Set<UInt64>) -> [String] {
        let proc = host.view.proc
        let known = filesKnownToHelper()
        var seen = Set([symbolicLinkTarget("\(proc)/self/ns/mnt")])
        for process in namesInDirectory(proc) where Int(process) != nil {
            let link = known.map { $0[process]?.mountNamespace }
            guard let namespace = link ?? symbolicLinkTarget("\(proc)/\(process)/ns/mnt"),
                seen.insert(namespace).inserted
            else { continue }
            for mount in Mount.all(of: process, in: host.view)
            where host.devices(of: mount).contains(where: numbers.contains) {
                return ["a mount on \(printable(mount.point)) that \(describe(process)) sees"]
            }
        }
        return []
    }
}
