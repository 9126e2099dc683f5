// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import SystemPackage

/// What the safety gate must know about a source, which may be on another machine.
package struct SourceFacts: Sendable {
    /// As the user wrote it.
    package var name: String
    /// Bytes; if it is unknown, those that are known to be there.
    package var size: Int
    /// Whether the size is known; that of a stream may not be.
    package var isSizeKnown = true
    /// Whether it is standard input.
    package var isStream = false
    package var content: Content
    /// Bytes; `nil` for an image.
    package var logicalSector: Int?
    /// `nil` if the source is on another machine.
    package var identity: DeviceIdentity?
    /// Upper bound of the bytes outside holes; `nil` if unknown.
    package var dataBytes: Int?

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
    /// For the user, one line each.
    package var warnings: [String]
    /// Whether a rotating disk is below.
    package var isRotational: Bool

    package init(
        device: any BlockDevice, facts: SourceFacts, warnings: [String], isRotational: Bool = false
    ) {
        self.device = device
        self.facts = facts
        self.warnings = warnings
        self.isRotational = isRotational
    }
}

/// Opens a device for reading; also each side of a mere comparison.
///
/// It writes the page cache of a block device back, so that later reads do not change the device.
/// It takes a shared lock against programs that lock before they write.
///
/// - Parameter purpose: if another program has locked the device for writing, a source is refused,
///   and a side of a comparison gets a warning.
/// - Throws: a refusal if it is neither a block device nor a regular file, or if an inactive volume
///   may be meant; the error of a call, ENOENT if the path does not exist.
package func openSource(
    _ selector: Selector, as name: String? = nil, for purpose: ReadPurpose = .source,
    view: SystemView = SystemView()
) throws(IOError) -> OpenedSource {
    let found = try find(selector, view: view)
    let path = found.path
    let name = name ?? selector.description
    let status: FileStatus
    do throws(Errno) { status = try FileStatus(path: path) } catch {
        throw IOError(name, "open", error)
    }
    switch status.kind {
    case .blockDevice:
        var source = try openDeviceAsSource(path, name: name, purpose, view)
        source.warnings += found.rivals.map {
            "\(name): \(path) is taken; \($0) does not answer, and may have it as well"
        }
        return source
    case .regular:
        if let no = AmbiguousPath(selector)?.refusalOfFile(as: name, view: view) { throw no }
        return try openImageAsSource(path, name: name, purpose, view)
    case .directory, .other: throw .wrongKind(name, path)
    }
}

private func openDeviceAsSource(
    _ path: String, name: String, _ purpose: ReadPurpose, _ view: SystemView
) throws(IOError) -> OpenedSource {
    let device = try BlockSpecialFile(path: path, name: name, access: .read)
    try device.requireContent()
    try device.writeBackCache()
    let host = HostState(view)
    let identity = DeviceIdentity.device(device.number)
    if let no = StandardStreams.refusal(identity, name, host) { throw no }
    var warnings = host.reasonToChange(device.number).map { ["\(name): \($0)"] } ?? []
    let locks = SharedLocks(identity, on: host)
    do throws(IOError) {
        if (try? device.lock(exclusive: false)) == false {
            throw locks.refusal(name, of: device.number)
        }
        device.keep(try locks.takeOnRelatives(name))
    } catch {
        warnings.append(try warning(instead: error, purpose))
    }
    // The relatives' dirty pages belong to the disk, too.
    for relative in host.relatives(of: device.number) {
        BlockSpecialFile.writeBackCache(of: relative, dropping: false)
    }
    let backings = LoopBackings(below: identity, host)
    device.flushThrough(backings.cached)
    device.setBackings(backings.all)
    warnings += backings.warnings(name)
    let size = device.geometry.size
    let sector = device.geometry.logicalSector
    let content = contentOfOpened(path, identity, size: size, logicalSector: sector)
    return OpenedSource(
        device: device,
        facts: SourceFacts(
            name: name, size: size, content: content, logicalSector: sector, identity: identity),
        warnings: warnings,
        isRotational: host.isRotational(Footprint(identity, on: host)))
}

