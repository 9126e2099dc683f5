// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

/// A disk that does not answer, beside others that do.
@Suite(
    .enabled(if: SilentDisk.isPossible, "needs root, FUSE and qemu-storage-daemon"), .blocking,
    .silentDisk, .serialized, .timeLimit(.minutes(60)))
struct SilentDiskTests {
    private let scratch: ScratchDirectory
    private let silent: SilentDisk
    /// Answers, and holds an ext4.
    private let disk: LoopDevice
    private let uuid = UUID().uuidString.lowercased()
    private let image: String

    init() throws {
        scratch = try ScratchDirectory()
        // The first one usually gets the lower number, and comes first in a list.
        disk = try LoopDevice(size: 8 << 20)
        silent = try SilentDisk()
        try must("mkfs.ext4", "-q", "-U", uuid, disk.path)
        image = scratch.file("image")
        try must("cp", disk.backingFile, image)
    }

    /// Whether a program has the silent disk open.
    private func hasOpen(_ program: RunningProgram) -> Bool {
        let files = "/proc/\(program.processID)/fd"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: files)) ?? []
        return names.contains {
            let path = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(files)/\($0)")
            return path == silent.path
        }
    }

    /// Whether the first thread of a program has this state of proc_pid_stat(5).
    private func isInState(_ state: Character, _ program: RunningProgram) -> Bool {
        let status = "/proc/\(program.processID)/stat"
        return (try? String(contentsOfFile: status, encoding: .utf8))?.contains(") \(state) ")
            == true
    }

    /// Whether a program waits for the silent disk, and not for the file of its own code.
    private func isReading(_ program: RunningProgram) -> Bool {
        hasOpen(program) && isInState("D", program)
    }

    @Test func `list shows a silent disk, and all others`() throws {
        let result = try blkferry("list")
        #expect(result.status == 0, "\(result)")
        let lines = result.output.split(separator: "\n")
        let late = try #require(lines.first { $0.hasPrefix(silent.path + " ") })
        #expect(late.hasSuffix("  does not answer"))
        let other = try #require(lines.first { $0.hasPrefix(disk.path + " ") })
        #expect(other.contains(uuid))
        #expect(result.errors.contains("warning: \(silent.path): does not answer\n"))

        let (second, json) = try blkferryJSON("list")
        #expect(second.status == 0)
        let record = json.records("devices")?.first { $0.string("path") == silent.path }
        #expect(record?.string("unreadable") == "does not answer")
    }

    @Test func `list prints the lines before a silent disk while it waits for that disk`() throws {
        let list = try RunningProgram([program, "list"])
        var early = ""
        while list.isRunning {
            let output = try list.outputSoFar()
            if output.contains("\n\(silent.path) ") { break }
            early = output
            usleep(5_000)
        }
        let result = try list.wait()
        #expect(result.status == 0, "\(result)")
        #expect(early.hasPrefix("DEVICE ") && result.output.hasPrefix(early), "\(early)")
        let lines = result.output.split(separator: "\n")
        let late = try #require(lines.firstIndex { $0.hasPrefix(silent.path + " ") })
        // A parallel test may have freed a lower number for the silent disk.
        if let line = lines[..<late].first(where: { $0.hasPrefix(disk.path + " ") }) {
            #expect(early.split(separator: "\n").contains(line), "\(early)")
        }
    }

    @Test func `a tag finds a source beside a silent disk, and no target`() throws {
        let compared = try blkferry("verify", "UUID=\(uuid)", image)
        #expect(compared.status == 0, "\(compared)")
        #expect(compared.errors.contains("\(silent.path) does not answer, and may have it as well"))

        let written = try blkferry("sync", image, "UUID=\(uuid)")
        #expect(written.status == 2, "\(written)")
        #expect(
            written.errors.contains(
                "refused: \(disk.path) has it, and \(silent.path), which does not answer, may have "
                    + "it as well"))
        let named = try blkferry("sync", image, disk.path)
        #expect(named.status == 0, "\(named)")

        let missing = try blkferry("verify", "LABEL=nothing-has-this", image)
        #expect(missing.status == 3)
        #expect(missing.errors.contains("\(silent.path) does not answer"))
    }

    /// LVM reads every device.
    @Test(.enabled(if: access("/usr/sbin/lvm", X_OK) == 0, "needs LVM"))
    func `a path that may be a logical volume is refused, and a path with a dot is a file`() throws
    {
        let directory = URL(fileURLWithPath: image).deletingLastPathComponent().path
        func inDirectory(_ words: String...) throws -> ProgramResult {
            try RunningProgram(["sh", "-c", "cd $0 && exec \"$@\"", directory, program] + words)
                .wait()
        }
        try must("mkdir", scratch.file("images"))
        let name = "images/new"
        for exists in [false, true] {
            if exists {
                let plain = try inDirectory("-q", image, "./\(name)")
                #expect(plain.status == 0, "\(plain)")
                let source = try inDirectory("-q", name, "other")
                #expect(source.status == 2, "\(source)")
            }
            let refused = try inDirectory("-q", image, name)
            #expect(refused.status == 2, "\(refused)")
            #expect(
                refused.errors.contains(
                    "\(name): refused: LVM does not answer whether it is a logical volume\n"
                        + "  For the file write ./\(name).\n"), "\(refused)")
        }
    }

    @Test func `a signal ends the program while it waits for a silent disk`() throws {
        let program = try RunningProgram([program, "list"])
        while try program.isRunning && !program.outputSoFar().contains("DEVICE") { usleep(10_000) }
        program.signal(SIGTERM)
        #expect(try program.wait().status == 130)
    }

    @Test func `a signal ends a search for a tag while a silent disk may have it`() throws {
        let verify = try RunningProgram([program, "verify", "UUID=\(uuid)", image])
        var isOpen = false
        while verify.isRunning, !isOpen {
            isOpen = hasOpen(verify)
            usleep(5_000)
        }
        #expect(isOpen)
        verify.signal(SIGTERM)
        // The kernel keeps a process until its last thread no longer waits for the disk.
        #expect(becomesTrue(within: 30) { isInState("Z", verify) })
        silent.end()
        let result = try verify.wait()
        #expect(result.status == 130, "\(result)")
    }

    @Test func `the program ends though nothing can open the silent disk`() throws {
        // The last close waits for the page, and keeps everything waiting that opens the disk.
        let reader = try RunningProgram(["dd", "if=\(silent.path)", "of=/dev/null", "count=1"])
        while reader.isRunning, !isReading(reader) { usleep(10_000) }
        reader.signal(SIGKILL)
        // Opened before that close begins, the disk would not wait.
        let files = "/proc/\(reader.processID)/fd"
        while (try? FileManager.default.contentsOfDirectory(atPath: files))?.isEmpty == false {
            usleep(10_000)
        }
        usleep(100_000)
        let opener = try RunningProgram(["dd", "if=\(silent.path)", "of=/dev/null", "count=0"])
        let list = try blkferry("list")
        #expect(list.status == 0, "\(list)")
        #expect(list.errors.contains("warning: \(silent.path): does not answer\n"))
        // What waits for the disk itself still waits.
        #expect(opener.isRunning)
        silent.end()
    }

    @Test func `an image that no silent loop device can be on is a target while it is open`()
        throws
    {
        let reader = try RunningProgram(
            ["dd", "if=\(silent.path)", "of=/dev/null", "count=1", "iflag=direct"])
        while reader.isRunning, !isReading(reader) { usleep(10_000) }
        #expect(reader.isRunning)
        // FUSE caches attributes for a second.
        usleep(1_500_000)
        let copy = scratch.file("copy")
        let result = try run("sh", "-c", "exec 7<>\(copy); \(program) -q \(image) \(copy)")
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(copy, image))
        silent.end()
    }

    @Test func `a server of all devices serves the others beside a silent disk`() throws {
        let server = try ServeProcess(options: ["--export-all"])
        let copy = scratch.file("copy")
        for selector in [disk.path, "UUID=\(uuid)"] {
            let pull = try blkferry("-q", "--overwrite", server.url(selector), copy)
            #expect(pull.status == 0, "\(pull)")
            #expect(try areEqual(copy, image))
        }
        let list = try blkferry("list", server.url("/"))
        #expect(list.status == 0, "\(list)")
        let late = list.output.split(separator: "\n").first { $0.contains(silent.path + " ") }
        #expect(late?.hasSuffix("does not answer") == true)
    }
}
