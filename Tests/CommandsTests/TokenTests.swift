// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Tokens as users have them: files, the environment, and nothing of them to be seen.
@Suite(.blocking, .timeLimit(.minutes(30))) struct TokenTests {
    private let scratch: ScratchDirectory
    private let image: String
    private let size = 1 << 20

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.sparseFile("image", size: size)
        try fill(image, seed: 3, size: size)
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

    @Test func `a token is 43 letters of a URL, another one each time`() throws {
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

    @Test func `with the token from a file or the environment all commands work, without none`()
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

    @Test func `the token is nowhere to be seen, on neither side`() throws {
        let token = try makeToken()
        let tokens = try secret("tokens", "me \(token)\n")
        let server = try ServeProcess(image + ":rw", options: ["--token-file", tokens])
        let client = try RunningProgram(
            [program, "-v", server.url(image), scratch.file("copy"), "--bwlimit", "200K"],
            environment: ["BLKFERRY_TOKEN": token])
        // While it runs: one second for 200 KB of the megabyte.
        while client.isRunning, try !client.errorsSoFar().contains("units of") { usleep(5_000) }
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

    @Test func `a bad line, or no file, is told without the token`() throws {
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

    @Test func `an address that others reach needs a token, or the wish to be insecure`() throws {
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

    @Test func `a one-time token comes with the command to type`() throws {
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
}
