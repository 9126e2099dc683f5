// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe
internal import FoundationEssentials
package import LinuxIO
internal import SystemPackage

/// LVM of this machine, through its own program; see lvm(8).
package struct LVM: Sendable {
    private let program: String
    private(set) var isCancelled: @Sendable () -> Bool
    private let patience: Duration?

    /// Finds LVM.
    ///
    /// - Parameters:
    ///   - program: what to start.
    ///   - isCancelled: asked now and then while a program runs that may be ended.
    ///   - patience: how long each report may take; `nil` for as long as it takes.
    /// - Throws: where LVM is not installed.
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

    /// The same, for what has to be known also when the run is over.
    package var uninterrupted: LVM {
        var other = self
        other.isCancelled = { false }
        return other
    }

    /// All volumes of all groups, those included that only LVM itself uses.
    ///
    /// - Parameter name: of a group or volume, or its path, to ask for no others; see lvm(8).
    /// - Returns: them, in no order.
    /// - Throws: what LVM says.
    package func volumes(_ name: String? = nil) throws(IOError) -> [LogicalVolume] {
        let fields = LogicalVolume.fields.joined(separator: ",")
        let run = try report(
            ["lvs", "--all"] + Self.reporting + [fields] + (name.map { [$0] } ?? []))
        guard let report = try? JSONDecoder().decode(Report.self, from: Data(run.bytes)) else {
            throw IOError("lvs", "report", reason: "what it prints cannot be understood")
        }
        // There is a line for each segment of a volume, in their order.
        var seen: Set<VolumeIdentity> = []
        return report.report.flatMap(\.lv).filter { seen.insert($0.identity).inserted }
    }

    /// Has lvs(8) and vgs(8) report in one form, whatever lvm.conf(5) says; names of fields follow.
    static let reporting = [
        "--config",
        "report { prefixes=0 list_item_separator=\",\" mark_hidden_devices=1 compact_output=0 }",
        "--reportformat", "json", "--units", "b", "--nosuffix", "--options",
    ]

    private struct Report: Decodable {
        struct Part: Decodable { var lv: [LogicalVolume] }
        var report: [Part]
    }

    /// Finds a volume.
    ///
    /// - Parameter name: `group/volume`, or the path of its device file.
    /// - Returns: the volume.
    /// - Throws: where there is none.
    package func volume(_ name: String) throws(IOError) -> LogicalVolume {
        let found: [LogicalVolume]
        do throws(IOError) { found = try volumes(name) } catch {
            throw IOError(name, "find volume", reason: error.reason, advice: error.advice)
        }
        // A group's name, which stands for all that is in it, is no volume's.
        guard let volume = found.first(where: { $0.names.contains(name) }) else {
            throw IOError(name, "find volume", reason: "it is no logical volume")
        }
        return volume
    }

    /// Finds a volume, under whatever name.
    ///
    /// - Parameters:
    ///   - identity: which one.
    ///   - name: what to call it where it is not there.
    /// - Returns: the volume.
    /// - Throws: where there is none.
    package func volume(
        _ identity: VolumeIdentity, as name: String
    ) throws(IOError) -> LogicalVolume {
        guard let found = try volumes().first(where: { $0.identity == identity }) else {
            throw IOError(name, "find volume", reason: "LVM does not know it")
        }
        return found
    }

    /// Finds a snapshot of a volume, or of the volume that that is a snapshot of.
    ///
    /// - Parameters:
    ///   - name: its name alone, `group/volume`, or the path of its device file.
    ///   - volume: of what.
    /// - Returns: the snapshot.
    /// - Throws: where there is none.
    package func snapshot(_ name: String, of volume: LogicalVolume) throws(IOError) -> LogicalVolume
    {
        let full = name.contains("/") ? name : "\(volume.group)/\(name)"
        let found = try self.volume(full)
        guard let origin = found.originUUID, found.groupUUID == volume.groupUUID,
            [volume.uuid, volume.originUUID].contains(origin)
        else {
            throw IOError(
                full, "find snapshot", reason: "it is no snapshot of \(volume.fullName)",
                advice: "lvs -o+origin shows whose snapshots there are.")
        }
        return found
    }

    /// Changes something; LVM is never ended in the middle of it.
    ///
    /// - Parameters:
    ///   - command: `lvcreate` and so on.
    ///   - arguments: its arguments.
    /// - Throws: what LVM says.
    package func change(_ command: String, _ arguments: [String]) throws(IOError) {
        _ = try run([command, "--quiet", "--quiet", "--yes"] + arguments, isOver: { false })
    }

    /// Runs a command that changes nothing, as long as it is wanted.
    ///
    /// - Throws: what LVM says.
    func report(_ arguments: [String]) throws(IOError) -> ProgramRun {
        // Counted from here: a volume is asked about again when a long run has ended.
        let end = patience.map { ContinuousClock.now + $0 }
        return try run(arguments) {
            isCancelled() || end.map { ContinuousClock.now > $0 } ?? false
        }
    }

    /// Runs a command to its end, unless it is over before.
    ///
    /// - Throws: what LVM says.
    private func run(
        _ arguments: [String], isOver: () -> Bool
    ) throws(IOError) -> ProgramRun {
        let command = arguments[0]
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                program, arguments, reading: .wholeOutput(limit: Self.limit), unless: isOver)
        } catch {
            throw IOError(command, "start", error)
        }
        guard let failure = run.failure else { return run }
        if isOver() {
            throw IOError(
                command, "run", reason: "it was not waited for any longer",
                advice: "Another program may hold LVM's lock: ps -C lvm shows them.")
        }
        // Warnings come first, and how the command is used, or that it has failed, at the end.
        let words = run.errorLines.map { $0.drop { $0 == " " } }
            .last { !$0.hasPrefix("Run `") && !$0.hasPrefix("Cannot process ") }
        throw IOError(command, "run", reason: words.map(String.init) ?? failure)
    }

    /// Bytes of a report that are read at most; a volume takes about 1000.
    private static let limit = 64 << 20
}
