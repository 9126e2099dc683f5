// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// The manual pages of `docs/man`, against `--help` and against each other.
@Suite(.blocking) struct ManualTests {
    private static let commands = LawTests.all.compactMap(\.name)
    /// `nil` is the program itself.
    private static let all: [String?] = [nil] + commands

    @Test(arguments: all)
    func `a command's page has each option of its --help and no other`(command: String?) throws {
        let page = try ManualPage(of: command)
        let help = try RunningProgram([program] + (command.map { [$0] } ?? []) + ["--help"]).wait()
        let known = Set(help.output.split(separator: "\n").compactMap(optionNames))
        #expect(!known.isEmpty)
        #expect(Set(page.options.map(\.names)) == known)
        #expect(page.options.count == known.count, "an option is described twice")
        for option in page.options {
            #expect(option.text.split(separator: "\n").count > 1, "\(option.names)")
        }
    }

    @Test(arguments: commands)
    func `the synopsis of a page has each of its options by one name`(command: String) throws {
        let page = try ManualPage(of: command)
        let options = page.options.map(\.names).filter {
            $0.isDisjoint(with: ["--version", "--help"])
        }
        for names in options {
            #expect(page.synopsis.intersection(names).count == 1, "\(names)")
        }
        #expect(page.synopsis.count == options.count)
    }

    /// The options that mean something else in a command than in `sync`.
    private static let own: [String: Set<String>] = [
        "refresh": ["--max-change", "--verify"],
        "verify": ["--move-backup-gpt", "--size-policy", "--skip-unreadable"],
        "benchmark": ["--benchmark"], "list": ["--json"], "replicas": ["--json"],
    ]

    @Test(arguments: own.keys.sorted())
    func `an option that sync has as well is described in the same words`(command: String) throws {
        let sync = try ManualPage(of: "sync").options
        let own = try #require(Self.own[command])
        for option in try ManualPage(of: command).options where own.isDisjoint(with: option.names) {
            guard let same = sync.first(where: { $0.names == option.names }) else { continue }
            #expect(option.text == same.text, "\(option.names)")
        }
    }

    @Test func `blkferry(1) leads to the page of each command`() throws {
        let page = try ManualPage(of: nil)
        for command in Self.commands {
            #expect(page.text.contains("\n.It Cm \(command)\n"))
            #expect(page.text.contains("\n.Xr blkferry-\(command) 1"))
        }
    }

    /// The names in the first column of a line of help, such as `-n, --dry-run`.
    private func optionNames(_ line: Substring) -> Set<String>? {
        guard let match = line.prefixMatch(of: /[ ]{2}(?:(-\w), )?(--[a-z-]+)/) else { return nil }
        return Set([match.1, match.2].compactMap { $0 }.map(String.init))
    }
}

/// A manual page of `docs/man`, in mdoc(7).
private struct ManualPage {
    struct Option {
        /// Such as `-n` and `--dry-run`.
        var names: Set<String>
        /// The source of the description, with the names of the arguments.
        var text: String
    }

    let text: String
    private(set) var options: [Option] = []
    /// The names of the options in the synopsis.
    private(set) var synopsis: Set<String> = []

    /// The page of a command, or of the program without one.
    init(of command: String?) throws {
        let name = (["blkferry"] + (command.map { [$0] } ?? [])).joined(separator: "-")
        let tree = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let file = tree.appendingPathComponent("docs/man/\(name).1")
        text = try String(contentsOf: file, encoding: .utf8)
        read()
    }

    private mutating func read() {
        var section = ""
        var depth = 0
        var isOption = false
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            switch words.first ?? "" {
            case ".Sh": section = words.dropFirst().joined(separator: " ")
            case ".Bl": depth += 1
            case ".El":
                depth -= 1
                isOption = isOption && depth > 0
            case ".It" where depth == 1:
                isOption = words.dropFirst().first == "Fl"
                if isOption { options.append(Option(names: names(in: words), text: "")) }
            default: break
            }
            if section == "SYNOPSIS" { synopsis.formUnion(names(in: words)) }
            if depth > 0, isOption { options[options.count - 1].text += "\(line)\n" }
        }
    }

    /// The options behind each `Fl`: a long one, or letters.
    private func names(in words: [Substring]) -> Set<String> {
        zip(words, words.dropFirst()).reduce(into: []) { names, pair in
            guard pair.0 == "Fl" || pair.0 == ".Fl" else { return }
            if pair.1.hasPrefix("-") {
                names.insert("-\(pair.1)")
            } else {
                names.formUnion(pair.1.map { "-\($0)" })
            }
        }
    }
}
