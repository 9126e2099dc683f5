// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension ReplicaFile {
    static let directory = "/etc/blkferry/replicas"
    static let suffix = ".conf"

    static func path(of name: String) -> String {
        name.contains("/") ? name : "\(directory)/\(name)\(suffix)"
    }

    /// Reads the file of a name in `directory`, or of a path, which has a slash.
    ///
    /// The file may name programs to start, so no other user may be able to change it.
    init(named name: String) throws(CommandFailure) {
        let path = Self.path(of: name)
        try self.init(readCredential(path, .configuration), at: path)
    }

    /// Replaces `--config NAME` of `refresh` and `verify` by what is in the file, for each of its
    /// targets.
    ///
    /// Other arguments take precedence over the file's.
    static func expand(_ arguments: [String]) throws(CommandFailure) -> [[String]] {
        let option = "--config"
        var others = Array(arguments.dropFirst())
        func place() -> Int? {
            others.prefix { $0 != "--" }.firstIndex { $0 == option || $0.hasPrefix("\(option)=") }
        }
        guard let command = arguments.first, ["refresh", "verify"].contains(command),
            let first = place()
        else { return [arguments] }
        let word = others.remove(at: first)
        var name = String(word.dropFirst(option.count + 1))
        if word == option {
            // The parser reports the missing name.
            guard first < others.count else { return [arguments] }
            name = others.remove(at: first)
        }
        guard place() == nil else {
            throw CommandFailure(.usage, "usage: \(option): it occurs twice")
        }
        let file = try ReplicaFile(named: name)
        try file.check()
        return file.targets.map {
            file.arguments(of: command, for: $0, and: others + [option, name])
        }
    }
}
