// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// The backing files of the loop devices below a device or an image.
struct LoopBackings {
    /// Files with exactly the bytes of the device, if they can be opened.
    private(set) var files: [BackingFile] = []
    /// Files of loop devices that use the page cache.
    private(set) var cached: [BackingFile] = []
    /// Files of all these loop devices.
    private(set) var all: [BackingFile] = []
    /// Finds the programs that have one of `all` open for writing; block devices are not looked for.
    private(set) var writers: [ImageWriters] = []
    /// Loop devices that use the page cache, with backing in another mount namespace or deleted.
    private(set) var unreachable: [String] = []

    init(below identity: DeviceIdentity, _ host: HostState) {
        for piece in Footprint(identity, on: host).pieces {
            guard case .device(let number) = piece.base,
                let loop = host.loops.first(where: { $0.loop.number == number })
            else { continue }
            let isCached = !loop.isDirect(host.view)
            if let file = loop.open(host.view) {
                all.append(file)
                if case .file(let opened) = loop.backing {
                    writers.append(ImageWriters(of: opened, path: file.path, host.view))
                }
                if piece.isExact { files.append(file) }
                if isCached { cached.append(file) }
            } else if isCached {
                unreachable.append(loop.loop.path)
            }
        }
    }

    func warnings(_ name: String) -> [String] {
        unreachable.map { loop in
            "\(name): the file behind \(loop) cannot be opened here: what is compared may come from the "
                + "page cache and not from the medium; losetup --direct-io=on \(loop) avoids that"
        }
    }
}

/// A loop device and its range in the backing, which `LOOP_SET_STATUS64` changes while it is
/// attached.
struct LoopRange: Hashable, Sendable {
    /// `st_rdev` of the loop device.
    let number: UInt64
    /// Bytes.
    let offset: Int
    /// Bytes.
    let size: Int

    fileprivate init(_ loop: LoopBacking) {
        number = loop.loop.number
        offset = loop.offset
        size = loop.loop.size
    }
}

extension HostState {
    /// The loop devices that can write to the backing of an image, or of a device on loop devices.
    func writableLoops(on identity: DeviceIdentity) -> Set<LoopRange> {
        var backings = Set<LoopBacking.Backing>()
        if case .image(let file, _) = identity { backings.insert(.file(file)) }
        for piece in Footprint(identity, on: self).pieces {
            guard case .device(let number) = piece.base else { continue }
            for loop in loops where loop.loop.number == number { backings.insert(loop.backing) }
        }
        backings.remove(.unknown)
        let writable = loops.filter { backings.contains($0.backing) && !$0.loop.isReadOnly }
        return Set(writable.map { LoopRange($0) })
    }

    /// Returns a check for the end of a run: whether a loop device was attached or moved since this
    /// call.
    ///
    /// A loop device beside the target cannot write to it as long as it stays in its range.
    func newLoops(on identity: DeviceIdentity) -> @Sendable () -> Bool {
        let attached = LoopBacking.attached(view: view)
        let (before, view) = (writableLoops(on: identity), view)
        return {
            // A query of loop devices takes a process, and a server makes this check at every
            // keepalive.
            LoopBacking.attached(view: view) != attached
                && !HostState(view).writableLoops(on: identity).isSubset(of: before)
        }
    }
}

extension LoopBacking {
    /// Source: Documentation/ABI/testing/sysfs-block-loop.
    fileprivate func isDirect(_ view: SystemView) -> Bool {
        loop.attribute("loop/dio", in: view) == "1"
    }

    /// Opens the backing file, if the path leads to it in this mount namespace.
    fileprivate func open(_ view: SystemView) -> BackingFile? {
        guard let path = loop.backingPath, path.isAbsolute else { return nil }
        return BackingFile(path: view.devicePath(path)) { status in
            switch backing {
            case .file(let file): status.kind == .regular && FileIdentity(status) == file
            case .device(let number): status.kind == .blockDevice && status.device == number
            case .unknown: false
            }
        }
    }
}
