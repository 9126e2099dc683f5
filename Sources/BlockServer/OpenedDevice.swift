// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import WireProtocol

/// A device that was opened for a session, as source or target.
struct Opened {
    /// How long LVM may take to report: who holds its lock shall not hold all threads of the server.
    private static let patience = Duration.seconds(20)

    var device: any BlockDevice
    var facts: SourceFacts
    var kind: String
    var warnings: [String]
    var isRotational: Bool
    var relatives: [String] = []
    var sizeBefore: Int?
    var resizeTo: Int?
    var wasCreated: Bool?
    /// From before it grew.
    var stampBefore: [Int]?

    init(
        _ found: ExportTable.Found, _ request: SessionRequest, boot: String?, view: SystemView
    ) throws(Problem) {
        do throws(ProbeError) {
            guard request.mode != .read else {
                let source = try openSource(found.path, as: found.name, view: view)
                device = source.device
                facts = source.facts
                kind = source.device is ImageFile ? "image" : "block-device"
                warnings = source.warnings
                isRotational = source.isRotational
                return
            }
            let source: SourceFacts
            let policy: GatePolicy
            do throws(WireError) {
                guard let record = request.source else { throw WireError("source is missing") }
                source = try record.facts(boot: boot)
                policy = found.limit(try request.policy())
            } catch {
                throw .failed(IOError(found.name, "open", reason: error.reason))
            }
            let target = try SafetyGate.admit(
                found.path, as: found.name, source: source, policy: policy,
                volumes: LocalVolumes(patience: Self.patience), view: view)
            device = target.device
            let identity = found.description?.identity ?? Self.identity(of: target.device)
            facts = SourceFacts(
                name: found.name, size: target.device.geometry.size, content: .empty,
                logicalSector: target.kind == .image ? nil : target.device.geometry.logicalSector,
                identity: identity)
            kind = target.kind.rawValue
            warnings = target.warnings
            isRotational = target.isRotational
            relatives = target.relatives
            sizeBefore = target.sizeBefore
            wasCreated = target.wasCreated
            resizeTo = target.resizeTo
            // Grown before the first write; shrunk by the commit.
            if let size = target.resizeTo, request.mode == .write, size > device.geometry.size {
                // What others have only put into the page cache is to be seen as well.
                if (try? device.flush()) != nil { stampBefore = device.lastingStamp()?.marks }
                do throws(IOError) { try device.resize(to: size) } catch { throw .failed(error) }
            }
        } catch {
            throw Problem(error)
        }
    }

    /// What transfers are multiples of, for the client: a power of two up to 1 MiB.
    ///
    /// Chunks of a pool that are written as a whole are what its blocks are, and need be no power.
    var alignment: Int {
        let alignment = device.geometry.alignment
        return min(alignment & -alignment, 1 << 20)
    }

    /// Of an image or a volume that was created for the session.
    private static func identity(of device: any BlockDevice) -> DeviceIdentity? {
        if let volume = device as? VolumeTarget { return .device(volume.number) }
        guard let status = try? (device as? ImageFile)?.status() else { return nil }
        return .image(
            FileIdentity(fileSystem: status.fileSystem, inode: status.inode), path: device.name)
    }

    /// The blocks that were asked for, raised to what the device can transfer.
    func layout(for block: Int, digestSize: Int) throws(Problem) -> WireLayout {
        do throws(WireError) {
            guard block > 0, block <= Limits.window else { throw WireError("block size \(block)") }
            var unit = block
            while unit % device.geometry.alignment != 0 {
                unit += block
                guard unit <= Limits.window else {
                    throw WireError("blocks of \(block) bytes do not fit the device")
                }
            }
            var region = unit
            while region < 64 << 10 { region *= 2 }
            return try WireLayout(block: unit, region: region, digestSize: digestSize)
        } catch {
            throw Problem(error)
        }
    }
}
