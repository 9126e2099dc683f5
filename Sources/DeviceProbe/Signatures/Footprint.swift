// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import LinuxIO
internal import SystemPackage

/// Identifies a device or image of this machine, independent of its name.
package enum DeviceIdentity: Hashable, Sendable {
    /// A block device's number (`st_rdev`).
    case device(UInt64)
    case image(FileIdentity, path: String)
    /// An image that does not exist yet, and its directory.
    case newImage(fileSystem: UInt64, directory: String)

    /// `nil` if it is neither a block device nor a regular file.
    package init?(_ status: FileStatus, path: String) {
        switch status.kind {
        case .blockDevice: self = .device(status.device)
        case .regular: self = .image(FileIdentity(status), path: path)
        case .directory, .other: return nil
        }
    }
}

/// Everything that a write to a device changes: the device and all devices and files below it.
///
/// Two devices overlap if their footprints do. Partitions and loop devices map byte to byte, so
/// their ranges below are exact. The place of a file or of a device-mapper or md device on its
/// foundation is not known. So two of them on one foundation do not overlap, for example two
/// logical volumes of one group, or two images on one file system. Each of them overlaps with the
/// foundation itself.
struct Footprint: Sendable {
    enum Base: Hashable, Sendable {
        case device(UInt64)
        case file(FileIdentity)
    }

    struct Piece: Hashable, Sendable {
        var base: Base
        var range: ByteRange
        /// Whether the write changes exactly these bytes, or an unknown part of them.
        var isExact: Bool
    }

    private(set) var pieces: [Piece] = []
    /// Numbers of the lowest block devices.
    private(set) var bottom: Set<UInt64> = []

    init(_ identity: DeviceIdentity, on host: HostState) {
        switch identity {
        case .device(let number):
            let range = ByteRange(0, to: host[number]?.size ?? Int.max)
            add(.device(number), range, isExact: true, path: nil, host)
        case .image(let file, let path):
            add(
                .file(file), ByteRange(0, to: .max), isExact: true, path: KernelPath(path), host)
        case .newImage(let fileSystem, let directory):
            addFileSystem(fileSystem, path: KernelPath(directory), host)
        }
    }

    /// A base on which both have the same bytes; `nil` if there is none.
    func overlap(with other: Footprint) -> Base? {
        for piece in pieces {
            for theirs in other.pieces
            where piece.base == theirs.base && (piece.isExact || theirs.isExact)
                && piece.range.overlaps(theirs.range)
            {
                return piece.base
            }
        }
        return nil
    }

    func isExactlyShared(with other: Footprint) -> Bool {
        pieces.contains { piece in
            other.pieces.contains {
                piece.isExact && $0.isExact && piece.base == $0.base
                    && piece.range.overlaps($0.range)
            }
        }
    }

    /// Numbers of the devices whose exact bytes a write changes: the device itself, its disk, and
    /// the chain of loop devices and disks below.
    var exactDevices: Set<UInt64> {
        var numbers: Set<UInt64> = []
        for piece in pieces where piece.isExact {
            if case .device(let number) = piece.base { numbers.insert(number) }
        }
        return numbers
    }

    private mutating func add(
        _ base: Base, _ range: ByteRange, isExact: Bool, path: KernelPath?, _ host: HostState
    ) {
        let piece = Piece(base: base, range: range, isExact: isExact)
        guard !pieces.contains(piece) else { return }
        pieces.append(piece)
        switch base {
        case .file(let file): addFileSystem(file.fileSystem, path: path, host)
        case .device(let number): addBelow(number, range, isExact: isExact, host)
        }
    }

    private mutating func addFileSystem(
        _ fileSystem: UInt64, path: KernelPath?, _ host: HostState
    ) {
        for number in host.devices(ofFileSystem: fileSystem, path: path) {
            addWhole(number, host)
        }
    }

    private mutating func addWhole(_ number: UInt64, _ host: HostState) {
        let range = ByteRange(0, to: host[number]?.size ?? Int.max)
        add(.device(number), range, isExact: false, path: nil, host)
    }

    private mutating func addBelow(
        _ number: UInt64, _ range: ByteRange, isExact: Bool, _ host: HostState
    ) {
        guard let device = host[number] else { return }
        if let disk = device.disk.flatMap({ host[$0] }) {
            add(
                .device(disk.number), range.shifted(by: device.start), isExact: isExact, path: nil,
                host)
        } else if device.backingPath != nil,
            let loop = host.loops.first(where: { $0.loop.number == number })
        {
            let place = range.shifted(by: loop.offset)
            switch loop.backing {
            case .file(let file):
                add(.file(file), place, isExact: isExact, path: device.backingPath, host)
            case .device(let below):
                add(.device(below), place, isExact: isExact, path: nil, host)
            case .unknown: break
            }
        } else if !device.slaves.isEmpty {
            for slave in device.slaves.compactMap({ host[$0] }) { addWhole(slave.number, host) }
        } else {
            bottom.insert(number)
        }
    }
}

extension ByteRange {
    fileprivate func shifted(by bytes: Int) -> ByteRange {
        let (start, isTooFar) = offset.addingReportingOverflow(bytes)
        guard !isTooFar else { return ByteRange(offset: 0, length: 0) }
        return ByteRange(offset: start, length: min(length, .max - start))
    }
}

extension HostState {
    /// Whether the footprint includes a rotating disk.
    ///
    /// Virtio disks are ignored: they report 1 unless their host is configured otherwise.
    func isRotational(_ footprint: Footprint) -> Bool {
        footprint.bottom.contains { number in
            self[number].map { $0.isRotational && !$0.isVirtio } ?? false
        }
    }
}
