// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import SystemPackage

/// Which device or image of this machine something is, independent of its name.
package enum DeviceIdentity: Hashable, Sendable {
    /// A block device's number (`st_rdev`).
    case device(UInt64)
    /// An image.
    case image(FileIdentity, path: String)
    /// An image that is yet to be created in a directory.
    case newImage(fileSystem: UInt64, directory: String)
}

/// Everything that a write to a device changes: the device itself and all that it stands on.
///
/// Two devices overlap where their footprints do. Partitions and loop devices map byte to byte, so
/// their place below is exact. Where a file or a device-mapper or md device lies below is not
/// known: two of them beside each other do not overlap for that (two logical volumes of one
/// group, two images on one file system), but each of them overlaps with what it stands on.
struct Footprint: Sendable {
    enum Base: Hashable, Sendable {
        case device(UInt64)
        case file(FileIdentity)
    }

    struct Piece: Hashable, Sendable {
        var base: Base
        var range: ByteRange
        /// Whether it is these bytes, and not just some of them.
        var isExact: Bool
    }

    private(set) var pieces: [Piece] = []
    /// Numbers of the block devices at the bottom.
    private(set) var bottom: Set<UInt64> = []

    /// Follows a device down.
    init(_ identity: DeviceIdentity, on host: HostState) {
        switch identity {
        case .device(let number):
            let range = ByteRange(0, to: host[number]?.size ?? Int.max)
            add(.device(number), range, isExact: true, path: nil, host)
        case .image(let file, let path):
            add(.file(file), ByteRange(0, to: .max), isExact: true, path: path, host)
        case .newImage(let fileSystem, let directory):
            addFileSystem(fileSystem, path: directory, host)
        }
    }

    /// Two pieces that are the same bytes; `nil` when there are none.
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

    /// Whether the two are in part the very same bytes, as far as that is known exactly.
    func isExactlyShared(with other: Footprint) -> Bool {
        pieces.contains { piece in
            other.pieces.contains {
                piece.isExact && $0.isExact && piece.base == $0.base
                    && piece.range.overlaps($0.range)
            }
        }
    }

    private mutating func add(
        _ base: Base, _ range: ByteRange, isExact: Bool, path: String?, _ host: HostState
    ) {
        let piece = Piece(base: base, range: range, isExact: isExact)
        guard !pieces.contains(piece) else { return }
        pieces.append(piece)
        switch base {
        case .file(let file): addFileSystem(file.fileSystem, path: path, host)
        case .device(let number): addBelow(number, range, isExact: isExact, host)
        }
    }

    private mutating func addFileSystem(_ fileSystem: UInt64, path: String?, _ host: HostState) {
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
        } else if let loop = host.loops.first(where: { $0.loop.number == number }) {
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
    /// The same run, so many bytes further.
    fileprivate func shifted(by bytes: Int) -> ByteRange {
        let (start, isTooFar) = offset.addingReportingOverflow(bytes)
        guard !isTooFar else { return ByteRange(offset: 0, length: 0) }
        return ByteRange(offset: start, length: min(length, .max - start))
    }
}

extension HostState {
    /// Whether a disk with moving heads is beneath.
    ///
    /// A virtio disk is not believed: it says 1 unless its host was told otherwise.
    func isRotational(_ footprint: Footprint) -> Bool {
        footprint.bottom.contains { number in
            self[number].map { $0.isRotational && !$0.isVirtio } ?? false
        }
    }
}
