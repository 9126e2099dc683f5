// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// The directory for files until the next reboot, to which no other user can write; it may not
/// exist.
///
/// It is `/run/blkferry` for root, otherwise `$XDG_RUNTIME_DIR/blkferry` if that variable is set
/// (XDG Base Directory Specification).
package func usualRuntimeDirectory() -> String? {
    if geteuid() == 0 { return "/run/blkferry" }
    guard let directory = getenv("XDG_RUNTIME_DIR").map({ String(cString: $0) }),
        directory.hasPrefix("/")
    else { return nil }
    return "\(directory)/blkferry"
}
