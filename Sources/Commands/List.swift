// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import DeviceProbe

/// `blkferry list`: the devices of this machine.
struct List: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List the block devices of this machine, what is on them and who uses them.")

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() throws {
        let console = Console()
        let entries: [InventoryEntry]
        do throws(ProbeError) { entries = try inventory() } catch {
            let failure = CommandFailure(error)
            console.error(failure.message, advice: failure.advice)
            if json { console.result(JSON.line(FailureRecord(failure, command: "list"))) }
            throw CommandEnd(status: failure.status)
        }
        let text =
            json
            ? JSON.line(DeviceList(devices: entries.map { DeviceRecord($0) }))
            : DeviceTable(entries).text
        guard console.result(text) else { throw CommandEnd(status: .deviceError) }
        if json { return }
        for entry in entries {
            if let reason = entry.unreadable { console.warning("\(entry.path): \(reason)") }
        }
    }
}
