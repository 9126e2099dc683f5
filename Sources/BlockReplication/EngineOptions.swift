// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Glibc
internal import SyncEngine

extension Replication.Options {
    /// Throws `invalid` if the options do not fit the source, before the gate creates a target.
    func check(_ source: OpenedSource) throws(ReplicationError) {
        _ = try movedTable(of: source)
        // Without a block size of the user, the target may have a better one.
        guard blockSize != nil else { return }
        _ = try threads(
            layout: try layout(for: [source.device]) { _ in }, isRotational: source.isRotational,
            isRemote: source.device.isRemote)
    }

    /// Throws `invalid` if the options do not fit the devices.
    func forEngine(
        _ action: Replication.Action, _ source: OpenedSource, _ target: AdmittedTarget,
        _ events: (Replication.Event) -> Void
    ) throws(ReplicationError) -> SyncOptions {
        let devices = [source.device, target.device]
        for warning in source.warnings + target.warnings { events(.warning(warning)) }
        for device in devices { events(.note(device.accessNote)) }
        let layout = try layout(for: devices, events)
        var options = SyncOptions(
            layout: layout,
            concurrency: try threads(
                layout: layout, isRotational: source.isRotational || target.isRotational,
                isRemote: devices.contains { $0.isRemote }))
        options.mostConcurrency = mostThreads(layout: layout)
        options.skipsUnreadable = skipsUnreadable
        guard action != .compare else { return options }
        options.wholeFile = wholeFile
        options.isDryRun = action == .dryRun
        options.verifies = verifies
        options.resizeTo = target.resizeTo
        // The limit was checked in the lost session.
        options.endsWhenLost = maximumChange != nil
        options.tail = target.leftovers.map {
            Patch([UInt8](repeating: 0, count: $0.length), at: $0.offset)
        }
        return options
    }

    /// The GPT whose backup is moved; `nil` if that is not wanted.
    private func movedTable(of source: OpenedSource) throws(ReplicationError) -> Signature? {
        guard movesBackupTable else { return nil }
        guard let table = source.facts.content.partitionTable, table.type == "gpt" else {
            throw ReplicationError(
                .invalid, "\(source.facts.name): has no GPT to move the backup of")
        }
        return table
    }

    /// The change that moves the backup of the source's GPT; `nil` if that is not wanted or not
    /// needed.
    func movedBackup(
        _ source: OpenedSource, _ target: AdmittedTarget, _ endpoint: any Endpoint
    ) throws(ReplicationError) -> MovedBackup? {
        guard let table = try movedTable(of: source) else { return nil }
        guard target.device.geometry.size > source.facts.size else { return nil }
        if let reason = endpoint.reasonForNoTail {
            throw ReplicationError(.invalid, "\(target.device.name): \(reason)")
        }
        return try MovedBackup(source.device, sector: table.sectorSize, target: target.device)
    }

    /// The user's block size, raised if a device cannot transfer so little.
    private func layout(
        for devices: [any BlockDevice], _ events: (Replication.Event) -> Void
    ) throws(ReplicationError) -> BlockLayout {
        if comparesDigests { return try digestLayout(for: devices) }
        let preferred = devices.lazy.compactMap { $0.preferredBlock }.first
        let wanted = blockSize ?? preferred ?? BlockLayout.defaultBlock
        let block = devices.reduce(wanted) { leastCommonMultiple($0, $1.geometry.alignment) }
        guard BlockLayout.isBlock(block) else {
            throw ReplicationError(
                .invalid,
                "block size \(wanted): does not fit the devices: transfers are multiples of "
                    + devices.map { "\($0.geometry.alignment) bytes on \($0.name)" }
                    .joined(separator: " and "))
        }
        if block != wanted {
            events(
                .note(
                    "blocks of \(block) bytes instead of \(wanted), to fit the devices' transfers"))
        }
        return BlockLayout(block: block)
    }

    /// The blocks of a digest file are what can be compared.
    private func digestLayout(
        for devices: [any BlockDevice]
    ) throws(ReplicationError) -> BlockLayout {
        let layout = DigestFileDevice.layout
        for device in devices where layout.block % device.geometry.alignment != 0 {
            throw ReplicationError(
                .invalid,
                "\(device.name): its sectors of \(device.geometry.alignment) bytes do not fit into "
                    + "blocks of \(layout.block)")
        }
        return layout
    }

    /// The user's number of threads, or the best one in measurements.
    ///
    /// Blocking reads need several threads for each processor to keep it and the disk busy
    /// (`tools/bench local`). On a rotational disk more threads only seek more. If a side is on a
    /// server, half of the threads wait for it. The buffers limit the number.
    ///
    /// - Throws: `invalid` if the buffers for the user's number would be too large.
    func threads(
        layout: BlockLayout, isRotational: Bool, isRemote: Bool
    ) throws(ReplicationError) -> Int {
        let buffer = 2 * layout.window
        if let concurrency {
            guard concurrency <= Self.largestBufferMemory / buffer else {
                throw ReplicationError(
                    .invalid,
                    "concurrency \(concurrency): their buffers of \(buffer) bytes each would be "
                        + "more than \(Self.largestBufferMemory)")
            }
            return concurrency
        }
        if isRotational { return 2 }
        let processors = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        let affordable = Self.bufferMemory / buffer
        let wanted = isRemote ? min(4 * processors, 16) : max(4, min(2 * processors, 32))
        return max(1, min(wanted, affordable))
    }

    /// Threads at most while the round trip to a server is long; `nil` for the user's number.
    ///
    /// With 2 MiB each, 32 fill a line of 1 Gbit/s up to a round trip of half a second. Each takes
    /// up to 3.5 MiB of memory.
    func mostThreads(layout: BlockLayout) -> Int? {
        concurrency == nil
            ? min(Self.longLineThreads, Self.longLineMemory / (2 * layout.window)) : nil
    }

    static let longLineThreads = 32

    /// Bytes of all buffers at most, unless the user chooses the number of threads.
    private static let bufferMemory = 40 << 20

    /// The same while the round trip to a server is long.
    private static let longLineMemory = 64 << 20

    /// Bytes of all buffers at most if the user chooses the number of threads.
    private static let largestBufferMemory = 2 << 30
}

extension BlockDevice {
    fileprivate var accessNote: String {
        let way = isDirect ? "direct" : "buffered (no direct I/O)"
        return "\(name): \(geometry.size) bytes, \(way) I/O, "
            + "units of \(geometry.alignment) bytes"
    }
}
