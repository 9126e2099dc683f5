// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension ReplicaFile {
    static let directory = "/etc/blkferry/replicas"

    /// Reads the file of a name in `directory`, or of a path, which has a slash.
    ///
    /// The file may name programs to start, so no other user may be able to change it.
    init(named name: String) throws(CommandFailure) {
        let path = name.contains("/") ? name : "\(Self.directory)/\(name).conf"
        try self.init(readCredential(path, .configuration), at: path)
    }

    /// Replaces `--config NAME` of `refresh` by what is in the file, for each of its targets.
    ///
    /// Other arguments take precedence over the file's.
    static func expand(_ arguments: [String]) throws(CommandFailure) -> [[String]] {
        let option = "--config"
        guard arguments.first == "refresh",
            let place = arguments.prefix(while: { $0 != "--" })
                .firstIndex(where: { $0 == option || $0.hasPrefix("\(option)=") })
        else { return [arguments] }
        var others = Array(arguments.dropFirst())
        let word = others.remove(at: place - 1)
        var name = String(word.dropFirst(option.count + 1))
        if word == option {
            // The parser reports the missing name.
            guard place - 1 < others.count else { return [arguments] }
            name = others.remove(at: place - 1)
        }
        let file = try ReplicaFile(named: name)
        try file.check()
        return file.targets.map { file.arguments(for: $0, and: others + [option, name]) }
    }
}
