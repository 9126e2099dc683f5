// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

/// Standard output and standard error, if they go to a device or an image.
///
/// With the output redirected into a target, the summary would overwrite its first bytes.
package enum StandardStreams {
    /// The descriptors among the two that must never get a message, whatever the arguments are.
    ///
    /// Such a descriptor is open on a block device, on the backing file of a loop device, or within
    /// a file that the caller has opened to read and write (`2<>image`). A shell opens a log or a
    /// result to write only, and a temporary file is empty.
    package static func onDisks(view: SystemView = SystemView()) -> [Int32] {
        let disks = all.filter { $0.isDevice || $0.isWithinFile }.map(\.descriptor)
        // A loop device has at least one sector, so a new log is no backing file.
        let files = all.filter { !disks.contains($0.descriptor) && $0.fileSize >= 512 }
        if files.isEmpty { return disks }
        let backings = LoopBacking.all(view: view).map(\.backing)
        let behind = files.filter { stream in
            stream.file.map { backings.contains(.file($0)) } ?? false
        }
        return disks + behind.map(\.descriptor)
    }

    /// The descriptors among the two that go to a device or an image with one of the names.
    package static func named(by paths: [String]) -> [Int32] {
        all.filter { stream in
            guard let mine = stream.identity else { return false }
            return paths.contains { path in
                guard let status = try? FileStatus(path: path) else { return false }
                return DeviceIdentity(status, path: "") == mine
            }
        }
        .map(\.descriptor)
    }

    /// The descriptors among the two that go to the device or image of a selector.
    ///
    /// This is a quick check. It misses an image below a device, which the gate finds. `onDisks`
    /// finds that image as well.
    package static func sharing(
        _ selector: Selector, view: SystemView = SystemView()
    ) -> [Int32] {
        let devices = all.filter(\.isDevice)
        // A tag would make all devices be probed, now and again when the device is opened.
        if case .tag = selector, devices.isEmpty { return [] }
        guard let path = try? resolve(selector, view: view),
            let status = try? FileStatus(path: path),
            let mine = redirected(to: status) ?? DeviceIdentity(status, path: "")
        else { return [] }
        let same = all.filter { $0.identity == mine }
        guard same.isEmpty, !devices.isEmpty else { return same.map(\.descriptor) }
        return sharing(mine, HostState(view)).map(\.descriptor)
    }

    /// Refuses a device or an image that one of the two streams goes to, or shares bytes with.
    static func refusal(_ identity: DeviceIdentity, _ name: String, _ host: HostState) -> IOError? {
        sharing(identity, host).first.map { refusal(of: name, $0.name) }
    }

    package static func refusal(of name: String, descriptor: Int32) -> IOError {
        refusal(of: name, descriptor == STDERR_FILENO ? "standard error" : "standard output")
    }

    private static func refusal(of name: String, _ stream: String) -> IOError {
        .refusal(
            .inUse, name, "it is where \(stream) goes, and messages would be written into it",
            advice: "Name the device or the file as the argument, and redirect nothing into it.")
    }

    /// The two as the caller left them; the program may have redirected one since.
    private static let all = [
        Stream(STDOUT_FILENO, "standard output"), Stream(STDERR_FILENO, "standard error"),
    ]

    private static func sharing(_ identity: DeviceIdentity, _ host: HostState) -> [Stream] {
        let mine = Footprint(identity, on: host)
        return all.filter { stream in
            guard let theirs = stream.identity else { return false }
            return mine.overlap(with: Footprint(theirs, on: host)) != nil
        }
    }

    /// The identity that a redirected stream had before, if a name such as `/dev/stdout` leads to
    /// where the program has redirected it.
    private static func redirected(to status: FileStatus) -> DeviceIdentity? {
        let stream = all.first { stream in
            guard stream.identity != nil, let now = FileStatus(descriptor: stream.descriptor) else {
                return false
            }
            return now.isSameFile(as: status) && DeviceIdentity(now, path: "") != stream.identity
        }
        return stream?.identity
    }
}

private struct Stream {
    let descriptor: Int32
    let name: String
    /// `nil` for a terminal, a pipe and similar.
    let identity: DeviceIdentity?
    /// Bytes of a regular file; 0 for anything else.
    let fileSize: Int

    init(_ descriptor: Int32, _ name: String) {
        let status = FileStatus(descriptor: descriptor)
        self.descriptor = descriptor
        self.name = name
        identity = status.flatMap { DeviceIdentity($0, path: "") }
        fileSize = status.map { $0.kind == .regular ? $0.size : 0 } ?? 0
    }

    var isDevice: Bool {
        if case .device? = identity { true } else { false }
    }

    var file: FileIdentity? {
        if case .image(let file, _)? = identity { file } else { nil }
    }

    /// Whether the caller has opened a file to read and write, and the next message would overwrite
    /// bytes of it.
    var isWithinFile: Bool {
        let flags = fcntl(descriptor, F_GETFL)
        guard file != nil, flags >= 0, flags & O_ACCMODE == O_RDWR, flags & O_APPEND == 0 else {
            return false
        }
        return Int(clamping: lseek(descriptor, 0, SEEK_CUR)) < fileSize
    }
}
