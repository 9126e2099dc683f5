// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import TestSupport
import Testing

/// Priorities of lines in systemd's journal.
@Suite(.blocking, .timeLimit(.minutes(60))) struct JournalTests {
    private let scratch: ScratchDirectory
    private let image: String

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.filledFile("image", size: 1 << 20, seed: 3)
    }

    /// What a program writes to a socket that is its standard error, up to a text or to its end.
    ///
    /// - Parameter offset: added to the number of the socket in JOURNAL_STREAM.
    private func log(
        _ arguments: String..., until text: String, offset: UInt64 = 0
    ) throws -> [Substring] {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        try #require(socketpair(AF_UNIX, kind, 0, &ends) == 0)
        defer { for end in ends { close(end) } }
        var status = stat()
        try #require(fstat(ends[1], &status) == 0)
        let process = try RunningProgram(
            [program] + arguments,
            environment: ["JOURNAL_STREAM": "\(status.st_dev):\(UInt64(status.st_ino) + offset)"],
            errors: ends[1])
        var log = ""
        while !log.contains(text) {
            var bytes = [UInt8](repeating: 0, count: 4096)
            let count = recv(ends[0], &bytes, bytes.count, Int32(MSG_DONTWAIT))
            if count > 0 {
                log += String(decoding: bytes.prefix(count), as: UTF8.self)
            } else if process.isRunning {
                usleep(5_000)
            } else {
                break
            }
        }
        return log.split(separator: "\n")
    }

    @Test func `lines of the log have their priority, and no time of their own`() throws {
        let lines = try log(
            "serve", "-v", "--listen", "0.0.0.0:0", "--insecure", "--export", image,
            until: "listening\n")
        let warning = "<4>blkferry: address=0.0.0.0:0 [Commands] listening without any protection"
        #expect(lines.contains { $0 == warning }, "\(lines)")
        let listening = lines.last ?? ""
        #expect(listening.hasPrefix("<6>blkferry: address=0.0.0.0:"), "\(lines)")
        #expect(listening.hasSuffix(" exports=1 [Commands] listening"), "\(lines)")
        #expect(lines.allSatisfy { $0.hasPrefix("<") }, "\(lines)")
    }

    @Test func `errors and their advice have a priority in every command`() throws {
        let lines = try log("serve", until: "--export-all.\n")
        #expect(lines.first == "<3>blkferry: nothing is exported", "\(lines)")
        #expect(lines.last?.hasPrefix("<3>  ") == true, "\(lines)")
        let missing = try log("verify", image, scratch.file("none"), until: "No such file")
        #expect(missing.first?.hasPrefix("<3>blkferry: ") == true, "\(missing)")
    }

    @Test func `another stream than the journal's has no priorities`() throws {
        let lines = try log(
            "serve", "--listen", "127.0.0.1:0", "--export", image, until: "listening\n", offset: 1)
        #expect(lines.last?.contains(" info blkferry: address=127.0.0.1:") == true, "\(lines)")
    }
}
