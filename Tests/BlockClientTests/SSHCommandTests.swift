// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import LinuxIO
import TestSupport
import Testing
import WireProtocol

@Suite(.blocking) struct ShellWordTests {
    @Test(
        arguments: [
            ("ssh", ["ssh"]), (" ssh\t-i  key ", ["ssh", "-i", "key"]),
            ("ssh -i 'my key'", ["ssh", "-i", "my key"]),
            (#"ssh -i "my key""#, ["ssh", "-i", "my key"]),
            (#"a'b c'"d e"f"#, ["ab cd ef"]), (#"a '' "" b"#, ["a", "", "", "b"]),
            (#"a\ b \'c \\"#, ["a b", "'c", #"\"#]),
            (#"a '\' "\n\"\\\$""#, ["a", #"\"#, #"\n"\$"#]),
            (#"a '$x;*' ~/b c#d"#, ["a", "$x;*", "~/b", "c#d"]), ("é 'ö ü'", ["é", "ö ü"]),
        ])
    func `a command is split as a shell splits it`(text: String, words: [String]) throws {
        #expect(try shellWords(text) == words)
        // A shell splits the words for comparison.
        let printed = try must("sh", "-c", "for word in \(text); do printf '%s|' \"$word\"; done")
        let expected = words.map { "\($0)|" }.joined()
        #expect(printed == expected || text.contains("~"), "\(printed)")
    }

    @Test(
        arguments: [
            "", "  ", "''", "ssh 'x", #"ssh "x"#, #"ssh x\"#, "ssh $HOME", "a `b`", "a; b", "a | b",
            "a & b", "a > b", "a < b", "(a)", "a *", "a ?", #"a "$b""#, #"a "`b`""#,
        ])
    func `a command that only a shell understands is refused`(text: String) {
        #expect(throws: WireError.self) { try shellWords(text) }
    }

    @Test(
        arguments: [
            "", "a", "a b", "it's", "''", "$HOME `id` \"x\" \\", "*?[", "~", "-n", "a\nb", "é",
            "'\u{301}", "; exit 1 #", "!x",
        ])
    func `a quoted word comes out of a shell as it went in`(word: String) throws {
        let printed = try must("sh", "-c", "printf '%s' \(shellQuoted(word))")
        #expect(printed == word)
        #expect(try shellWords("x \(shellQuoted(word))") == ["x", word])
    }
}

@Suite struct SSHCommandTests {
    private func command(_ text: String, isTarget: Bool = false) throws -> SSHCommand {
        guard case .remote(let location) = try Location(text) else { throw WireError("local") }
        var settings = SSHSettings()
        settings.isTarget = isTarget
        settings.command = ["ssh", "-F", "my file"]
        settings.remoteCommand = "sudo blkferry"
        return SSHCommand(location, settings, group: "abc")
    }

    @Test func `a path that may be a volume is exported with the right to create volumes`() throws {
        for (path, access) in [
            ("/dev/vg0/new", "rw,create"), ("/dev/vg0/new@pool", "rw,create"),
            ("/dev/sdb", "rw"), ("/UUID=x", "rw"),
            ("/srv/images/new.img", "rw"), ("/LVUUID=x", "rw,create"),
        ] {
            guard case .remote(let location) = try Location("ssh://h\(path)") else { continue }
            var settings = SSHSettings()
            settings.isTarget = true
            settings.makesVolumes = true
            let words = SSHCommand(location, settings, group: "abc").words
            #expect(words.last?.contains(":\(access)") == true, "\(path)")
            #expect(words.last?.contains("create") == access.contains("create"), "\(path)")
        }
    }

    @Test(
        arguments: [
            ("ssh://host/dev/a", ["host"], "'/dev/a"), ("ssh://h:22/dev/a", ["h"], "'/dev/a"),
            ("ssh://u@[::1]:2/dev/a", ["::1"], "'/dev/a"),
            ("ssh://host/LVUUID=x", ["host"], "'LVUUID=x"),
            ("ssh://host/it's%20%24x", ["host"], "'/it'\\''s $x"),
        ])
    func `host, port and user are separate words`(
        text: String, host: [String], selector: String
    ) throws {
        let words = try command(text).words
        #expect(words.starts(with: ["ssh", "-F", "my file", "-T"]))
        let end = try #require(words.firstIndex(of: "--"))
        #expect(Array(words[(end + 1)...].dropLast()) == host)
        let remote = "sudo blkferry serve --stdio --group abc --export \(selector):ro'"
        #expect(words.last == remote)
        #expect(words.contains("-p") == text.contains(":2"))
        #expect(words.contains("-l") == text.contains("@"))
    }

    @Test func `only a target is exported for writing, and a whole host for reading`() throws {
        #expect(try command("ssh://h/x", isTarget: true).words.last?.hasSuffix("'/x:rw'") == true)
        #expect(try command("ssh://h/x:rw").words.last?.hasSuffix("'/x:rw:ro'") == true)
        #expect(try command("ssh://h").words.last?.hasSuffix(" abc --export-all") == true)
    }

    private func error(
        _ termination: SSHFailure.Termination, _ lines: [String] = [], came text: String = ""
    ) throws -> IOError {
        let finding = StdioGreeting.find(in: Array(text.utf8), isAll: true)
        return SSHFailure(termination, lines: lines, finding: finding, try command("ssh://u@h:5/x"))
            .error
    }

    @Test(
        arguments: [
            ("u@h: Permission denied (publickey).", IOError.Kind.unauthorized),
            ("Received disconnect from h: 2: Too many authentication failures", .unauthorized),
            ("Host key verification failed.", .unauthorized),
            ("ssh: connect to host h port 5: No route to host", .network),
            ("kex_exchange_identification: Connection closed by remote host", .network),
            ("", .network),
        ])
    func `ssh's own messages decide the kind of the error`(line: String, kind: IOError.Kind)
        throws
    {
        let error = try error(.exit(255), ["banner", line])
        #expect(error.kind == kind)
        #expect(!error.reason.contains("\n") && !error.reason.hasSuffix("."))
        #expect((error.advice != nil) == (kind == .unauthorized))
    }

    @Test func `the error quotes the line that names the cause`() throws {
        let jump = try error(
            .exit(255),
            ["debug1: x", "ssh: jump: Name not known.", "Connection closed by UNKNOWN port 65535"])
        #expect(jump.reason == "ssh: jump: Name not known")
        let remote = try error(.exit(1), ["blkferry: x: open: no", "  Say something."])
        #expect(remote.reason == "blkferry: x: open: no")
        #expect(try error(.signal(9)).reason == "ssh was ended by signal 9")
        let advice = try #require(try error(.exit(255), ["Permission denied"]).advice)
        #expect(advice.hasSuffix("ssh -F my file -p 5 -l u h"))
    }
}

@Suite struct StdioGreetingTests {
    private func find(_ text: String, isAll: Bool = false) -> StdioGreeting.Finding {
        StdioGreeting.find(in: Array(text.utf8), isAll: isAll)
    }

    @Test func `the greeting is one line with a version`() {
        #expect(StdioGreeting.line(version: "1.2") == Array("blkferry stdio 1 1.2\n".utf8))
        let greeting = "blkferry stdio 1 0.9\n"
        for count in 0..<greeting.utf8.count {
            #expect(find(String(greeting.prefix(count))) == .unfinished)
        }
        #expect(find(greeting) == .greeted)
        #expect(find("blkferry stdio 2 3.4\n") == .other(version: "3.4"))
        #expect(find("blkferry stdio 10 x\n") == .other(version: "x"))
    }

    @Test func `lines before the greeting are chatter, and the first of them is quoted`() {
        #expect(find("\r\n Hello\r\nblkferry stdio 1 1\n") == .chatter(" Hello"))
        #expect(find("Hello\nyou\n") == .unfinished)
        #expect(find("Hello\nyou\n", isAll: true) == .chatter("Hello"))
        #expect(find("Hel", isAll: true) == .chatter("Hel"))
        #expect(find("", isAll: true) == .chatter(""))
        let long = String(repeating: "x", count: StdioGreeting.searchLimit)
        #expect(find(String(long.dropLast())) == .unfinished)
        #expect(find(long) == .chatter(String(repeating: "x", count: 80)))
    }
}
