// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// A format of files that do not hold the plain bytes of a disk, such as a virtual machine's image.
///
/// libblkid knows none of them.
package struct FileFormat: Sendable {
    /// The program that makes a disk image from such a file.
    enum Unpacker: Hashable, Sendable {
        /// qemu-img(1), by its name for the format.
        case qemu(String)
        /// A program that writes the content to standard output.
        case filter(String)
        /// A program that takes source and target as arguments.
        case command(String)
    }

    enum Place: Hashable, Sendable {
        case start(Int)
        /// Bytes before the end of the file.
        case end(Int)
    }

    /// Used like libblkid's type names.
    package let type: String
    /// In words, with an article: `a qcow2 image`.
    package let phrase: String
    let unpacker: Unpacker?
    let magic: [UInt8]
    let place: Place

    init(
        _ type: String, _ phrase: String, _ magic: [UInt8], _ place: Place = .start(0),
        _ unpacker: Unpacker? = nil
    ) {
        self.type = type
        self.phrase = phrase
        self.magic = magic
        self.place = place
        self.unpacker = unpacker
    }

    init(
        _ type: String, _ phrase: String, _ magic: String, _ place: Place = .start(0),
        _ unpacker: Unpacker? = nil
    ) {
        self.init(type, phrase, Array(magic.utf8), place, unpacker)
    }

    var magicLength: Int { max(1, magic.count) }

    var isText: Bool { type == Self.text.type }

    func place(size: Int) -> Int {
        switch place {
        case .start(let offset): offset
        case .end(let distance): max(0, size - distance)
        }
    }

    /// One line on how to make a disk image from the file; `nil` if it holds none.
    ///
    /// - Parameter name: the user's name for the file. A file behind a URL is unpacked on its
    ///   server, since none of the programs reads such URLs.
    func advice(_ name: String) -> String? {
        let path = Self.path(onServer: name)
        let file = printable(path ?? name)
        let command: String
        switch unpacker {
        case .qemu(let format): command = "qemu-img convert -f \(format) -O raw \(file) disk.img"
        case .filter(let filter): command = "\(filter) \(file) > disk.img"
        case .command(let other): command = other
        case nil: return nil
        }
        return "\(command) unpacks it\(path == nil ? "" : " on the server's machine")."
    }

    /// The same for a file that comes through a pipe.
    var adviceForStream: String? {
        if case .filter(let filter)? = unpacker { return "\(filter) before the pipe unpacks it." }
        return advice("FILE")
    }

    /// The path in a URL or in scp's form of one; `nil` for a file on this machine.
    private static func path(onServer name: String) -> String? {
        guard case .path = Selector(name) else { return nil }
        let bytes = name.utf8
        guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")),
            !bytes[..<colon].contains(UInt8(ascii: "/"))
        else { return nil }
        let rest = bytes[bytes.index(after: colon)...]
        let path = (rest.starts(with: "//".utf8) ? rest.dropFirst(2) : rest).drop {
            $0 != UInt8(ascii: "/")
        }
        return path.isEmpty ? name : String(Substring(path))
    }

    static func named(_ type: String) -> FileFormat? { byType[type] }

    private static let byType = Dictionary(
        (all + [text]).map { ($0.type, $0) }, uniquingKeysWith: { first, _ in first })
}

// MARK: - Finding

extension FileFormat {
    private static let head = 4096

    /// Finds the format of a regular file, or of a device, where text does not count.
    ///
    /// `nil` if it may be the bytes of a disk, or if it cannot be read.
    static func find(
        _ file: borrowing OwnedDescriptor, size: Int, isImage: Bool
    ) -> FileFormat? {
        guard let start = file.bytes(of: ByteRange(0, to: min(head, size))) else { return nil }
        let end = file.bytes(of: ByteRange(max(0, size - 512), to: size)) ?? []
        if let known = all.first(where: { $0.matches(start, end) }) { return known }
        if isTar(start) { return named("tar") }
        return isImage && isText(start, isAll: size <= head) ? text : nil
    }

