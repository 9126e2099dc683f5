// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// A block device in sysfs.
package struct SystemDevice {
    /// The directory without symbolic links; that of a partition is within that of its disk.
    let directory: String
    let sys: String

    /// Looks a device up by its number (`st_rdev`).
    package init?(number: UInt64, sys: String = "/sys") {
        self.init("dev/block/\(clb_major(number)):\(clb_minor(number))", in: sys)
    }

    /// Looks a device up by the kernel's name.
    init?(named name: String, sys: String = "/sys") { self.init("class/block/\(name)", in: sys) }

    private init?(_ path: String, in sys: String) {
        guard let directory = try? canonicalPath("\(sys)/\(path)") else { return nil }
        self.init(directory: directory, sys: sys)
    }

    private init(directory: String, sys: String) {
        self.directory = directory
        self.sys = sys
    }

    /// The kernel's name, such as `sda1`.
    var name: String { String(directory[directory.index(after: lastSlash)...]) }

    private var lastSlash: String.Index { directory.lastIndex(of: "/") ?? directory.startIndex }

    package var number: UInt64? {
        let parts = attribute("dev")?.split(separator: ":").compactMap { UInt32($0) } ?? []
        return parts.count == 2 ? clb_makedev(parts[0], parts[1]) : nil
    }

    package func attribute(_ name: String) -> String? { readSmallFile("\(directory)/\(name)") }

    package func integer(_ name: String) -> Int? { readInteger("\(directory)/\(name)") }

    func names(in name: String) -> [String] { namesInDirectory("\(directory)/\(name)") }

    /// The disk of a partition; `nil` for other devices.
    var disk: SystemDevice? {
        guard attribute("partition") != nil else { return nil }
        return SystemDevice(directory: String(directory[..<lastSlash]), sys: sys)
    }

    var partitions: [SystemDevice] {
        namesInDirectory(directory)
            .map { SystemDevice(directory: "\(directory)/\($0)", sys: sys) }
            .filter { $0.attribute("partition") != nil }
    }

    package struct Slave {
        package let device: SystemDevice
        /// The inode number of the sysfs link, which differs each time the upper device starts to
        /// use this one.
        ///
        /// The kernel creates the link with the first use and removes it with the last
        /// (bd_link_disk_holder in block/holder.c). It reuses a number only after all others
        /// (idr_alloc_cyclic in fs/kernfs/dir.c).
        let link: Int
    }

    /// The devices below this one, ordered by name; `nil` if one of them has disappeared.
    package var slaves: [Slave]? {
        var found: [Slave] = []
        for name in names(in: "slaves") {
            var status = stat()
            guard lstat("\(directory)/slaves/\(name)", &status) == 0,
                let device = SystemDevice(named: name, sys: sys)
            else { return nil }
            found.append(Slave(device: device, link: Int(truncatingIfNeeded: status.st_ino)))
        }
        return found
    }
}
