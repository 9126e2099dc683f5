// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import WireProtocol

/// The sizes of the images that clients with `max-size=` are creating or resizing.
///
/// The safety gate may wait for seconds before it opens an image. Until the image has its size,
/// other requests count it with the size that it was promised, so that two requests cannot fill the
/// same room. The lock is held only while a request looks at the directories.
final class RoomPromises: Sendable {
    /// Sizes in bytes by the image's path without symbolic links, as the kernel compares it.
    typealias Sizes = [[UInt8]: [Int]]

    private let state = Guarded(Sizes())

    /// Promises a size to an image while `body` creates or resizes it.
    ///
    /// - Parameters:
    ///   - size: in bytes.
    ///   - isCounted: whether other requests count the size; `false` for a dry run, which gets the
    ///     same answer and takes no room.
    /// - Throws: 409 if one of the image's directories has no room for the size, and what `body`
    ///   throws.
    func promising<Result>(
        _ size: Int, to found: ExportTable.Found, _ grant: Grant, in exports: ExportTable,
        isCounted: Bool = true, _ body: () throws(Problem) -> Result
    ) throws(Problem) -> Result {
        guard grant.maximumSize != nil else { return try body() }
        let directories = exports.directories(above: found)
        guard !directories.isEmpty else { return try body() }
        let path = Array(ExportTable.realPath(of: found).utf8)
        try state.withLock { sizes throws(Problem) in
            // Not the size in `found`: another request may have cut the image since.
            let now = (try? FileStatus(path: found.path))?.size ?? 0
            if size > now {
                try grant.checkRoom(for: size, found.name, at: path, in: directories, sizes)
            }
            // Also a size that the image has now: a request may cut it before `body` is called.
            if isCounted { sizes[path, default: []].append(size) }
        }
        defer {
            if isCounted { state.withLock { Self.forget(size, path, &$0) } }
        }
        return try body()
    }

    private static func forget(_ size: Int, _ path: [UInt8], _ sizes: inout Sizes) {
        guard var rest = sizes[path], let index = rest.firstIndex(of: size) else { return }
        rest.remove(at: index)
        sizes[path] = rest.isEmpty ? nil : rest
    }
}
