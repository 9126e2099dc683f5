// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Identifies this boot of this machine; `nil` if the kernel does not tell.
package func bootIdentifier() -> String? { readSmallFile("/proc/sys/kernel/random/boot_id") }

/// The first two numbers of the running kernel's version, such as (6, 12); `nil` if it is unknown.
package func kernelVersion() -> (Int, Int)? {
    let release = readSmallFile("/proc/sys/kernel/osrelease") ?? ""
    let numbers = release.split { !($0.isASCII && $0.isNumber) }.prefix(2).compactMap { Int($0) }
    return numbers.count == 2 ? (numbers[0], numbers[1]) : nil
}

/// A device's name in /dev, from its entry in sysfs, which has `!` for `/`.
package func deviceName(_ entry: String) -> String { entry.replacing("!", with: "/") }
