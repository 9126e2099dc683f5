// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe
internal import Digests
internal import Glibc
package import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// The runs with a journal that have written to a target, in the order in which they began.
///
/// Only the last one can be rolled back: the journal of an earlier run does not have the bytes that
/// a later one has written. A file for each target in the state directory; see docs/undo.md.
package struct LatestJournal: Codable, Hashable, Sendable {
    package struct Run: Codable, Hashable, Sendable {
        /// The journal's identifying bytes in hexadecimal; `nil` for a run without a journal.
        package var journal: String?
        /// Of the journal.
        package var path: String?
        /// The identifying bytes of the journal that this one takes the place of.
        package var replaces: String?
        /// Seconds since 1970.
        package var began: Int
        /// Whether a later run was rolled back, so that the counter at the end of this one is not
        /// that of the target any more.
        package var isBack = false
        /// The target's persistent change counter after that; `nil` if unknown.
        package var counter: [Int]?
        /// The boot in which the counter was read.
        package var boot: String?
    }

    /// As the user or the server names it.
    package var target: String
    package var runs: [Run]

    /// More runs are forgotten, the oldest first.
    static let longest = 64
}

/// Where the files of `LatestJournal` are.
///
/// A user other than root may not write to root's directory. Then the file is beside the journal.
package struct LatestJournals: Sendable {
    /// The first in which a file can be written is used; all are read.
    private let directories: [String]
    /// Bytes of a file at most.
    private static let longestFile = 1 << 20

    /// - Parameter journals: the directory of the journals, empty for the working directory; `nil`
    ///   for none.
    package init(besides journals: String? = nil) {
        directories = [Self.stateDirectory, journals.map { $0.isEmpty ? "." : $0 }]
            .compactMap(\.self)
    }

    /// The directory that systemd.exec(5) names for StateDirectory=, or the usual one.
    private static var stateDirectory: String {
        getenv("STATE_DIRECTORY").map { String(cString: $0) } ?? "/var/lib/blkferry"
    }

    private func paths(of target: TargetIdentity) throws(IOError) -> [String] {
        let key = try sha256(of: Array(target.facts.joined(separator: "\0").utf8)).prefix(16)
        return directories.map { "\($0)/undo-\(hexadecimal(key)).json" }
    }

    /// The runs of a target; `nil` if no run with a journal is known.
    ///
    /// - Throws: if a file cannot be read, or is damaged.
    package func of(_ target: TargetIdentity) throws(IOError) -> LatestJournal? {
        var failure: IOError?
        for (index, path) in try paths(of: target).enumerated() {
            do throws(IOError) {
                if let found = try read(path, isBeside: index > 0) { return found }
            } catch {
                // For a user without access to root's directory, the file is beside the journal.
                guard Self.isUnreachable(error.errno), !FileStatus.exists(path) else { throw error }
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
        return nil
    }

    /// Whether a run with a journal is known, or may be, that a write makes unusable.
    func hasJournals(_ target: TargetIdentity) -> Bool {
        do throws(IOError) {
            guard let runs = try of(target)?.runs else { return false }
            return runs.contains { $0.journal != nil }
        } catch {
            guard Self.isUnreachable(error.errno), let paths = try? paths(of: target) else {
                return true
            }
            return paths.contains { FileStatus.exists($0) }
        }
    }

    /// Whether an error says that this user cannot know a file in the directory.
    private static func isUnreachable(_ code: Errno?) -> Bool {
        switch code {
        case .permissionDenied, .notPermitted, .notDirectory, .tooManySymbolicLinkLevels: true
        default: false
        }
    }

    /// The content of a file without the newline at its end; `nil` if another user made it.
    ///
    /// The owner of its directory may have: in that of a server with `--user` the journals are that
    /// user's as well.
    private static func bytes(_ path: String) throws(Errno) -> [UInt8]? {
        let file = try OwnedDescriptor.open(path, flags: O_RDONLY | O_NONBLOCK | O_NOFOLLOW)
        var (status, parent) = (stat(), stat())
        let directory = FilePath(path).removingLastComponent().string
        _ = try retryingInterrupts { fstat(file.rawValue, &status) }
        _ = try retryingInterrupts { stat(directory, &parent) }
        guard status.st_mode & S_IFMT == S_IFREG,
            [0, geteuid(), parent.st_uid].contains(status.st_uid),
            status.st_size <= longestFile
        else { return nil }
        let memory = AlignedBuffer(count: longestFile)
        let count = try file.read(into: memory.bytes, at: 0)
        var bytes = Array(slice(memory.bytes, 0, min(count, longestFile)))
        if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
        return bytes
    }

    private func read(_ path: String, isBeside: Bool) throws(IOError) -> LatestJournal? {
        let found: [UInt8]?
        do throws(Errno) { found = try Self.bytes(path) } catch .noSuchFileOrDirectory {
            return nil
        } catch .tooManySymbolicLinkLevels where isBeside {
            return nil
        } catch {
            throw IOError(path, "read", error)
        }
        guard let bytes = found else {
            if isBeside { return nil }
            throw IOError(
                path, "read", reason: "it is no file of root's or of this user's",
                advice: "Remove it if no undo journal of the target is needed any more.")
        }
        let lines = bytes.split(separator: UInt8(ascii: "\n"), maxSplits: 1)
        guard lines.count == 2,
            try hexadecimal(sha256(of: Array(lines[1]))).utf8.elementsEqual(lines[0]),
            let latest = Array(lines[1]).withUnsafeBytes({
                try? WireJSON.decode(LatestJournal.self, from: $0)
            })
        else {
            throw IOError(
                path, "read", reason: "it is damaged",
                advice: "It says which run was the last to write. Remove it if you know that.")
        }
        return latest
    }

    /// Notes that a run is about to write, on the medium.
    package func note(
        _ run: LatestJournal.Run, on target: TargetIdentity, named name: String
    ) throws(IOError) {
        var latest = LatestJournal(target: name, runs: [])
        do throws(IOError) { latest.runs = try of(target)?.runs ?? [] } catch {
            // What a damaged file had is not known, so no earlier run can be rolled back.
            latest.runs = [.init(began: 0)]
        }
        if let replaced = run.replaces { latest.runs.removeAll { $0.journal == replaced } }
        latest.runs.append(run)
        latest.runs = latest.runs.suffix(LatestJournal.longest)
        // No run before one without a journal can be rolled back.
        if run.journal == nil { latest.runs = [run] }
        try write(latest, of: target)
    }

    /// Notes that something without a journal is about to write, if that makes journals unusable.
    package func noteWithoutJournal(
        on target: TargetIdentity, named name: String
    ) throws(IOError) {
        guard hasJournals(target) else { return }
        try note(.init(began: time(nil)), on: target, named: name)
    }

    /// Notes that the target is again what it was before the last run, whose counter is now this.
    package func drop(
        _ journal: String, of target: TargetIdentity, counter: [Int]?
    ) throws(IOError) {
        guard var latest = try of(target) else { return }
        guard latest.runs.last?.journal == journal else {
            // The user has forced it, and what the target has now is no state of any run.
            return try note(.init(began: time(nil)), on: target, named: latest.target)
        }
        latest.runs.removeLast()
        guard let last = latest.runs.indices.last else { return try remove(target) }
        latest.runs[last].isBack = true
        latest.runs[last].counter = counter
        latest.runs[last].boot = bootIdentifier()
        try write(latest, of: target)
    }

    private func write(_ latest: LatestJournal, of target: TargetIdentity) throws(IOError) {
        let content = WireJSON.encode(latest)
        let newline = UInt8(ascii: "\n")
        let bytes = try Array(hexadecimal(sha256(of: content)).utf8) + [newline] + content
        let paths = try paths(of: target)
        // A file that exists is replaced, so that there is one.
        let known = paths.first { FileStatus.exists($0) }
        var failure: IOError?
        for path in known.map({ [$0] }) ?? paths {
            do throws(Errno) {
                try makeDirectory(of: path)
                return try replaceFileDurably(path, with: bytes)
            } catch {
                let advice: String? =
                    known == nil
                    ? nil
                    : "It has the target's earlier runs. Run it as root once, or remove the file "
                        + "if no undo journal of the target is needed any more."
                failure = failure ?? IOError(path, "write", error, advice: advice)
            }
        }
        if let failure { throw failure }
    }

    private func makeDirectory(of path: String) throws(Errno) {
        let directory = FilePath(path).removingLastComponent().string
        do throws(Errno) { _ = try retryingInterrupts { mkdir(directory, 0o755) } } catch {
            guard error == .fileExists || error == .readOnlyFileSystem else { throw error }
        }
    }

    private func remove(_ target: TargetIdentity) throws(IOError) {
        for path in try paths(of: target) { unlink(path) }
    }
}
