// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// What the safety gate needs to know of a source, which may be on another machine.
package struct SourceFacts: Sendable {
    /// As the user wrote it.
    package var name: String
    /// Bytes.
    package var size: Int
    package var content: Content
    /// Bytes; `nil` for an image.
    package var logicalSector: Int?
    /// Which device of this machine it is; `nil` when it is on another.
    package var identity: DeviceIdentity?

    package init(
        name: String, size: Int, content: Content, logicalSector: Int?, identity: DeviceIdentity?
    ) {
        self.name = name
        self.size = size
        self.content = content
        self.logicalSector = logicalSector
        self.identity = identity
    }
}

/// A device that is open for reading.
package struct OpenedSource: Sendable {
    package var device: any BlockDevice
    package var facts: SourceFacts
    /// What the user should know, one line each.
    package var warnings: [String]
    /// Whether a disk with moving heads is beneath.
    package var isRotational: Bool
}

/// Opens a device for reading; also each side of a mere comparison.
///
/// What the kernel had cached of a block device and not yet written is written, so that reading it
/// later changes nothing. An image is locked against those who lock before they write.
///
/// - Parameters:
///   - text: a selector.
///   - name: what to call it; by default as `text` says.
///   - view: where the machine tells about its devices.
/// - Returns: the open device and what is known of it.
/// - Throws: a refusal of what is neither block device nor regular file, or of a file where a volume
///   that is not active may be meant; the failure of a call, ENOENT for a path that leads nowhere.
package func openSource(
    _ text: String, as name: String? = nil, view: SystemView = SystemView()
) throws(ProbeError) -> OpenedSource {
    let path = try resolve(Selector(text), view: view)
    let name = name ?? text
    let status: FileStatus
    do throws(Errno) { status = try FileStatus(path: path) } catch {
        throw .failed(IOError(name, "open", error))
    }
    switch status.kind {
    case .blockDevice: return try openDeviceAsSource(path, name: name, view)
    case .regular:
        if let no = DoubtfulName(text)?.refusalOfFile(as: name, view: view) { throw no }
        return try openImageAsSource(path, name: name, view)
    case .directory, .other: throw .refused(.wrongKind(name, path))
    }
}

private func openDeviceAsSource(
    _ path: String, name: String, _ view: SystemView
) throws(ProbeError) -> OpenedSource {
    let device = try asProbeError { () throws(IOError) in
        let device = try BlockSpecialFile(path: path, name: name, access: .read)
        try device.requireContent()
        try device.writeBackCache()
        return device
    }
    let host = HostState(view)
    // Their dirty pages are as much a part of the disk as its own.
    for relative in host.relatives(of: device.number) {
        BlockSpecialFile.writeBackCache(of: relative, dropping: false)
    }
    let identity = DeviceIdentity.device(device.number)
    let size = device.geometry.size
    let sector = device.geometry.logicalSector
    let content = contentOfOpened(path, identity, size: size, logicalSector: sector)
    return OpenedSource(
        device: device,
        facts: SourceFacts(
            name: name, size: size, content: content, logicalSector: sector, identity: identity),
        warnings: host.reasonToChange(device.number).map { ["\(name): \($0)"] } ?? [],
        isRotational: host.isRotational(Footprint(identity, on: host)))
}

private func openImageAsSource(
    _ path: String, name: String, _ view: SystemView
) throws(ProbeError) -> OpenedSource {
    var warnings: [String] = []
    let (image, file) = try asProbeError { () throws(IOError) in
        let image = try ImageFile(path: path, name: name, access: .read)
        try image.requireContent()
        return (image, FileIdentity(try image.status()))
    }
    // A file system without locks has nobody who could hold one.
    if (try? image.lock(exclusive: false)) == false {
        warnings.append(
            "\(name): another program has locked it to write and may change it meanwhile")
    }
    let host = HostState(view)
    for loop in host.loops where loop.backing == .file(file) && !loop.loop.isReadOnly {
        warnings.append("\(name): it is behind loop device \(loop.loop.path) and may change")
    }
    let identity = DeviceIdentity.image(file, path: path)
    let size = image.geometry.size
    return OpenedSource(
        device: image,
        facts: SourceFacts(
            name: name, size: size,
            content: contentOfOpened(path, identity, size: size, logicalSector: nil),
            logicalSector: nil, identity: identity),
        warnings: warnings,
        isRotational: host.isRotational(Footprint(identity, on: host)))
}

/// Probes what is already open; a device whose start cannot be read may still be copied.
private func contentOfOpened(
    _ path: String, _ identity: DeviceIdentity, size: Int, logicalSector: Int?
) -> Content {
    do throws(Errno) {
        let prober = try Prober(
            path: path, identity: identity, size: size, logicalSector: logicalSector)
        return prober.content()
    } catch {
        return .unreadable(error.description)
    }
}

extension HostState {
    /// Why a device that is read may change meanwhile; `nil` when nothing is known to write to it.
    fileprivate func reasonToChange(_ number: UInt64) -> String? {
        let parts = self[number].map { partitions(of: $0).map(\.number) } ?? []
        for part in [number] + parts {
            let subject = part == number ? "it" : "its partition \(displayName(part))"
            let mount = mounts.first { !$0.isReadOnly && devices(of: $0).contains(part) }
            if let mount {
                return "\(subject) is mounted on \(printable(mount.point)) and may change"
            }
            if swapDevices.contains(part) { return "\(subject) is in use as swap and will change" }
        }
        return nil
    }
}

extension BlockDevice {
    /// Makes sure that there is something to copy from or to: a source that is empty by mistake
    /// would empty the target.
    ///
    /// - Throws: when the size is 0, or more than any device has.
    func requireContent() throws(IOError) {
        try requireSaneSize()
        guard geometry.size > 0 else {
            throw IOError(
                name, "open", reason: "its size is 0: it is empty, has no medium or is not attached"
            )
        }
    }

    /// Makes sure that no offset within it, rounded up, is more than an `Int` holds: some file
    /// systems let a sparse image have any size.
    ///
    /// - Throws: when the size is more than any device has.
    func requireSaneSize() throws(IOError) {
        guard geometry.size <= Geometry.maximumSize else {
            throw IOError(
                name, "open",
                reason: "it has \(geometry.size) bytes, and \(Geometry.maximumSize) are the most "
                    + "that blkferry copies")
        }
    }
}

extension Refusal {
    /// What is neither a block device nor a regular file.
    static func wrongKind(_ name: String, _ path: String) -> Refusal {
        var answer = stat()
        _ = stat(path, &answer)
        let kind =
            switch answer.st_mode & S_IFMT {
            case S_IFDIR: "a directory"
            case S_IFCHR: "a character device"
            case S_IFIFO: "a fifo"
            case S_IFSOCK: "a socket"
            default: "no file that can be copied"
            }
        return Refusal(
            .wrongKind, name, "it is \(kind)",
            advice: "Name a block device or a disk image.")
    }
}
