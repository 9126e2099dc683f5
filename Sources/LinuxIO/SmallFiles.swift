// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import SystemPackage

/// Reads a file of /proc or /sys, or another that is surely small.
///
/// - Parameter path: the file's path.
/// - Returns: its content, without the newline at the end, bytes that are no UTF-8 replaced; `nil`
///   when it cannot be read.
package func readSmallFile(_ path: String) -> String? {
    guard let file = try? OwnedDescriptor.open(path, flags: O_RDONLY) else { return nil }
    var content: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 << 10)
    while true {
        let count = try? chunk.withUnsafeMutableBytes { buffer in
            try file.readOnce(into: buffer, at: content.count)
        }
        guard let count else { return nil }
        if count == 0 { break }
        content.append(contentsOf: chunk[..<count])
    }
    if content.last == UInt8(ascii: "\n") { content.removeLast() }
    return String(decoding: content, as: UTF8.self)
}

/// The names in a directory, sorted; none when it cannot be read.
///
/// The corresponding C function is `readdir`.
///
/// - Parameter path: the directory's path.
/// - Returns: the names, bytes that are no UTF-8 replaced.
package func namesInDirectory(_ path: String) -> [String] {
    guard let stream = opendir(path) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
}
