// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The table of a device-mapper device, or its status, which has the same form.
package struct MapperTable: Hashable, Sendable {
    package struct Target: Hashable, Sendable {
        /// Such as `linear` or `thin-pool`.
        package var type: String
        package var parameters: String
        /// Bytes.
        package var size: Int

        package init(type: String, parameters: String, size: Int = 0) {
            self.type = type
            self.parameters = parameters
            self.size = size
        }

        package var words: [Substring] { parameters.split(separator: " ") }
    }

    package let targets: [Target]
    /// A hash; two tables have the same one only by chance.
    let fingerprint: Int

    init(targets: [Target], fingerprint: Int) {
        self.targets = targets
        self.fingerprint = fingerprint
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
            let sectors = bytes.loadUnaligned(fromByteOffset: place + 8, as: UInt64.self)
            guard sectors <= Int.max / 512 else { return nil }
            let type = bytes[place + 24..<place + 40].prefix { $0 != 0 }
            let parameters = bytes[(place + 40)...].prefix { $0 != 0 }
            targets.append(
                Target(
                    type: String(decoding: type, as: UTF8.self),
                    parameters: String(decoding: parameters, as: UTF8.self),
                    size: Int(sectors) * 512))
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
