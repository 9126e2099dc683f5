// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import SystemPackage

/// Reads a small file, such as one of /proc or /sys; `nil` if it cannot be read.
///
/// It drops the newline at the end, and replaces invalid UTF-8.
package func readSmallFile(_ path: String) -> String? { try? smallFile(path) }

/// Reads a decimal number from a small file; `nil` if the file cannot be read or has none.
package func readInteger(_ path: String) -> Int? { readSmallFile(path).flatMap { Int($0) } }

/// Reads a file like `readSmallFile`.
package func smallFile(_ path: String) throws(Errno) -> String {
    String(decoding: try smallFileBytes(path), as: UTF8.self)
}

/// Reads a small file without the newline at its end.
package func smallFileBytes(_ path: String) throws(Errno) -> [UInt8] {
    let file = try OwnedDescriptor.open(path, flags: O_RDONLY)
    var content: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 << 10)
    while true {
        var failure: Errno?
        let count = chunk.withUnsafeMutableBytes { buffer in
            do throws(Errno) { return try file.readOnce(into: buffer, at: content.count) } catch {
                failure = error
                return 0
            }
        }
        if let failure { throw failure }
        if count == 0 { break }
        content.append(contentsOf: chunk[..<count])
    }
    if content.last == UInt8(ascii: "\n") { content.removeLast() }
    return content
}

/// Writes a file completely or not at all; a file with this name is the old or the new one at every
/// moment, also after a crash.
///
/// The corresponding C function is `rename`.
package func replaceFile(
    _ path: String, with bytes: [UInt8], mode: UInt32 = 0o644
) throws(Errno) {
    let draft = "\(path).\(getpid())"
    let file = try newDraft(draft, mode: mode)
    do throws(Errno) {
        let buffer = AlignedBuffer(count: bytes.count)
        buffer.bytes.copyBytes(from: bytes)
        try file.write(UnsafeRawBufferPointer(slice(buffer.bytes, 0, bytes.count)), at: 0)
        try file.synchronize()
        _ = try retryingInterrupts { rename(draft, path) }
    } catch {
        unlink(draft)
        throw error
    }
}

/// Creates a draft; one that a killed process with the same number has left is removed.
private func newDraft(_ draft: String, mode: UInt32) throws(Errno) -> OwnedDescriptor {
    let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW
    do throws(Errno) { return try OwnedDescriptor.open(draft, flags: flags, mode: mode) } catch {
        var status = stat()
        guard error == .fileExists, lstat(draft, &status) == 0,
            status.st_mode & S_IFMT == S_IFREG
        else { throw error }
    }
    unlink(draft)
    return try OwnedDescriptor.open(draft, flags: flags, mode: mode)
}

/// Writes a file like `replaceFile`; its name is on the medium as well.
package func replaceFileDurably(
    _ path: String, with bytes: [UInt8], mode: UInt32 = 0o644
) throws(Errno) {
    try replaceFile(path, with: bytes, mode: mode)
    try synchronizeDirectory(ofFile: path)
}

/// Waits until the name of a new, renamed or removed file is on the medium.
package func synchronizeDirectory(ofFile path: String) throws(Errno) {
    let parent = FilePath(path).removingLastComponent()
    let directory = try OwnedDescriptor.open(
        parent.isEmpty ? "." : parent.string, flags: O_RDONLY | O_DIRECTORY)
    try directory.synchronize()
}

/// The sorted names, with invalid UTF-8 replaced; empty if the directory cannot be read.
package func namesInDirectory(_ path: String) -> [String] {
    var names: [String] = []
    // The names that were read before a failure are returned.
    try? readDirectory(KernelPath(path)) { names.append(String(decoding: $0, as: UTF8.self)) }
    return names.sorted()
}

/// The names as bytes, which need not be UTF-8, in the directory's order.
///
/// - Throws: the error of opendir(3) or readdir(3).
package func bytesOfNamesInDirectory(_ path: KernelPath) throws(Errno) -> [[UInt8]] {
    var names: [[UInt8]] = []
    try readDirectory(path) { names.append(Array($0)) }
    return names
}

/// Calls `body` with each name but `.` and `..`.
///
/// The corresponding C function is `readdir`.
private func readDirectory(
    _ path: KernelPath, _ body: (Slice<UnsafeRawBufferPointer>) -> Void
) throws(Errno) {
    let pathName = path.cString
    guard let stream = opendir(pathName) else {
        let failure = currentErrno()
        Shortages.note(failure)
        throw failure
    }
    defer { closedir(stream) }
    while true {
        // Only errno distinguishes the end from a failure.
        errno = 0
        guard let entry = readdir(stream) else { break }
        withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
            let name = bytes.prefix { $0 != 0 }
            if !name.elementsEqual(".".utf8) && !name.elementsEqual("..".utf8) { body(name) }
        }
    }
    let failure = currentErrno()
    guard failure.rawValue == 0 else {
        Shortages.note(failure)
        throw failure
    }
}
