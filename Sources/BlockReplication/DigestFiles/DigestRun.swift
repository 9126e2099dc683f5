// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import SyncEngine
package import WireProtocol

/// Writes the hash tree of a device to a file, for `blkferry digest`.
package final class DigestRun: Sendable {
    package struct Report: Sendable {
        /// Bytes of the device.
        package var size: Int
        /// What pins the device's content.
        package var digests: VerityDigests
        /// Bytes of the file.
        package var fileSize: Int
        /// As in /dev/disk/by-uuid.
        package var uuid: String
        package var seconds: Double
    }

    private let output: String
    private let options: Replication.Options
    private let control: Replication.Control
    private let source: OpenedSource

    /// The warnings of the source, one line each.
    package var warnings: [String] { source.warnings }

    /// Opens the source.
    ///
    /// - Parameter output: the file; one of an earlier run is replaced.
    package init(
        _ source: Location, output: String, options: Replication.Options,
        control: Replication.Control, _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(ReplicationError) {
        try options.check()
        if case .local(let selector) = source {
            do throws(IOError) { try SafetyGate.checkOutput(output, besides: selector) } catch {
                throw ReplicationError(error)
            }
        }
        self.output = output
        self.options = options
        self.control = control
        let run = control.run
        let endpoints = Endpoints(
            options: options, digest: nil, isCancelled: { run.isCancelled }, events: events)
        self.source = try endpoints.open(source).0
    }

    deinit { source.device.release(isComplete: false) }

    /// Does the work once; if it throws, there is no new file.
    package func run() throws(ReplicationError) -> Report {
        let device = source.device
        let threads = try options.threads(
            layout: DigestFileDevice.layout, isRotational: source.isRotational,
            isRemote: device.isRemote)
        do throws(IOError) { return try run(device, threads) } catch {
            throw ReplicationError(error)
        }
    }

    private func run(_ device: any BlockDevice, _ threads: Int) throws(IOError) -> Report {
        let start = ContinuousClock.now
        guard VerityShape.block % device.geometry.alignment == 0 else {
            throw IOError(
                device.name, "digest",
                reason: "its sectors of \(device.geometry.alignment) bytes do not fit into blocks "
                    + "of \(VerityShape.block)")
        }
        let counter = device.changeCounter()
        let shape = VerityShape(size: device.geometry.size)
        let fileSize = shape.end + VeritySeal.size
        let draft = try DraftFile(for: output, size: fileSize, source: device.fileStatus)
        let digests = try VerityBuilder(device, shape, draft, control.run).run(threads: threads)
        let superblock = try VeritySuperblock(blocks: shape.blocks, root: digests.root)
        let seal = VeritySeal(deviceSize: shape.size, digests)
        try draft.write(superblock.bytes, at: 0)
        try draft.write(seal.bytes(after: superblock.bytes), at: shape.end)
        try device.checkIdentity()
        if let counter, device.changeCounter() != counter {
            throw IOError(
                device.name, "digest",
                reason: "another program wrote to it while it was read, so no file was written",
                advice: "Take a snapshot of it, and digest that.")
        }
        try draft.publish()
        return Report(
            size: shape.size, digests: digests, fileSize: fileSize, uuid: superblock.uuidText,
            seconds: (ContinuousClock.now - start) / .seconds(1))
    }
}

extension VeritySuperblock {
    fileprivate var uuidText: String {
        let digits = hexadecimal(uuid)
        var text = ""
        for (index, digit) in digits.enumerated() {
            if [8, 12, 16, 20].contains(index) { text.append("-") }
            text.append(digit)
        }
        return text
    }
}
