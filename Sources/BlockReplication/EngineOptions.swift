// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
package import SyncEngine

extension Replication.Options {
    /// What the engine is asked to do; the user is told what the devices are like.
    ///
    /// - Throws: `invalid`, when the options do not fit the devices.
    func forEngine(
        _ action: Replication.Action, _ source: SourceEndpoint, _ target: TargetEndpoint,
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
                isRemote: devices.contains { $0 is any RemoteDevice }))
        guard action != .compare else { return options }
        options.wholeFile = wholeFile
        options.isDryRun = action == .dryRun
        options.skipsUnreadable = skipsUnreadable
        options.verifies = verifies
        options.resizeTo = target.resizeTo
        return options
    }

    /// The block size asked for, raised where a device cannot transfer so little.
    private func layout(
        for devices: [any BlockDevice], _ events: (Replication.Event) -> Void
    ) throws(ReplicationError) -> BlockLayout {
        let preferred = devices.lazy.compactMap { ($0 as? any RemoteDevice)?.preferredBlock }.first
        let wanted = blockSize ?? preferred ?? BlockLayout.defaultBlock
        let block = devices.reduce(wanted) { leastCommonMultiple($0, $1.geometry.alignment) }
        guard BlockLayout.blockSizes.contains(block) else {
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

    /// How many threads: as asked, or what was measured to be best.
    ///
    /// Blocking reads need several threads a processor to keep it and the disk busy
    /// (`tools/bench local`); a rotational disk only seeks more. Their buffers bound the memory.
    ///
    /// - Parameters:
    ///   - layout: the buffers' size.
    ///   - isRotational: one of the devices is.
    ///   - isRemote: one of the devices is on a server: half of the threads wait for it.
    /// - Returns: at least 1.
    /// - Throws: `invalid`, when the buffers of so many threads would be too large.
    package func threads(
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

    /// Bytes that all buffers together take at most, unless the user asks for more threads.
    private static let bufferMemory = 40 << 20

    /// Bytes that they may take if he does.
    private static let largestBufferMemory = 2 << 30
}

/// The smallest number that both divide.
func leastCommonMultiple(_ first: Int, _ second: Int) -> Int {
    var (a, b) = (first, second)
    while b != 0 { (a, b) = (b, a % b) }
    return first / a * second
}

extension BlockDevice {
    /// How the device is accessed.
    fileprivate var accessNote: String {
        let way = (self as? ImageFile)?.isDirect == false ? "buffered (no direct I/O)" : "direct"
        return "\(name): \(geometry.size) bytes, \(way) I/O, "
            + "units of \(geometry.alignment) bytes"
    }
}
