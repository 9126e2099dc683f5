// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A path from sysfs or procfs, whose bytes need not be UTF-8.
///
/// A `String` would replace invalid UTF-8. It then leads to no file, and different paths look equal.
package struct KernelPath: Hashable, Sendable {
    package let bytes: [UInt8]

    package init(_ bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }

    package init(_ text: String) { bytes = Array(text.utf8) }

    /// Reads the path that a file contains; `nil` if the file cannot be read.
    package init?(inFile file: String) {
        guard let content = try? smallFileBytes(file) else { return nil }
        bytes = content
    }

    /// For messages, with invalid UTF-8 replaced.
    package var text: String { String(decoding: bytes, as: UTF8.self) }

    package var isAbsolute: Bool { bytes.first == UInt8(ascii: "/") }

    /// With the zero at its end.
    package var cString: [CChar] { bytes.map { CChar(truncatingIfNeeded: $0) } + [0] }
}