private func openImageAsSource(
    _ path: String, name: String, _ purpose: ReadPurpose, _ view: SystemView
) throws(IOError) -> OpenedSource {
    var warnings: [String] = []
    let image = try ImageFile(path: path, name: name, access: .read)
    try image.requireContent()
    let file = FileIdentity(try image.status())
    let host = HostState(view)
    for loop in host.loops where loop.backing == .file(file) && !loop.loop.isReadOnly {
        warnings.append("\(name): it is behind loop device \(loop.loop.path) and may change")
    }
    let identity = DeviceIdentity.image(file, path: path)
    if let no = StandardStreams.refusal(identity, name, host) { throw no }
    let locks = SharedLocks(identity, on: host)
    do throws(IOError) {
        // On a file system without locks no program can hold one.
        if (try? image.lock(exclusive: false)) == false { throw locks.refusal(name, of: nil) }
        image.keep(try locks.takeOnRelatives(name))
    } catch {
        warnings.append(try warning(instead: error, purpose))
    }
    let backings = LoopBackings(below: identity, host)
    image.flushThrough(backings.cached)
    image.setBackings(backings.all)
    warnings += backings.warnings(name)
    let size = image.geometry.size
    var facts = SourceFacts(
        name: name, size: size,
        content: contentOfOpened(path, identity, size: size, logicalSector: nil),
        logicalSector: nil, identity: identity)
    facts.dataBytes = image.dataBytes
    return OpenedSource(
        device: image, facts: facts,
        warnings: warnings,
        isRotational: host.isRotational(Footprint(identity, on: host)))
}

private func warning(instead no: IOError, _ purpose: ReadPurpose) throws(IOError) -> String {
    guard purpose == .comparison else { throw no }
    return "\(no.object): \(no.reason)"
}

/// Probes an open device; a device whose start cannot be read may still be copied.
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

/// Probes the start of a stream; its other bytes count as zeros.
///
/// - Parameter size: bytes of the stream; `nil` if unknown.
package func contentOfStream(_ head: [UInt8], size: Int?) -> Content {
    do throws(Errno) {
        let file = OwnedDescriptor(
            owning: try retryingInterrupts { clb_memory_file("blkferry-stream") })
        // Signatures at the end of a device are not found, whatever the size.
        let size = size ?? 1 << 40
        _ = try retryingInterrupts { ftruncate(file.rawValue, off_t(size)) }
        let buffer = AlignedBuffer(count: max(1, head.count))
        buffer.bytes.copyBytes(from: head)
        try file.write(UnsafeRawBufferPointer(slice(buffer.bytes, 0, head.count)), at: 0)
        let path = "/proc/self/fd/\(file.rawValue)"
        let identity = DeviceIdentity.image(FileIdentity(try file.status()), path: path)
        return try Prober(path: path, identity: identity, size: size, logicalSector: nil).content()
    } catch {
        return .unreadable(error.description)
    }
}

extension HostState {
    /// Why a device may change while it is read; `nil` if no writer is known.
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
    /// Bytes outside holes; after 4096 runs of data, all further bytes count.
    fileprivate var dataBytes: Int? {
        let size = geometry.size
        var (sum, end) = (0, 0)
        for _ in 0..<4096 {
            do throws(IOError) {
                guard let run = try nextData(from: end) else { return sum }
                sum += run.length
                end = run.end
            } catch {
                return nil
            }
        }
        return sum + (size - end)
    }

    /// Throws for a size of 0: a source that is empty by mistake would empty the target.
    func requireContent() throws(IOError) {
        try requireSaneSize()
        guard geometry.size > 0 else {
            throw IOError(
                name, "open", reason: "its size is 0: it is empty, has no medium or is not attached"
            )
        }
    }

    /// Throws for a size whose offsets, rounded up, may exceed an `Int`.
    ///
    /// Some file systems allow a sparse image of any size.
    package func requireSaneSize() throws(IOError) {
        guard geometry.size <= Geometry.maximumSize else {
            throw IOError(
                name, "open",
                reason: "it has \(geometry.size) bytes, and \(Geometry.maximumSize) are the most "
                    + "that blkferry copies")
        }
    }
}

extension IOError {
    static func wrongKind(_ name: String, _ path: String) -> IOError {
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
        return .refusal(
            .wrongKind, name, "it is \(kind)",
            advice: "Name a block device or a disk image.")
    }
}
