// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockClient
internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import WireProtocol

/// `blkferry list`: prints the devices of this machine, or the exports of a server.
struct List: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List the block devices of this machine, or those that a server exports.")

    @Flag(help: "Print one JSON object.")
    var json = false

    @OptionGroup var credentials: Credentials

    @Argument(
        help: "A server's URL or host:, or that of one of its devices.",
        transform: Location.parsed)
    var location: Result<Location, WireError>?

    func validate() throws {
        do throws(WireError) {
            guard let location = try self.location?.get() else { return }
            guard let server = location.remote else {
                throw WireError("\(location): not the URL of a server, such as http://host:8080")
            }
            try credentials.check(server)
        } catch {
            throw ValidationError(error.reason)
        }
    }

    func run() throws {
        let console = Console()
        if let remote = try location?.get().remote { return try listExports(of: remote, console) }
        let inventory: Inventory
        do throws(IOError) { inventory = try Inventory() } catch {
            try end(CommandFailure(error), console)
        }
        let volumes = volumes(of: inventory.devices, console)
        let isPrinted =
            json
            ? try printRecord(of: inventory, volumes, console)
            : printTable(of: inventory, volumes, console)
        guard isPrinted else { throw CommandEnd(status: .deviceError) }
        if !json, let error = inventory.shortage {
            console.error(error.description, advice: error.advice)
            throw CommandEnd(status: .deviceError)
        }
    }

    private func printRecord(
        of inventory: Inventory, _ volumes: [VolumeIdentity: LogicalVolume], _ console: Console
    ) throws -> Bool {
        let records = inventory.devices.indices.map { index in
            let entry = inventory.entry(index)
            return DeviceRecord(entry, entry.volumeIdentity.flatMap { volumes[$0] })
        }
        if let error = inventory.shortage { try end(CommandFailure(error), console) }
        return console.result(JSON.line(DeviceList(devices: records)))
    }

    /// The time for devices to answer before the first line is printed; most answer in time, so
    /// that the columns have their final width.
    private static let pause = Duration.milliseconds(300)

    /// Prints one line a device, in order, without waiting for a later slow device.
    private func printTable(
        of inventory: Inventory, _ volumes: [VolumeIdentity: LogicalVolume], _ console: Console
    ) -> Bool {
        inventory.waitForAll(until: .now + Self.pause)
        var known = inventory.devices
        let isKnown = known.indices.map { inventory.isKnown($0) }
        for index in known.indices where isKnown[index] { known[index] = inventory.entry(index) }
        let table = DeviceTable(known, volumes, isComplete: !isKnown.contains(false))
        var lines = [table.heading]
        for index in known.indices {
            if !isKnown[index] {
                if !inventory.isKnown(index), !lines.isEmpty {
                    guard console.result(lines.joined(separator: "\n")) else { return false }
                    lines = []
                }
                known[index] = inventory.entry(index)
            }
            lines.append(table.line(known[index]))
        }
        guard lines.isEmpty || console.result(lines.joined(separator: "\n")) else { return false }
        for entry in known {
            if let reason = entry.unreadable { console.warning("\(entry.path): \(reason)") }
        }
        return true
    }

    /// Lists the logical volumes; none if LVM is not installed or the user is not root.
    private func volumes(
        of entries: [InventoryEntry], _ console: Console
    ) -> [VolumeIdentity: LogicalVolume] {
        guard entries.contains(where: { $0.lvUUID != nil }), let lvm = LVM(in: SystemView()) else {
            return [:]
        }
        do throws(IOError) {
            return Dictionary(
                try lvm.volumes().map { ($0.identity, $0) }, uniquingKeysWith: { first, _ in first }
            )
        } catch {
            console.warning(error.description)
            return [:]
        }
    }

    private func end(_ failure: CommandFailure, _ console: Console) throws -> Never {
        console.error(failure.message, advice: failure.advice)
        if json { console.result(JSON.line(FailureRecord(failure, command: "list"))) }
        throw CommandEnd(status: failure.status)
    }

    private func listExports(of location: RemoteLocation, _ console: Console) throws {
        let list: ExportList
        var options = RemoteServer.Options()
        do throws(CommandFailure) {
            options.token = try credentials.token()
            options.trust = try credentials.trust()
        } catch {
            try end(error, console)
        }
        credentials.warn(of: options.token, to: [location], console)
        do throws(IOError) {
            options.ssh = credentials.ssh.settings(isTarget: false)
            let server = try RemoteServer(location, options)
            if let selector = location.selector {
                list = ExportList(devices: [try server.export(selector)], directories: [])
            } else {
                list = try server.exports()
            }
        } catch {
            try end(CommandFailure(error), console)
        }
        let text = json ? JSON.line(list) : ExportTableText(list).text
        guard console.result(text) else { throw CommandEnd(status: .deviceError) }
    }
}
