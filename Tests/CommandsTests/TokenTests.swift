// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Tokens as users have them: files, the environment, and nothing of them to be seen.
@Suite(.blocking, .timeLimit(.minutes(60))) struct TokenTests {
    private let scratch: ScratchDirectory
    private let image: String
    private let size = 1 << 20

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.filledFile("image", size: size, seed: 3)
    }

    private func secret(_ name: String, _ text: String, mode: String = "600") throws -> String {
        let path = scratch.file(name)
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        try must("chmod", mode, path)
        return path
    }

    private func makeToken() throws -> String {
        let result = try blkferry("token")
        #expect(result.status == 0 && result.errors.isEmpty)
        return result.output.trimmingCharacters(in: .newlines)
    }

    @Test func `a token is 43 letters of a URL, and random`() throws {
        let tokens = try (0..<20).map { _ in try makeToken() }
        let letters = CharacterSet(
            charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        #expect(Set(tokens).count == 20)
        for token in tokens {
            #expect(token.utf8.count == 43)
            #expect(token.unicodeScalars.allSatisfy { letters.contains($0) })
        }
        // All values of six bits come about.
        #expect(Set(tokens.joined()).count == 64)
    }

    @Test func `all commands work with the token from a file or the environment, and none without`()
        throws
    {
        let token = try makeToken()
        let server = try ServeProcess(
            image + ":rw",
            options: ["--token-file", try secret("tokens", "me \(token)\n")])
        let mine = try secret("mine", "\(token)\n")
        let copy = scratch.file("copy")
        let url = server.url(image)
        for arguments in [["list", url], [url, copy], ["verify", url, copy]] {
            #expect(try RunningProgram([program] + arguments).wait().status == 5)
            let file = try RunningProgram([program] + arguments + ["--token-file", mine]).wait()
            #expect(file.status == 0, "\(file)")
            let variable = try RunningProgram(
                [program] + arguments, environment: ["BLKFERRY_TOKEN": token]
            ).wait()
            #expect(variable.status == 0, "\(variable)")
        }
        let push = try RunningProgram([program, copy, url, "--token-file", mine]).wait()
        #expect(push.status == 0, "\(push)")
        let wrong = try RunningProgram(
            [program, "list", url], environment: ["BLKFERRY_TOKEN": try makeToken()]
        ).wait()
        #expect(wrong.status == 5)
        #expect(
            wrong.errors == """
                blkferry: \(url): list: the server does not know the token
                  The client takes one from --token-file FILE or BLKFERRY_TOKEN.

                """)
        #expect(try server.log().contains("client=me"))
    }

    @Test func `the token is visible nowhere, on neither side`() throws {
        let token = try makeToken()
        let tokens = try secret("tokens", "me \(token)\n")
        let server = try ServeProcess(image + ":rw", options: ["--token-file", tokens])
        let client = try RunningProgram(
            [program, "-v", server.url(image), scratch.file("copy"), "--bwlimit", "100K"],
            environment: ["BLKFERRY_TOKEN": token])
        // While it runs: one second for 100 KB of the megabyte.
        try client.waitUntil(says: "units of")
        for process in [client.processID, server.process.processID] {
            for file in ["cmdline", "environ", "comm", "status", "stat", "maps"] {
                let path = URL(fileURLWithPath: "/proc/\(process)/\(file)")
                guard let data = try? Data(contentsOf: path) else { continue }
                #expect(data.range(of: Data(token.utf8)) == nil, "\(process) \(file)")
            }
        }
        #expect(client.isRunning)
        let result = try client.wait()
        #expect(result.status == 0, "\(result)")
        #expect(!result.errors.contains(token) && !result.output.contains(token))
        #expect(try !server.log().contains(token))
    }

    @Test(arguments: ["640", "604", "620", "602"])
    func `a file that others can read or change is refused, on either side`(mode: String) throws {
        let token = try makeToken()
        let path = try secret("loose", "me \(token)\n", mode: mode)
        let server = try blkferry("serve", "--export", image, "--token-file", path)
        let client = try blkferry("list", "http://127.0.0.1:1", "--token-file", path)
        for result in [server, client] {
            #expect(result.status == 64)
            #expect(
                result.errors.contains(
                    "\(path): others can read or change it: chmod 600 it"), "\(result)")
        }
    }

    @Test func `the error about a bad line, or a missing file, does not show the token`() throws {
        let token = try makeToken()
        let path = try secret("bad", "me \(token)\nyou \(token)\n")
        let result = try blkferry("serve", "--export", image, "--token-file", path)
        #expect(result.status == 64)
        #expect(result.errors == "blkferry: \(path):2: you has the same token as me\n")
        let missing = try blkferry("list", "http://127.0.0.1:1", "--token-file", "/nowhere/x")
        #expect(missing.status == 64 && missing.errors.contains("/nowhere/x: open: "))
        let short = try RunningProgram(
            [program, "list", "http://127.0.0.1:1"], environment: ["BLKFERRY_TOKEN": "hunter2"]
        ).wait()
        #expect(short.status == 64 && !short.errors.contains("hunter2"))
    }

    @Test func `an address that others reach needs a token, or --insecure`() throws {
        let refused = try blkferry("serve", "--export", image, "--listen", "0.0.0.0:0")
        #expect(refused.status == 64)
        for option in ["--token-file", "--one-time-token", "--insecure"] {
            #expect(refused.errors.contains(option), "\(refused)")
        }
        let path = try secret("tokens", "me \(try makeToken())\n")
        for options in [["--token-file", path], ["--one-time-token"], ["--insecure"]] {
            let server = try ServeProcess(image, on: "0.0.0.0", options: options)
            #expect(try server.log().contains("warning"))
        }
    }

    @Test func `a one-time token is printed with the command to type`() throws {
        let server = try ServeProcess(image, options: ["--one-time-token"])
        let output = try server.process.outputSoFar()
        let line = try #require(output.split(separator: "\n").last)
        let words = line.split(separator: " ").map(String.init)
        #expect(words.count == 4 && words[1...2] == ["blkferry", "list"])
        #expect(words[3] == "http://127.0.0.1:\(server.port)")
        let token = try #require(words[0].split(separator: "=", maxSplits: 1).last)
        let result = try RunningProgram(
            [program, "list", words[3]], environment: ["BLKFERRY_TOKEN": String(token)]
        ).wait()
        #expect(result.status == 0 && result.output.contains(image))
        #expect(try !server.log().contains(token))
    }

    @Test func `SIGHUP reads the files again, and a bad one changes nothing`() throws {
        let (first, second) = (try makeToken(), try makeToken())
        let tokens = try secret("tokens", "me \(first)\n")
        let exports = try secret("exports", "\(image)\n")
        let server = try ServeProcess(
            options: ["--token-file", tokens, "--exports-file", exports])
        func list(_ token: String) throws -> ProgramResult {
            try RunningProgram(
                [program, "list", server.url("")], environment: ["BLKFERRY_TOKEN": token]
            ).wait()
        }
        func reload(_ message: String) throws {
            let count = try server.log().components(separatedBy: message).count
            server.process.signal(SIGHUP)
            while try server.log().components(separatedBy: message).count == count {
                guard server.process.isRunning else { break }
                usleep(5_000)
            }
            #expect(server.process.isRunning)
        }
        #expect(try list(first).output.contains(image))
        _ = try secret("tokens", "nonsense\n")
        try reload("not reloaded")
        #expect(try list(first).status == 0)

        let other = try scratch.sparseFile("other", size: size)
        _ = try secret("tokens", "you \(second)\n")
        _ = try secret("exports", "\(other)\n")
        try reload(" reloaded")
        #expect(try list(first).status == 5)
        let now = try list(second).output
        #expect(now.contains(other) && !now.contains(image))
    }

    @Test func `a hashed token admits the token itself`() throws {
        let made = try blkferry("token", "--hash")
        let lines = made.output.split(separator: "\n").map(String.init)
        #expect(made.status == 0 && lines.count == 2 && lines[0].utf8.count == 43)
        #expect(lines[1].hasPrefix("sha256:") && lines[1].utf8.count == 71)
        let mine = try secret("mine", lines[0] + "\n")
        let again = try blkferry("token", "--hash", "--token-file", mine)
        #expect(again.output == lines[1] + "\n")
        let sum = try run("sh", "-c", "printf %s '\(lines[0])' | sha256sum").output
        #expect(sum.hasPrefix(lines[1].dropFirst(7)))
        let server = try ServeProcess(
            image, options: ["--token-file", try secret("tokens", "me \(lines[1])\n")])
        #expect(try blkferry("list", server.url(""), "--token-file", mine).status == 0)
        #expect(try blkferry("token", "--token-file", mine).status == 64)
    }

    @Test
    func `expired lines, and lines for other addresses, end the client with 5 and the reason`()
        throws
    {
        let (old, elsewhere) = (try makeToken(), try makeToken())
        let tokens = try secret(
            "tokens", "old \(old) expires=2001-01-01\nfar \(elsewhere) from=192.0.2.0/24\n")
        let server = try ServeProcess(image, options: ["--token-file", tokens])
        for (token, reason) in [(old, "expired"), (elsewhere, "from this address")] {
            let result = try RunningProgram(
                [program, "list", server.url("")], environment: ["BLKFERRY_TOKEN": token]
            ).wait()
            #expect(result.status == 5 && result.errors.contains(reason), "\(result)")
        }
        let log = try server.log()
        #expect(log.contains("client=old") && log.contains("client=far"))
        #expect(!log.contains(old) && !log.contains(elsewhere))
    }

    @Test func `the token of the environment is handed to no program, whatever the command`() throws
    {
        let token = try makeToken()
        let seen = scratch.file("seen")
        let fake = scratch.file("ssh")
        try "#!/bin/sh\nenv > \(seen)\nexit 1\n".write(
            toFile: fake, atomically: false, encoding: .utf8)
        try must("chmod", "755", fake)
        let mine = try secret("mine", token)
        for options in [[], ["--token-file", mine]] {
            _ = try RunningProgram(
                [program, "list", "ssh://nowhere/dev/x", "--ssh-command", fake] + options,
                environment: ["BLKFERRY_TOKEN": token]
            ).wait()
            let text = try String(contentsOfFile: seen, encoding: .utf8)
            #expect(text.contains("PATH="))
            #expect(!text.contains("BLKFERRY_TOKEN") && !text.contains(token), "\(options)")
            try must("rm", seen)
        }
    }

    @Test func `no control character from outside reaches the terminal or the log`() throws {
        let nasty = "n\u{9B}31m\u{202E}x\n\u{1B}[2J"
        let path = scratch.file(nasty)
        try must("cp", image, path)
        let server = try ServeProcess(scratch.path + "/:rw", options: ["-v"])
        for arguments in [["list", server.url("")], ["list", "--json", server.url("")]] {
            let result = try RunningProgram([program] + arguments).wait()
            #expect(result.status == 0, "\(result)")
            for character in ["\u{9B}", "\u{202E}", "\u{1B}"] {
                #expect(!(result.output + result.errors).contains(character), "\(result)")
            }
        }
        let json = try blkferry("list", "--json", server.url("")).output
        #expect(json.contains("\\u009b") && json.contains("\\u202e"))
        let copy = scratch.file("copy")
        let url = server.url(
            path.addingPercentEncoding(
                withAllowedCharacters: .alphanumerics.union(CharacterSet(charactersIn: "/"))) ?? "")
        let pull = try RunningProgram([program, "-v", url, copy]).wait()
        #expect(pull.status == 0, "\(pull)")
        for line in try server.log().split(separator: "\n") {
            #expect(line.contains(" blkferry: "), "\(line)")
            for character in ["\u{9B}", "\u{202E}", "\u{1B}"] {
                #expect(!line.contains(character), "\(line)")
            }
        }
    }

    @Test func `a second server on a unix socket ends with 4, and the first serves on`() throws {
        let socket = scratch.file("socket")
        let first = try RunningProgram(
            [program, "serve", "--listen", "unix:\(socket)", "--export", image])
        try first.waitUntil(says: "listening")
        let second = try blkferry("serve", "--listen", "unix:\(socket)", "--export", image)
        #expect(second.status == 4, "\(second)")
        #expect(second.errors.contains("unix:\(socket): listen: Address already in use"))
        #expect(FileManager.default.fileExists(atPath: socket))
        first.signal(SIGTERM)
        #expect(try first.wait().status == 0)
        #expect(!FileManager.default.fileExists(atPath: socket))
    }
}
