// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import FoundationEssentials
package import LinuxIO
internal import SystemPackage

/// LVM of this machine, through its program lvm(8).
package struct LVM: Sendable {
    private let program: String
    private(set) var isCancelled: @Sendable () -> Bool
    private let patience: Duration?

    /// Finds LVM; throws if it is not installed.
    ///
    /// - Parameters:
    ///   - isCancelled: polled during commands that change nothing.
    ///   - patience: timeout of each report; `nil` for none. A program that then does not even end
    ///     when it is killed is left behind, and later reports fail at once until it has ended.
    package init(
        program: String = "lvm", isCancelled: @escaping @Sendable () -> Bool = { false },
        patience: Duration? = nil
    ) throws(IOError) {
        guard let found = Program.findOfSystem(program) else {
            throw IOError(
                program, "start", reason: "it is not found on this machine",
                advice: "Install lvm2.")
        }
        self.program = found
        self.isCancelled = isCancelled
        self.patience = patience
    }

    /// A copy for commands that must also work after the run was cancelled.
    package var uninterrupted: LVM {
        var other = self
        other.isCancelled = { false }
        return other
    }

    /// Lists all volumes of all groups in no order, including those that only LVM itself uses.
    ///
    /// - Parameter name: a group, a volume or a path, to list only those; see lvm(8).
    package func volumes(_ name: String? = nil) throws(IOError) -> [LogicalVolume] {
        let all: [LogicalVolume] = try report(["lvs", "--all"], LogicalVolume.fields, of: name)
        // lvs prints a line for each segment of a volume, in their order.
        var seen: Set<VolumeIdentity> = []
        return all.filter { seen.insert($0.identity).inserted }
    }

    /// Whether a volume exists, active or not.
    package func hasVolume(_ name: VolumeName) throws(IOError) -> Bool {
        try names().contains { $0["vg_name"] == name.group && $0["lv_name"] == name.volume }
    }

    /// Finds the origin of each snapshot.
    package func origins() throws(IOError) -> [VolumeIdentity: VolumeName] {
        var origins: [VolumeIdentity: VolumeName] = [:]
        for row in try names() {
            guard let groupUUID = row["vg_uuid"], let uuid = row["lv_uuid"],
                let group = row["vg_name"], let origin = row["origin"], !origin.isEmpty
            else { continue }
            origins[VolumeIdentity(groupUUID: groupUUID, uuid: uuid)] = VolumeName(
                group: group, volume: LogicalVolume.withoutBrackets(origin))
        }
        return origins
    }

    /// Reports what LVM knows without asking the kernel about each volume.
    private func names() throws(IOError) -> [[String: String]] {
        try report(["lvs"], ["vg_uuid", "lv_uuid", "vg_name", "lv_name", "origin"])
    }

    /// Finds a volume by `group/volume` or by the path of its device file.
    package func volume(_ name: String) throws(IOError) -> LogicalVolume {
        let found: [LogicalVolume]
        do throws(IOError) { found = try volumes(name) } catch {
            throw IOError(name, "find volume", reason: error.reason, advice: error.advice)
        }
        // The name of a group matches all of its volumes, but it names no volume.
        guard let volume = found.first(where: { $0.names.contains(name) }) else {
            throw IOError(name, "find volume", reason: "it is no logical volume")
        }
        return volume
    }

    /// Finds a volume by its UUID, even after a rename; an error calls it `name`.
    package func volume(
        _ identity: VolumeIdentity, as name: String
    ) throws(IOError) -> LogicalVolume {
        guard let found = try volumes().first(where: { $0.identity == identity }) else {
            throw IOError(name, "find volume", reason: "LVM does not know it")
        }
        return found
    }

    /// Finds a snapshot of a volume, or of that volume's origin.
    ///
    /// - Parameter name: its name alone, `group/volume`, or the path of its device file.
    package func snapshot(_ name: String, of volume: LogicalVolume) throws(IOError) -> LogicalVolume
    {
        let full = name.contains("/") ? name : "\(volume.group)/\(name)"
        let found = try self.volume(full)
        guard let origin = found.originUUID, found.groupUUID == volume.groupUUID,
            [volume.uuid, volume.originUUID].contains(origin)
        else {
            throw IOError(
                full, "find snapshot", reason: "it is no snapshot of \(volume.fullName)",
                advice: "lvs -o+origin shows the origin of each snapshot.")
        }
        return found
    }

    /// Runs a command that changes something; blkferry never interrupts it.
    package func change(_ command: String, _ arguments: [String]) throws(IOError) {
        _ = try run([command, "--quiet", "--quiet", "--yes"] + arguments, isCancelled: { false })
    }

    /// Runs lvs(8) or vgs(8), until it is cancelled or times out, and decodes the rows it prints.
    ///
    /// The options fix the form whatever lvm.conf(5) says.
    ///
    /// - Parameter name: what to list; everything if `nil`.
    func report<Row: Decodable>(
        _ command: [String], _ fields: [String], of name: String? = nil
    ) throws(IOError) -> [Row] {
        // The timeout starts with each report, because a long run asks again at its end.
        let end = patience.map { ContinuousClock.now + $0 }
        if end != nil && ProgramRun.hasLeftBehind(program) { throw Self.noAnswer(command[0]) }
        let options = [
            "--config",
            "log { command_names=0 prefix=\"\" } "
                + "report { prefixes=0 list_item_separator=\",\" mark_hidden_devices=1 "
                + "compact_output=0 }",
            "--reportformat", "json", "--units", "b", "--nosuffix", "--options",
            fields.joined(separator: ","),
        ]
        let run = try run(
            command + options + (name.map { [$0] } ?? []), mayBeLeftBehind: end != nil
        ) {
            isCancelled() || end.map { ContinuousClock.now > $0 } ?? false
        }
        let kind = String(command[0].dropLast())
        guard let report = try? JSONDecoder().decode(Report<Row>.self, from: Data(run.bytes)),
            report.report.allSatisfy({ $0[kind] != nil })
        else { throw Self.unreadable(command[0]) }
        return report.report.flatMap { $0[kind] ?? [] }
    }

    static func unreadable(_ command: String) -> IOError {
        var error = IOError(command, "report", reason: "what it prints cannot be understood")
        error.kind = .noAnswer
        return error
    }

    private static func noAnswer(_ command: String) -> IOError {
        var error = IOError(
            command, "run", reason: "timed out waiting for LVM",
            advice: "Another program may hold LVM's lock: ps -C lvm shows such programs.")
        error.kind = .noAnswer
        return error
    }

    private func run(
        _ arguments: [String], mayBeLeftBehind: Bool = false, isCancelled: () -> Bool
    ) throws(IOError) -> ProgramRun {
        let command = arguments[0]
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                program, arguments, reading: .wholeOutput(limit: Self.limit),
                mayBeLeftBehind: mayBeLeftBehind, unless: isCancelled)
        } catch {
            throw IOError(command, "start", error)
        }
        guard let failure = run.failure else { return run }
        if isCancelled() { throw Self.noAnswer(command) }
        // Warnings come first. The last lines show the usage, or that the command failed.
        let words = run.errorLines.map { $0.drop { $0 == " " } }
            .last { !$0.hasPrefix("Run `") && !$0.hasPrefix("Cannot process ") }
        throw IOError(command, "run", reason: words.map(String.init) ?? failure)
    }

    /// Limit of a report in bytes; a volume takes about 1000.
    private static let limit = 64 << 20
}

/// The report of lvs(8) or vgs(8), which has its rows under `lv` or `vg`.
private struct Report<Row: Decodable>: Decodable {
    var report: [[String: [Row]]]
}