    /// Whether the checksum of a tar header is right, since version 7 of tar has no magic number.
    ///
    /// Source: tar(5), "Old-Style Archive Format": the field of the checksum counts as spaces.
    private static func isTar(_ start: [UInt8]) -> Bool {
        guard start.count >= 512, start[0] > 0 else { return false }
        let field = start[148..<156].drop { $0 == 32 }.prefix { (48...55).contains($0) }
        guard !field.isEmpty, field.endIndex < 156, [0, 32].contains(start[field.endIndex]) else {
            return false
        }
        let sum = (start[..<148] + start[156..<512]).reduce(8 * 32) { $0 + Int($1) }
        return field.reduce(0) { $0 * 8 + Int($1) - 48 } == sum
    }

    private func matches(_ start: [UInt8], _ end: [UInt8]) -> Bool {
        switch place {
        case .start(let offset): Self.has(magic, start, at: offset) && isPlausible(start)
        case .end(let distance): Self.has(magic, end, at: end.count - distance)
        }
    }

    private static func has(_ magic: [UInt8], _ bytes: [UInt8], at offset: Int) -> Bool {
        offset >= 0 && bytes.count >= offset + magic.count
            && bytes[offset..<offset + magic.count].elementsEqual(magic)
    }

    private func isPlausible(_ start: [UInt8]) -> Bool {
        switch type {
        // RFC 1952: the upper three flags are reserved.
        case "gzip": start.count > 3 && start[3] & 0xe0 == 0
        case "bzip2":
            start.count > 9 && start[4..<10].elementsEqual([0x31, 0x41, 0x59, 0x26, 0x53, 0x59])
        case "bmap": Self.contains("<bmap", start)
        case "jpeg": start.count > 3 && start[3] >= 0xc0
        // "MZ" alone may be chance: bytes 60 and 61 must point to the program's header.
        case "pe":
            start.count > 64
                && Self.has(Array("PE\0\0".utf8), start, at: Int(start[60]) | Int(start[61]) << 8)
        // After "BM": two zeros, and the size of a known header.
        case "bmp":
            start.count > 18 && start[6..<10].allSatisfy { $0 == 0 }
                && [12, 40, 52, 56, 64, 108, 124].contains(start.littleEndian(4, at: 14))
        // X.690: a sequence that begins with another sequence or with a version.
        case "der":
            start.count > 6
                && (start[4...5].elementsEqual([0x30, 0x82]) || start[4...5].elementsEqual([2, 1]))
        // RFC 8878, 3.1.2: a skippable frame begins with 0x50 to 0x5f.
        case "pzstd": start[0] & 0xf0 == 0x50
        default: true
        }
    }

    private static func contains(_ text: String, _ bytes: [UInt8]) -> Bool {
        let wanted = Array(text.utf8)
        guard bytes.count >= wanted.count else { return false }
        return (0...bytes.count - wanted.count).contains { has(wanted, bytes, at: $0) }
    }

    /// Whether the start of a file, or `isAll` of it, is text.
    ///
    /// Text is UTF-8, a one-byte encoding such as Latin-1, or UTF-16 with a byte order mark.
    private static func isText(_ bytes: [UInt8], isAll: Bool) -> Bool {
        if bytes.starts(with: [0xff, 0xfe]) || bytes.starts(with: [0xfe, 0xff]) {
            return isUTF16(bytes, isAll: isAll)
        }
        guard bytes.allSatisfy({ isPlain(UInt16($0)) }), bytes.contains(10) || isAll, !bytes.isEmpty
        else { return false }
        // A character has at most four bytes.
        let isUTF8 = (0...(isAll ? 0 : 3)).contains {
            String(validating: bytes.dropLast($0), as: UTF8.self) != nil
        }
        return isUTF8 || bytes.contains(10) && bytes.contains { (32..<127).contains($0) }
    }

    private static func isPlain(_ unit: UInt16) -> Bool {
        unit >= 32 && unit != 127 || (9...13).contains(unit) || unit == 27
    }

    private static func isUTF16(_ bytes: [UInt8], isAll: Bool) -> Bool {
        let isBig = bytes[0] == 0xfe
        guard bytes.count > 2, bytes.count.isMultiple(of: 2) else { return false }
        let units = stride(from: 2, to: bytes.count, by: 2).map { at in
            UInt16(isBig ? bytes.bigEndian(2, at: at) : bytes.littleEndian(2, at: at))
        }
        guard units.allSatisfy({ isPlain($0) && $0 < 0xfffe }), units.contains(10) || isAll else {
            return false
        }
        // A character has at most two units.
        return (0...(isAll ? 0 : 1)).contains {
            String(validating: units.dropLast($0), as: UTF16.self) != nil
        }
    }
}
