// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import SystemPackage

/// The device mapper, as dmsetup(8) shows it, and the programs that go with it.
package struct DeviceMapper: Sendable {
    /// dmsetup(8): a name that is looked up, or a path.
    package var dmsetup: String
    /// thin_delta(8), likewise.
    package var thinDelta: String
    /// Where the device files are.
    package var directory: String

    package init(
        dmsetup: String = "dmsetup", thinDelta: String = "thin_delta",
        directory: String = "/dev/mapper"
    ) {
        self.dmsetup = dmsetup
        self.thinDelta = thinDelta
        self.directory = directory
    }

    /// Builds what the device mapper calls a logical volume: `vg0-my--volume-tpool`.
    ///
    /// Source: `dm_build_dm_name` of libdevmapper. Hyphens within names are doubled.
    ///
    /// - Parameters:
    ///   - group: the volume group's name.
    ///   - volume: the logical volume's name.
    ///   - layer: of several devices that make up the volume the one that is meant.
    /// - Returns: the device's name.
    package static func name(group: String, volume: String, layer: String? = nil) -> String {
        ([group, volume].map(doublingHyphens) + (layer.map { [$0] } ?? [])).joined(separator: "-")
    }

    private static func doublingHyphens(_ name: String) -> String {
        name.split(separator: "-", omittingEmptySubsequences: false).joined(separator: "--")
    }

    /// The one target that a device consists of.
    struct Target: Hashable {
        /// Bytes.
        var size: Int
        var type: String
        /// What follows the type.
        var words: [String]
    }

    /// Asks for a device's table or status.
    ///
    /// - Parameters:
    ///   - question: `table` or `status`.
    ///   - device: its name.
    ///   - isOver: asked now and then.
    /// - Returns: the target, with its table or status.
    /// - Throws: also where the device is not of one target.
    func target(
        _ question: String, of device: String, unless isOver: () -> Bool
    ) throws(ChangeMapError) -> Target {
        let run = try run(
            dmsetup, [question, device], for: device, limit: 64 << 10, unless: isOver)
        let lines = run.lines
        let words = lines.first?.split(separator: " ").map(String.init) ?? []
        guard lines.count == 1, words.count >= 3, words[0] == "0", let sectors = Int(words[1]),
            (1...Int.max / 512).contains(sectors)
        else {
            throw ChangeMapError(device, "dmsetup \(question) tells nothing that is known")
        }
        return Target(size: sectors * 512, type: words[2], words: Array(words[3...]))
    }

    /// What a file is to say once a message was heard.
    enum Note: String {
        /// The device's status, as dmsetup(8) prints it.
        case status = "\"$1\" status \"$0\" >&0"
        /// Nothing.
        case nothing = ": >/proc/self/fd/0"
    }

    /// Sends a device a message, and has a file say so.
    ///
    /// Both are done by a program of its own, which has the file open: it goes on when this one is
    /// killed in between, also by a signal to all of its service's processes, and keeps a lock of the
    /// file (flock(2)) until it is done.
    ///
    /// - Parameters:
    ///   - message: what is sent.
    ///   - device: whom to.
    ///   - note: what the file is to say.
    ///   - undo: the message that is sent where the file cannot say so; `nil` for none.
    ///   - file: an empty file or one that is to be, open for writing.
    /// - Throws: where the kernel refuses it; the file says what it did then.
    func send(
        _ message: String, to device: String, noting note: Note, orElse undo: String? = nil,
        in file: Int32
    ) throws(ChangeMapError) {
        guard let dmsetup = Self.find(dmsetup) else { throw notFound(dmsetup, for: device) }
        func sending(_ message: String) -> String { "\"$1\" message \"$0\" 0 \(message)" }
        let instead = undo.map { " || { \(sending($0)); false; }" } ?? ""
        // What is ignored stays so in the programs that are started.
        let script = "trap '' HUP INT TERM; \(sending(message)) && { \(note.rawValue)\(instead); }"
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                "/bin/sh", ["-c", script, device, dmsetup],
                reading: .wholeOutput(limit: 64 << 10), input: file
            ) { false }
        } catch {
            throw ChangeMapError(device, "/bin/sh: start: \(error)")
        }
        try check(run, "dmsetup message", for: device)
    }

    /// Runs a program to its end.
    ///
    /// - Parameters:
    ///   - program: its name or path.
    ///   - arguments: without its name.
    ///   - object: what for.
    ///   - limit: bytes of output that are wanted at most.
    ///   - isOver: asked now and then.
    /// - Returns: the run.
    /// - Throws: where it does not end with 0.
    func run(
        _ program: String, _ arguments: [String], for object: String, limit: Int,
        unless isOver: () -> Bool
    ) throws(ChangeMapError) -> ProgramRun {
        guard let path = Self.find(program) else { throw notFound(program, for: object) }
        if isOver() { throw .cancelled(object) }
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                path, arguments, reading: .wholeOutput(limit: limit), unless: isOver)
        } catch {
            throw ChangeMapError(object, "\(path): start: \(error)")
        }
        if run.failure != nil && isOver() { throw .cancelled(object) }
        let name = path.split(separator: "/").last ?? ""
        try check(run, ([String(name)] + arguments.prefix(1)).joined(separator: " "), for: object)
        return run
    }

    private func check(
        _ run: ProgramRun, _ words: String, for object: String
    ) throws(ChangeMapError) {
        guard let failure = run.failure else { return }
        // What follows is how the program is used, or that a command has failed.
        let told = run.errorLines.first.map { ": \($0)" } ?? ""
        throw ChangeMapError(object, "\(words): \(failure)\(told)")
    }

    private func notFound(_ program: String, for object: String) -> ChangeMapError {
        ChangeMapError(object, "\(program) is not found on this machine")
    }

    /// These are the superuser's programs, which the PATH of sudo and cron may not lead to.
    private static func find(_ program: String) -> String? {
        Program.find(program)
            ?? ["/usr/sbin", "/sbin"].lazy
            .compactMap { Program.find("\($0)/\(program)") }.first
    }
}
