// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import WireProtocol

extension BlockDevice {
    /// The strong entity tag of the content (RFC 9110, section 8.8.3), with its quotes.
    ///
    /// It is made of the persistent change counter, the size and the device's identity. `nil` if
    /// the device has no such counter. It may wait until a change is old enough to be distinguished
    /// from a later one.
    var entityTag: String? {
        guard let counter = persistentChangeCounter(), let status = fileStatus else { return nil }
        var parts = counter.marks + [geometry.size]
        var boot = ""
        if isImage {
            parts += [status.fileSystem, status.inode].map { Int(truncatingIfNeeded: $0) }
        } else {
            parts.append(Int(truncatingIfNeeded: status.device))
            // The kernel restarts this counter at 0 at each boot.
            guard let id = bootIdentifier() else { return nil }
            boot = id
        }
        let text = parts.map { "\($0)" }.joined(separator: " ") + boot
        guard let digest = try? sha256(of: Array(text.utf8)) else { return nil }
        return "\"\(hexadecimal(digest.prefix(16)))\""
    }
}
