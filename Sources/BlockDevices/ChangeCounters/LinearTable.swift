// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Notices that the table of an open device-mapper device was replaced.
///
/// `dmsetup suspend`, `load` and `resume` map the device to other bytes. It keeps its number, size
/// and disk sequence number. Only tables of `linear` and `striped` targets are watched: the kernel
/// or a daemon changes some other tables without changing the content, such as those of multipath.
struct LinearTable {
    private let number: UInt64
    private var marks: [Int]
    /// How often another table was found.
    private(set) var replacements = 0
    private var reported = 0

    private static let types: Set<String> = ["linear", "striped"]

    /// `nil` for other devices and tables, and without permission to read the table.
    ///
    /// - Parameter number: `st_rdev`.
    init?(of number: UInt64) {
        guard let device = SystemDevice(number: number), device.attribute("dm/name") != nil,
            // The table of an encrypted device may contain its key.
            device.attribute("dm/uuid")?.hasPrefix("CRYPT-") != true,
            let table = DeviceMapper().table(of: number),
            table.targets.allSatisfy({ Self.types.contains($0.type) }),
            let marks = Self.marks(table, number)
        else { return nil }
        self.number = number
        self.marks = marks
    }

    /// Reads the table again; a table that cannot be read is no other one.
    mutating func update() {
        let before = marks
        accept()
        if marks != before { replacements += 1 }
    }

    /// Takes the current table as the one that must stay.
    mutating func accept() {
        guard let table = DeviceMapper().table(of: number), let now = Self.marks(table, number)
        else { return }
        marks = now
    }

    /// Whether another table was found since the last call.
    mutating func takeReplacement() -> Bool {
        update()
        defer { reported = replacements }
        return replacements > reported
    }

    /// The table and the sysfs links of the devices below, which differ even after the first table
    /// was restored.
    private static func marks(_ table: MapperTable, _ number: UInt64) -> [Int]? {
        guard let slaves = SystemDevice(number: number)?.slaves else { return nil }
        return [table.fingerprint] + slaves.map(\.link)
    }
}
