// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import SystemPackage

/// The device mapper as dmsetup(8) shows it, and the programs for thin pools.
package struct DeviceMapper: Sendable {
    /// A name to look up, or a path.
    package var dmsetup: String
    package var thinDelta: String
    package var thinDump: String
    package var directory: String

    package init(
        dmsetup: String = "dmsetup", thinDelta: String = "thin_delta",
        thinDump: String = "thin_dump", directory: String = "/dev/mapper"
    ) {
        self.dmsetup = dmsetup
        self.thinDelta = thinDelta
        self.thinDump = thinDump
        self.directory = directory
    }

    /// The only target of a device's table.
    struct Target: Hashable {
        /// Bytes.
        var size: Int
        var type: String
        /// The words after the type.
        var words: [String]
    }

    /// Reads a device's `table` or `status`; throws also if the device does not have exactly one
    /// target.
    func target(
        _ question: String, of device: String, unless isCancelled: () -> Bool
    ) throws(IOError) -> Target {
        let run = try run(
            dmsetup, [question, device], for: device, limit: 64 << 10, unless: isCancelled)
        let lines = run.lines
        let words = lines.first?.split(separator: " ").map(String.init) ?? []
        guard lines.count == 1, words.count >= 3, words[0] == "0", let sectors = Int(words[1]),
            (1...Int.max / 512).contains(sectors)
        else {
            throw .noChangeMap(device, "the output of dmsetup \(question) cannot be parsed")
        }
        return Target(size: sectors * 512, type: words[2], words: Array(words[3...]))
    }

    /// Reads how many bytes a thin volume with a device mapper name has mapped; `nil` if unknown,
    /// such as for an inactive one.
    ///
    /// Source: `thin_status` in drivers/md/dm-thin.c: sectors of the mapped chunks, and the last
    /// mapped sector.
    func mappedBytes(of volume: String) -> Int? {
        guard let target = try? target("status", of: volume, unless: { false }),
            target.type == "thin", let sectors = target.words.first.flatMap({ Int($0) }),
            (0...Int.max / 512).contains(sectors)
        else { return nil }
        return sectors * 512
    }

    /// What the lock's file records after a message.
    enum Note: String {
        /// The device's status, as dmsetup(8) prints it.
        case status = "\"$1\" status \"$0\" >&0"
        /// An empty file.
        case nothing = ": >/proc/self/fd/0"
    }

    /// Sends a message to a device, and records the result in a file.
    ///
    /// A shell of its own does both, with the file open. The shell finishes even if this process is
    /// killed in between, also by a signal to all processes of its service. It keeps the file's
    /// lock (flock(2)) until then.
    ///
    /// - Parameters:
    ///   - note: what the shell records.
    ///   - undo: the message that the shell sends if it cannot record; `nil` for none.
    ///   - file: open for writing; an empty file, or one that `note` empties.
    /// - Throws: if the kernel refuses the message, which leaves the file as it was, or if the
    ///   shell cannot record.
    func send(
        _ message: String, to device: String, noting note: Note, orElse undo: String? = nil,
        in file: Int32
    ) throws(IOError) {
        guard let dmsetup = Self.find(dmsetup) else { throw notFound(dmsetup, for: device) }
        func sending(_ message: String) -> String { "\"$1\" message \"$0\" 0 \(message)" }
        let instead = undo.map { " || { \(sending($0)); false; }" } ?? ""
        // Programs that the shell starts inherit the ignored signals.
        let script = "trap '' HUP INT TERM; \(sending(message)) && { \(note.rawValue)\(instead); }"
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                "/bin/sh", ["-c", script, device, dmsetup],
                reading: .wholeOutput(limit: 64 << 10), input: file
            ) { false }
        } catch {
            throw .noChangeMap(device, "/bin/sh: start: \(error)")
        }
        try check(run, "dmsetup message", for: device)
    }

    /// Runs a program to its end; throws also if its exit status is not 0.
    ///
    /// - Parameter limit: bytes of output at most.
    func run(
        _ program: String, _ arguments: [String], for object: String, limit: Int,
        unless isCancelled: () -> Bool
    ) throws(IOError) -> ProgramRun {
        guard let path = Self.find(program) else { throw notFound(program, for: object) }
        if isCancelled() { throw .cancelled(object) }
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                path, arguments, reading: .wholeOutput(limit: limit), unless: isCancelled)
        } catch {
            throw .noChangeMap(object, "\(path): start: \(error)")
        }
        if run.failure != nil && isCancelled() { throw .cancelled(object) }
        let name = path.split(separator: "/").last ?? ""
        try check(run, ([String(name)] + arguments.prefix(1)).joined(separator: " "), for: object)
        return run
    }

    private func check(
        _ run: ProgramRun, _ words: String, for object: String
    ) throws(IOError) {
        guard let failure = run.failure else { return }
        // Later lines only show the usage, or that a command failed.
        let reason = run.errorLines.first.map { ": \($0)" } ?? ""
        throw .noChangeMap(object, "\(words): \(failure)\(reason)")
    }

    private func notFound(_ program: String, for object: String) -> IOError {
        .noChangeMap(object, "\(program) is not found on this machine")
    }

    /// Finds a program; the PATH of sudo and cron may lack the directories of the superuser's
    /// programs.
    private static func find(_ program: String) -> String? {
        Program.find(program)
            ?? ["/usr/sbin", "/sbin"].lazy
            .compactMap { Program.find("\($0)/\(program)") }.first
    }
}
