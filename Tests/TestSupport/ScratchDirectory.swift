// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Foundation
internal import Glibc

/// A directory of its own for one test, removed with everything in it.
package final class ScratchDirectory: Sendable {
    package let path: String

    /// Makes an empty directory.
    ///
    /// - Parameter parent: where; a real file system by default, since /tmp may be a tmpfs.
    /// - Throws: when it cannot be made.
    package init(in parent: String = "/var/tmp") throws {
        path = "\(parent)/blkferry-test-\(getpid())-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// The path of a file in the directory.
    package func file(_ name: String) -> String { "\(path)/\(name)" }

    /// Makes a file that consists of one hole.
    ///
    /// - Returns: its path.
    package func sparseFile(_ name: String, size: Int) throws -> String {
        let path = file(name)
        guard FileManager.default.createFile(atPath: path, contents: nil),
            truncate(path, off_t(size)) == 0
        else { throw CocoaError(.fileWriteUnknown) }
        return path
    }

    /// Makes an image with an empty ext4, `source`, and a clone of it.
    ///
    /// - Parameters:
    ///   - clone: the clone's name.
    ///   - size: of both, in bytes.
    /// - Returns: their paths.
    package func fileSystem(clonedAs clone: String, size: Int) throws -> (String, String) {
        let source = try sparseFile("source", size: size)
        try must("mkfs.ext4", "-q", "-F", source)
        try must("cp", "--sparse=always", source, file(clone))
        return (source, file(clone))
    }

    /// Makes a directory of images without a hole: `0.img`, `1.img` and so on.
    ///
    /// - Parameters:
    ///   - name: of the directory.
    ///   - count: of images.
    ///   - size: of each, in bytes.
    /// - Returns: the path of the directory, without a slash at its end.
    package func directory(_ name: String, ofImages count: Int, size: Int) throws -> String {
        let path = file(name)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let content = Data(count: size)
        for index in 0..<count {
            try content.write(to: URL(fileURLWithPath: "\(path)/\(index).img"))
        }
        return path
    }
}
