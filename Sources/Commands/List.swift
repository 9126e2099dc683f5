// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockClient
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes
internal import WireProtocol

/// `blkferry list`: the devices of this machine, or what a server exports.
struct List: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List the block devices of this machine, or those that a server exports.")

    @Flag(help: "Print one JSON object.")
    var json = false

    @OptionGroup var credentials: Credentials

    @Argument(help: "A server's URL, or that of one of its devices.")
    var location: String?

    func validate() throws {
        do throws(WireError) {
            guard let location else { return }
            guard case .remote(let server) = try Location(location) else {
                throw WireError("\(location): not the URL of a server, such as http://host:8080")
            }
            try credentials.check(server)
        } catch {
            throw ValidationError(error.reason)
        }
    }

    func run() throws {
        let console = Console()
        if let location, case .remote(let remote)? = try? Location(location) {
            return try listExports(of: remote, console)
        }
        let entries: [InventoryEntry]
        do throws(ProbeError) { entries = try inventory() } catch {
            try end(CommandFailure(error), console)
        }
        let volumes = volumes(of: entries, console)
        let text =
            json
            ? JSON.line(
                DeviceList(
                    devices: entries.map { entry in
                        DeviceRecord(entry, entry.volumeIdentity.flatMap { volumes[$0] })
                    }))
            : DeviceTable(entries, volumes).text
        guard console.result(text) else { throw CommandEnd(status: .deviceError) }
        if json { return }
        for entry in entries {
            if let reason = entry.unreadable { console.warning("\(entry.path): \(reason)") }
        }
    }

    /// How long LVM may take: it waits for others that have its lock.
    private static let patience = Duration.seconds(10)

    /// What LVM says of the logical volumes: nothing where it is not installed, or has nothing to
    /// say to this user.
    private func volumes(
        of entries: [InventoryEntry], _ console: Console
    ) -> [VolumeIdentity: LogicalVolume] {
        let end = ContinuousClock.now + Self.patience
        guard geteuid() == 0, entries.contains(where: { $0.lvUUID != nil }),
            let lvm = try? LVM(isCancelled: { ContinuousClock.now > end })
        else { return [:] }
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
        do throws(ProbeError) {
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
