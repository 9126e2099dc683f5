// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Writes what a power cut may have left of a log of dm-log-writes, for the scenarios of tools/lab.
///
///     ReplayWrites LOG                      prints the number of entries, then a line for each flush,
///                                           write with FUA and mark: the entries up to it, and its
///                                           kind
///     ReplayWrites LOG DEVICE COUNT         writes the first COUNT entries
///     ReplayWrites LOG DEVICE COUNT SEED    writes those up to the last flush before, and of the
///                                           others random sectors
///
/// The format is that of the kernel's Documentation/admin-guide/device-mapper/log-writes.rst and
/// drivers/md/dm-log-writes.c: a superblock and an entry take a sector each, of the size that the
/// superblock has; the data of an entry follows it. The data of a mark is in its sector.
@main
enum ReplayWrites {
    static func main() {
        let words = Array(CommandLine.arguments.dropFirst())
        do {
            switch words.count {
            case 1: try WriteLog(words[0]).show()
            case 3, 4:
                guard let count = Int(words[2]) else { break }
                let seed = words.count == 4 ? UInt64(words[3]) : nil
                try WriteLog(words[0]).replay(count, onto: words[1], seed: seed)
            default: break
            }
        } catch {
            print("ReplayWrites: \(error)")
            exit(1)
        }
        guard words.count != 2, !words.isEmpty, words.count < 5 else { exit(64) }
    }
}

/// A log, read one entry at a time.
private struct WriteLog: ~Copyable {
    /// Source: dm-log-writes.c.
    private static let magic: UInt64 = 0x6A73_6677_7368_72
    private struct Flags: OptionSet {
        let rawValue: UInt64
        static let flush = Flags(rawValue: 1 << 0)
        static let fua = Flags(rawValue: 1 << 1)
        static let discard = Flags(rawValue: 1 << 2)
        static let mark = Flags(rawValue: 1 << 3)
    }
    private struct Entry {
        /// Bytes on the device.
        var offset: Int
        var length: Int
        var flags: Flags
        /// Bytes in the log, of the data; none is there for a discard.
        var data: Int
    }
    private struct Damaged: Error {}

    private let file: OwnedDescriptor
    private let sector: Int
    private let entries: [Entry]

    init(_ path: String) throws {
        let file = try OwnedDescriptor.open(path, flags: O_RDONLY)
        let start = try Self.numbers(file, at: 0, count: 4)
        let sector = Int(UInt32(truncatingIfNeeded: start[3]))
        guard start[0] == Self.magic, start[1] == 1, sector >= 512 else { throw Damaged() }
        var entries: [Entry] = []
        var place = sector
        for _ in 0..<start[2] {
            let fields = try Self.numbers(file, at: place, count: 4)
            let flags = Flags(rawValue: fields[2])
            let length = Int(fields[1]) * sector
            entries.append(
                Entry(
                    offset: Int(fields[0]) * sector, length: length, flags: flags,
                    data: place + sector))
            let hasData = flags.isDisjoint(with: [.discard, .mark])
            place += sector + (hasData ? length : 0)
        }
        self.file = file
        self.sector = sector
        self.entries = entries
    }

    func show() {
        print(entries.count)
        for (index, entry) in entries.enumerated() {
            if entry.flags.contains(.mark) { print(index + 1, "mark") }
            if entry.flags.contains(.flush) { print(index + 1, "flush") }
            if entry.flags.contains(.fua) { print(index + 1, "fua") }
        }
    }

    /// - Parameter seed: of the sectors that are left out; `nil` for none.
    func replay(_ count: Int, onto path: String, seed: UInt64?) throws {
        let target = try OwnedDescriptor.open(path, flags: O_WRONLY)
        let wanted = entries[..<min(count, entries.count)]
        var durable = wanted.endIndex
        if seed != nil {
            durable = wanted.lastIndex { $0.flags.contains(.flush) } ?? 0
        }
        var random = SplitMix64(seed: seed ?? 0)
        for (index, entry) in wanted.enumerated() where !entry.flags.contains(.mark) {
            // A write with FUA is durable by itself.
            let isWhole = index < durable || entry.flags.contains(.fua)
            let share = isWhole ? 8 : Int.random(in: 0...8, using: &random)
            var done = 0
            while done < entry.length {
                // Whole writes go in pieces, torn ones sector by sector.
                let length = min(share == 8 ? 1 << 20 : 512, entry.length - done)
                if Int.random(in: 0..<8, using: &random) < share {
                    try copy(entry, done, length, to: target)
                }
                done += length
            }
        }
        try target.synchronize()
    }

    private func copy(
        _ entry: Entry, _ start: Int, _ length: Int, to target: borrowing OwnedDescriptor
    ) throws {
        let memory = AlignedBuffer(count: length)
        let bytes = slice(memory.bytes, 0, length)
        if entry.flags.contains(.discard) {
            bytes.initializeMemory(as: UInt8.self, repeating: 0)
        } else if try file.read(into: bytes, at: entry.data + start) != length {
            throw Damaged()
        }
        try target.write(UnsafeRawBufferPointer(bytes), at: entry.offset + start)
    }

    /// Little-endian numbers of 64 bits.
    private static func numbers(
        _ file: borrowing OwnedDescriptor, at place: Int, count: Int
    ) throws -> [UInt64] {
        let memory = AlignedBuffer(count: count * 8)
        guard try file.read(into: slice(memory.bytes, 0, count * 8), at: place) == count * 8 else {
            throw Damaged()
        }
        return (0..<count).map {
            UInt64(
                littleEndian: UnsafeRawBufferPointer(memory.bytes)
                    .loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self))
        }
    }
}
