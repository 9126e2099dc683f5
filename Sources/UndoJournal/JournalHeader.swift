// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe
internal import Digests
internal import LinuxIO
internal import WireProtocol

/// What a journal was taken from.
package struct JournalHeader: Codable, Hashable, Sendable {
    /// Leads to the target: its tag that does not change with its content, or its canonical path.
    package var target: String
    package var source: String
    /// Bytes before the run.
    package var size: Int
    package var isImage: Bool
    /// Whether the run created the image.
    package var isNew = false
    /// Distinguishes the target from another one under its name; `nil` if unknown.
    package var identity: TargetIdentity?
    /// Seconds since 1970.
    package var began: Int

    package init(target: String, source: String, size: Int, isImage: Bool, began: Int) {
        self.target = target
        self.source = source
        self.size = size
        self.isImage = isImage
        self.began = began
    }

    /// The kernel's boot identifier during the run; `nil` if unknown.
    package var boot: String? { identity?.boot }
}

/// The first pages of a journal; see docs/undo.md.
enum JournalStart {
    /// Bytes of the header, and of each page.
    static let size = 4096
    /// A page of zeros, unless the run went on without the journal.
    ///
    /// Any other byte means that the journal is incomplete, so that a torn page does, too.
    static let abandonedPlace = size
    /// A page of zeros until the run has ended, and the records are on the medium.
    static let endPlace = 2 * size
    /// Where the first record is.
    static let recordsPlace = 3 * size
    private static let magic = Array("BLKFUNDO".utf8)
    private static let version: UInt32 = 2
    static let identifierSize = 16
    private static let identifierPlace = 16
    private static let textPlace = identifierPlace + identifierSize
    private static let sealPlace = size - 32

    static func bytes(
        _ header: JournalHeader, _ identifier: [UInt8], _ path: String
    ) throws(IOError) -> [UInt8] {
        let text = WireJSON.encode(header)
        guard textPlace + text.count <= sealPlace else {
            throw IOError(path, "write", reason: "the names of source and target are too long")
        }
        var bytes = [UInt8](repeating: 0, count: size)
        bytes.replaceSubrange(..<magic.count, with: magic)
        bytes.withUnsafeMutableBytes { memory in
            memory.storeBytes(of: version.littleEndian, toByteOffset: 8, as: UInt32.self)
            memory.storeBytes(
                of: UInt32(text.count).littleEndian, toByteOffset: 12, as: UInt32.self)
        }
        bytes.replaceSubrange(identifierPlace..<textPlace, with: identifier)
        bytes.replaceSubrange(textPlace..<textPlace + text.count, with: text)
        bytes.replaceSubrange(sealPlace..., with: try sha256(of: Array(bytes[..<sealPlace])))
        return bytes
    }

    /// - Parameter bytes: `size` bytes.
    static func read(
        _ bytes: [UInt8], _ path: String
    ) throws(IOError) -> (JournalHeader, identifier: [UInt8]) {
        guard bytes.prefix(magic.count).elementsEqual(magic) else {
            throw .refusal(.wrongKind, path, "it is no undo journal of blkferry")
        }
        let (found, count) = bytes.withUnsafeBytes { memory in
            (
                UInt32(littleEndian: memory.loadUnaligned(fromByteOffset: 8, as: UInt32.self)),
                UInt32(littleEndian: memory.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
            )
        }
        guard found == version else {
            throw .refusal(
                .wrongKind, path, "it is an undo journal of version \(found)",
                advice: "Use the blkferry that wrote it, or a newer one.")
        }
        guard try sha256(of: Array(bytes[..<sealPlace])).elementsEqual(bytes[sealPlace...]),
            Int(count) <= sealPlace - textPlace,
            let header = bytes.withUnsafeBytes({ memory in
                try? WireJSON.decode(
                    JournalHeader.self, from: slice(memory, textPlace, textPlace + Int(count)))
            }), header.size >= 0
        else { throw .refusal(.wrongKind, path, "its first 4096 bytes are damaged") }
        return (header, Array(bytes[identifierPlace..<textPlace]))
    }

    /// The page at `endPlace` of a journal that has so many bytes at the end of its run.
    static func endPage(_ size: Int, _ identifier: [UInt8]) throws(IOError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: self.size)
        bytes.withUnsafeMutableBytes {
            $0.storeBytes(of: UInt64(size).littleEndian, as: UInt64.self)
        }
        bytes.replaceSubrange(sealPlace..., with: try sha256(of: identifier + bytes[..<sealPlace]))
        return bytes
    }

    /// The bytes that the journal must have; `nil` if the page is not sealed.
    static func endSize(_ page: [UInt8], _ identifier: [UInt8]) throws(IOError) -> Int? {
        guard
            try sha256(of: identifier + page[..<sealPlace]).elementsEqual(page[sealPlace...])
        else { return nil }
        let size = page.withUnsafeBytes { UInt64(littleEndian: $0.load(as: UInt64.self)) }
        return Int(exactly: size)
    }
}
