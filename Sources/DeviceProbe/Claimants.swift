// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Who may have claimed a device or locked an image, where neither sysfs nor our own mounts say it.
///
/// Only asked to explain a refusal: it looks at every process.
struct Claimants: Sendable {
    let host: HostState

    /// Mounts that only others see and, failing that, processes that have a block device open:
    /// which of them claimed it the kernel does not tell.
    func ofDevice(_ number: UInt64) -> [String] {
        let related = relatives(of: number)
        let mounts = elsewhereMounted(related)
        guard mounts.isEmpty else { return mounts }
        return openers { path in
            path.hasPrefix("/dev/")
                && (try? FileStatus(path: path)).map { related.contains($0.device) } ?? false
        }
    }

    /// Processes that have an image open.
    func ofImage(_ file: FileIdentity, path: String) -> [String] {
        let name = lastComponent(path)
        return openers { target in
            // The name first: stat(2) on a file of a dead server would never return.
            lastComponent(target) == name
                && (try? FileStatus(path: target)).map { FileIdentity($0) == file } ?? false
        }
    }

    /// The device, its disk and its partitions: a claim of one is a claim of the others.
    private func relatives(of number: UInt64) -> Set<UInt64> {
        guard let device = host[number] else { return [number] }
        let disk = device.disk.flatMap { host[$0] }
        let others = host.partitions(of: device) + (disk.map { [$0] } ?? [])
        return Set([number] + others.map(\.number))
    }

    /// Processes, other than this one, that have a file open which passes a test.
    private func openers(_ isWanted: (_ path: String) -> Bool) -> [String] {
        let processes = namesInDirectory(host.view.proc).filter { process in
            guard Int(process) != nil, process != "\(getpid())" else { return false }
            let directory = "\(host.view.proc)/\(process)/fd"
            return namesInDirectory(directory).contains { descriptor in
                symbolicLinkTarget("\(directory)/\(descriptor)").map(isWanted) ?? false
            }
        }
        return processes.map(describe)
    }

    private func describe(_ process: String) -> String {
        let command = readSmallFile("\(host.view.proc)/\(process)/comm") ?? "?"
        return "process \(process) (\(printable(command)))"
    }

    /// Mounts of a device in the mount namespaces of other processes (containers, services).
    private func elsewhereMounted(_ numbers: Set<UInt64>) -> [String] {
        let proc = host.view.proc
        var seen = Set([symbolicLinkTarget("\(proc)/self/ns/mnt")])
        for process in namesInDirectory(proc) where Int(process) != nil {
            guard let namespace = symbolicLinkTarget("\(proc)/\(process)/ns/mnt"),
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
