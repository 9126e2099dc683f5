// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// The file of a chart: a new or empty file, or an existing SVG file.
struct PlotFile {
    private let path: String

    init(_ path: String) { self.path = path }

    /// The possible starts of an SVG file.
    private static let beginnings = ["<svg", "<?xml"]

    private func wrong(_ reason: String) -> CommandFailure {
        CommandFailure(.usage, "\(path): write chart: \(reason)")
    }

    private var directory: FilePath {
        let parent = FilePath(path).removingLastComponent()
        return parent.isEmpty ? "." : parent
    }

    /// Checks in advance whether the chart can be written.
    ///
    /// - Throws: wrong usage for a device, a directory or a file of another type, or if no file can
    ///   be created.
    func check() throws(CommandFailure) {
        guard FilePath(path).lastComponent?.kind == .regular, !path.hasSuffix("/") else {
            throw wrong("it names no file")
        }
        guard access(directory.string, W_OK | X_OK) == 0 else { throw wrong("\(currentErrno())") }
        do throws(Errno) {
            guard try FileStatus(path: path).kind == .regular else {
                throw Errno.invalidArgument
            }
            let file = try OwnedDescriptor.open(path, flags: O_RDONLY)
            let start = AlignedBuffer(count: Self.beginnings[0].utf8.count)
            let count = try file.readOnce(into: start.bytes, at: 0)
            let text = String(decoding: start.bytes[..<count], as: UTF8.self)
            guard count == 0 || Self.beginnings.contains(where: text.hasPrefix) else {
                throw Errno.fileExists
            }
        } catch {
            switch error {
            case .noSuchFileOrDirectory: return
            case .invalidArgument: throw wrong("it is not a regular file")
            case .fileExists: throw wrong("it exists and is not an SVG file")
            default: throw wrong("\(error)")
            }
        }
    }

    /// Writes the chart completely or not at all.
    func write(_ text: String) throws(CommandFailure) {
        try check()
        do throws(Errno) { try replaceFile(path, with: Array(text.utf8)) } catch {
            throw CommandFailure(IOError(path, "write chart", error))
        }
    }
}
