// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import WireProtocol

/// The file of a replica, which has the options of `blkferry refresh` (blkferry-replicas(5)).
///
/// The parser of the command line reads the options. So a file has the same options, values and
/// errors as the command line.
struct ReplicaFile {
    private let path: String
    private let lines: [ReplicaLine]
    let source: String
    /// At least one; no two are equal.
    let targets: [String]

    /// Parses the lines; `check` parses the options.
    ///
    /// - Parameter path: for errors.
    /// - Throws: wrong usage, with the file and the line.
    init(_ text: String, at path: String) throws(CommandFailure) {
        var lines: [ReplicaLine] = []
        for (number, text) in contentLines(of: text) {
            do throws(WireError) {
                let line = try ReplicaLine(number, text)
                if let other = lines.first(where: line.repeats) {
                    throw WireError("\(line.name): line \(other.number) has it already")
                }
                lines.append(line)
            } catch {
                throw CommandFailure(.usage, "\(path):\(number): \(error.reason)")
            }
        }
        targets = lines.filter { $0.name == "target" }.map(\.value)
        guard let source = lines.first(where: { $0.name == "source" })?.value, !targets.isEmpty
        else {
            let missing = targets.isEmpty ? "target" : "source"
            throw CommandFailure(.usage, "\(path): a line \(missing) = LOCATION is missing")
        }
        self.source = source
        self.path = path
        self.lines = lines
    }

    /// Parses the options, with each target.
    ///
    /// - Throws: wrong usage, with the file and the first line up to which the error occurs.
    func check() throws(CommandFailure) {
        for target in targets {
            guard let error = parserError(lines[...], target) else { continue }
            let last = lines.indices.first { parserError(lines[...$0], target) == error }
            let place = last.map { ":\(lines[$0].number)" } ?? ""
            throw CommandFailure(
                .usage, "\(path)\(place): \(error)", advice: "See blkferry-replicas(5).")
        }
    }

    /// The arguments of a run for one target.
    ///
    /// - Parameters:
    ///   - command: an option that it does not have is left out, as of `verify`.
    ///   - others: further arguments, which take precedence.
    func arguments(
        of command: String = "refresh", for target: String, and others: [String] = []
    ) -> [String] {
        let options = lines.compactMap(\.option).filter { isOption($0, of: command) }
        return [command] + options + others + ["--", source, target]
    }

    private func isOption(_ option: String, of command: String) -> Bool {
        do { _ = try Blkferry.parseAsRoot([command, option, "--", "/source", "/target"]) } catch {
            return !Blkferry.message(for: error).hasPrefix("Unknown option")
        }
        return true
    }

    /// The parser's message about the first lines of the file; `nil` for no error.
    private func parserError(_ lines: ArraySlice<ReplicaLine>, _ target: String) -> String? {
        // An operand of a later line must not be missing.
        let hasSource = lines.contains { $0.name == "source" }
        let hasTarget = lines.contains { $0.name == "target" && $0.value == target }
        let operands = ["--", hasSource ? source : "/source", hasTarget ? target : "/target"]
        do {
            let command = try Blkferry.parseAsRoot(
                ["refresh"] + lines.compactMap(\.option) + operands)
            if command is Refresh { return nil }
        } catch {
            // The parser throws the version, and returns a command of its own for help.
            if Blkferry.exitCode(for: error) != .success {
                return Blkferry.message(for: error).split(separator: "\n").first
                    .map(String.init) ?? ""
            }
        }
        return "only options of a run can be in the file"
    }
}

/// A line `NAME = VALUE`, or `NAME` for an option without a value.
private struct ReplicaLine {
    let number: Int
    let name: String
    /// Empty for an option without a value.
    let value: String

    init(_ number: Int, _ text: Substring) throws(WireError) {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            .map(trimmed)
        self.number = number
        name = String(parts[0])
        value = parts.count > 1 ? String(parts[1]) : ""
        // A zero byte would cut a path, and U+FFFD stands for bytes that are not UTF-8.
        guard !text.unicodeScalars.contains(where: { $0 == "\0" || $0 == "\u{FFFD}" }) else {
            throw WireError("the line is not UTF-8 text")
        }
        guard name.utf8.count > 1, name.utf8.first != UInt8(ascii: "-"),
            name.utf8.allSatisfy({ "abcdefghijklmnopqrstuvwxyz-".utf8.contains($0) })
        else {
            throw WireError("\(name): not an option; a line is NAME = VALUE, or NAME alone")
        }
        guard name != "config", name != "finish-killed" else {
            throw WireError("\(name): is for the command line only")
        }
        guard !value.isEmpty || (parts.count == 1 && !isLocation) else {
            throw WireError("\(name): it has no value")
        }
    }

    private var isLocation: Bool { name == "source" || name == "target" }

    /// The argument on the command line; `nil` for a location.
    var option: String? {
        isLocation ? nil : value.isEmpty ? "--\(name)" : "--\(name)=\(value)"
    }

    /// Whether another line excludes this one; only targets may be several.
    func repeats(_ other: ReplicaLine) -> Bool {
        name == other.name && (name != "target" || value == other.value)
    }
}
