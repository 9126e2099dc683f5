// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import Glibc
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@Suite(.blocking, .timeLimit(.minutes(60))) struct DeviceMapperTests {
    private let scratch: ScratchDirectory
    private let mapper: DeviceMapper

    init() throws {
        scratch = try ScratchDirectory()
        mapper = .scripted(in: scratch.path)
    }

    private func put(_ name: String, _ text: String) {
        _ = FileManager.default.createFile(
            atPath: scratch.file(name), contents: Data((text + "\n").utf8))
    }

    private func text(_ name: String) -> String {
        (try? String(contentsOfFile: scratch.file(name), encoding: .utf8)) ?? ""
    }

    private func failure(
        _ question: DeviceMapper.Question, of name: String = "vg-lv"
    ) -> IOError? {
        #expect(throws: IOError.self) { try mapper.answer(question, of: name) }
    }

    @Test func `a device has a table and a status`() throws {
        put("table", "0 100 linear 252:0 2048\n100 50 thin-pool 252:1 252:2 128 0 0")
        put("status", "0 100 linear")
        let table = try mapper.answer(.table, of: "vg-lv").targets
        #expect(
            table == [
                .init(type: "linear", parameters: "252:0 2048", size: 100 << 9),
                .init(type: "thin-pool", parameters: "252:1 252:2 128 0 0", size: 50 << 9),
            ])
        let status = try mapper.answer(.status, of: "vg-lv").targets
        #expect(status == [.init(type: "linear", parameters: "", size: 100 << 9)])
        #expect(text("asked") == "vg-lv\n")
    }

    @Test func `a long table is read whole, and one beyond the limit not at all`() throws {
        func put(lines: Int) {
            self.put(
                "table",
                (0..<lines).map { "\($0 * 8) 8 linear 252:0 \($0)" }.joined(separator: "\n"))
        }
        put(lines: 1000)
        let table = try mapper.answer(.table, of: "vg-lv").targets
        #expect(table.count == 1000 && table.last?.parameters == "252:0 999")
        put(lines: 10_000)
        #expect(failure(.table)?.errno == .messageTooLong)
    }

    @Test func `the error for an unknown device names the control file and the question`() {
        #expect(
            failure(.status)?.description
                == "\(scratch.file("control")): status: No such device or address")
        #expect(failure(.table)?.operation == "table")
    }

    @Test func `a device without a table is an error`() {
        put("table", "")
        #expect(failure(.table)?.reason == "it cannot be parsed")
    }

    @Test func `a name that is too long is not cut`() {
        put("table", "0 100 linear 252:0 2048")
        #expect(throws: Never.self) {
            try mapper.answer(.table, of: String(repeating: "n", count: 127))
        }
        let name = String(repeating: "n", count: 128)
        #expect(failure(.table, of: name)?.errno == .fileNameTooLong)
    }

    @Test func `a kernel without a device mapper is an error that names the control file`() throws {
        let directory = scratch.file("none")
        let error = #expect(throws: IOError.self) {
            try DeviceMapper(directory: directory).answer(.table, of: "vg-lv")
        }
        #expect(error?.description == "\(directory)/control: open: No such file or directory")
        let file = try OwnedDescriptor.open(scratch.file("file"), flags: O_RDWR | O_CREAT)
        let refusal = #expect(throws: IOError.self) {
            try DeviceMapper(directory: directory).send(
                "release_metadata_snap", to: "vg-lv", orElse: nil, recordIn: file.rawValue)
        }
        #expect(refusal?.errno == .noSuchFileOrDirectory)
    }

    // MARK: Messages

    private func send(_ message: String, orElse undo: String?) throws {
        let file = try OwnedDescriptor.open(scratch.file("file"), flags: O_RDWR | O_CREAT)
        try mapper.send(message, to: "vg-lv", orElse: undo, recordIn: file.rawValue)
    }

    private func reserve() throws {
        try send("reserve_metadata_snap", orElse: "release_metadata_snap")
    }

    @Test func `a message's result is recorded in its file`() throws {
        put("held", "-")
        put("mode", "rw")
        try reserve()
        #expect(text("messages") == "reserve_metadata_snap\n" && text("name") == "vg-lv\n")
        #expect(
            text("file") == "3 140/1024 512/3200 77 rw discard_passdown queue_if_no_space - 1024\n")
        try send("release_metadata_snap", orElse: nil)
        #expect(text("file") == "" && text("held") == "-\n")
    }

    @Test func `a message that the kernel refuses leaves its file as it was`() throws {
        put("held", "12")
        put("file", "before")
        #expect {
            try reserve()
        } throws: {
            "\($0)".hasSuffix("message reserve_metadata_snap: Device or resource busy")
        }
        #expect(text("file") == "before\n" && text("messages") == "reserve_metadata_snap\n")
    }

    @Test func `a message that cannot be recorded is undone`() throws {
        put("held", "-")
        put("no-more", "")
        #expect {
            try reserve()
        } throws: {
            "\($0)".hasSuffix("message reserve_metadata_snap: Input/output error")
        }
        #expect(text("messages") == "reserve_metadata_snap\nrelease_metadata_snap\n")
        #expect(text("held") == "-\n" && text("file") == "")
        try? FileManager.default.removeItem(atPath: scratch.file("no-more"))
        let full = try OwnedDescriptor.open("/dev/full", flags: O_RDWR)
        let error = #expect(throws: IOError.self) {
            try mapper.send(
                "reserve_metadata_snap", to: "vg-lv", orElse: "release_metadata_snap",
                recordIn: full.rawValue)
        }
        #expect(error?.errno == .noSpace && text("held") == "-\n")
    }

    @Test func `a message that was begun is finished in spite of signals, and keeps the lock`()
        throws
    {
        put("held", "-")
        put("slow-message", "")
        let file = try OwnedDescriptor.open(scratch.file("file"), flags: O_RDWR | O_CREAT)
        let descriptor = file.rawValue
        #expect(flock(descriptor, LOCK_EX) == 0)
        let threads = Threads.start(count: 1) { _ in
            unblockSignals()
            try? mapper.send(
                "reserve_metadata_snap", to: "vg-lv", orElse: "release_metadata_snap",
                recordIn: descriptor)
        }
        while text("messages").isEmpty { usleep(1000) }
        let process = try #require(pid_t(text("process").dropLast()))
        #expect(process != getpid() && getsid(process) == process)
        for signal in [SIGHUP, SIGINT, SIGTERM] { #expect(kill(process, signal) == 0) }
        // As if this process was killed, which closes its descriptors.
        _ = consume file
        let other = try OwnedDescriptor.open(scratch.file("file"), flags: O_RDWR)
        #expect(flock(other.rawValue, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK)
        try FileManager.default.removeItem(atPath: scratch.file("slow-message"))
        #expect(flock(other.rawValue, LOCK_EX) == 0)
        #expect(text("file").hasPrefix("3 140/1024 512/3200 77 "))
        threads.wait()
        #expect(text("held") == "77\n")
    }
}
