// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe
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
    ///   - patience: timeout of each report; `nil` for none.
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
        let fields = LogicalVolume.fields.joined(separator: ",")
        let run = try report(
            ["lvs", "--all"] + Self.reporting + [fields] + (name.map { [$0] } ?? []))
        guard let report = try? JSONDecoder().decode(Report.self, from: Data(run.bytes)) else {
            throw IOError("lvs", "report", reason: "what it prints cannot be understood")
        }
        // lvs prints a line for each segment of a volume, in their order.
        var seen: Set<VolumeIdentity> = []
        return report.report.flatMap(\.lv).filter { seen.insert($0.identity).inserted }
    }

    /// The options that fix the form of lvs(8) and vgs(8) whatever lvm.conf(5) says; field names
    /// follow.
    static let reporting = [
        "--config",
        "report { prefixes=0 list_item_separator=\",\" mark_hidden_devices=1 compact_output=0 }",
        "--reportformat", "json", "--units", "b", "--nosuffix", "--options",
    ]

    private struct Report: Decodable {
        struct Part: Decodable { var lv: [LogicalVolume] }
        var report: [Part]
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

    /// Runs a command that changes nothing, until it is cancelled or times out.
    func report(_ arguments: [String]) throws(IOError) -> ProgramRun {
        // The timeout starts with each report, because a long run asks again at its end.
        let end = patience.map { ContinuousClock.now + $0 }
        return try run(arguments) {
            isCancelled() || end.map { ContinuousClock.now > $0 } ?? false
        }
    }

    private func run(
        _ arguments: [String], isCancelled: () -> Bool
    ) throws(IOError) -> ProgramRun {
        let command = arguments[0]
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                program, arguments, reading: .wholeOutput(limit: Self.limit), unless: isCancelled)
        } catch {
            throw IOError(command, "start", error)
        }
        guard let failure = run.failure else { return run }
        if isCancelled() {
            throw IOError(
                command, "run", reason: "timed out waiting for LVM",
                advice: "Another program may hold LVM's lock: ps -C lvm shows such programs.")
        }
        // Warnings come first. The last lines show the usage, or that the command failed.
        let words = run.errorLines.map { $0.drop { $0 == " " } }
            .last { !$0.hasPrefix("Run `") && !$0.hasPrefix("Cannot process ") }
        throw IOError(command, "run", reason: words.map(String.init) ?? failure)
    }

    /// Limit of a report in bytes; a volume takes about 1000.
    private static let limit = 64 << 20
}
