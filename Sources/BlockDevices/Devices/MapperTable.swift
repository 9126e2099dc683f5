// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// The table of a device-mapper device.
package struct MapperTable: Hashable, Sendable {
    package struct Target: Hashable, Sendable {
        /// Such as `linear` or `thin-pool`.
        package var type: String
        package var parameters: String

        package init(type: String, parameters: String) {
            self.type = type
            self.parameters = parameters
        }
    }

    package let targets: [Target]
    /// A hash; two tables have the same one only by chance.
    let fingerprint: Int

    init(targets: [Target], fingerprint: Int) {
        self.targets = targets
        self.fingerprint = fingerprint
    }

    /// Bytes; larger tables are not read.
    private static let limit = 256 << 10

    /// Asks the kernel (`DM_TABLE_STATUS`); `nil` for other devices, and without permission.
    ///
    /// - Parameter number: `st_rdev`.
    package init?(of number: UInt64, control: String = "/dev/mapper/control") {
        guard let control = try? OwnedDescriptor.open(control, flags: O_RDWR) else { return nil }
        let memory = AlignedBuffer(count: Self.limit)
        var count: UInt32 = 0
        let descriptor = control.rawValue
        guard
            PrivilegedCalls.getMapperTable(
                descriptor, of: number,
                into: UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<Self.limit]),
                count: &count) == 0
        else { return nil }
        self.init(
            UnsafeRawBufferPointer(rebasing: memory.bytes[clb_mapper_table_start...]),
            count: Int(count))
    }

    /// Parses the kernel's answer.
    ///
    /// Source: `struct dm_target_spec` of linux/dm-ioctl.h, 40 bytes: first sector and length (64
    /// bits each), status and offset of the next one from the start (32 bits each), type (16
    /// characters); then the parameters as text.
    init?(_ bytes: UnsafeRawBufferPointer, count: Int) {
        var targets: [Target] = []
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        /// FNV-1a.
        func add(_ part: UnsafeRawBufferPointer.SubSequence) {
            for byte in part { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        }
        var place = 0
        for _ in 0..<count {
            guard place >= 0, place + 40 < bytes.count else { return nil }
            let type = bytes[place + 24..<place + 40].prefix { $0 != 0 }
            let parameters = bytes[(place + 40)...].prefix { $0 != 0 }
            targets.append(
                Target(
                    type: String(decoding: type, as: UTF8.self),
                    parameters: String(decoding: parameters, as: UTF8.self)))
            // First sector, length, type, parameters and their terminating zero byte.
            add(bytes[place..<place + 16])
            add(bytes[place + 24..<place + 40])
            add(parameters)
            hash &*= 0x100_0000_01B3
            place = Int(bytes.loadUnaligned(fromByteOffset: place + 20, as: UInt32.self))
        }
        guard !targets.isEmpty else { return nil }
        self.targets = targets
        fingerprint = Int(bitPattern: UInt(hash))
    }
}
