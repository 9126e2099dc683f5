// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
package import LinuxIO

/// What a file of `blkferry digest` has behind its tree: a line of text, and line feeds up to
/// `size` bytes.
///
///     blkferry-digest 1 size=SIZE root=ROOT tail=TAIL sum=SUM
///
/// SIZE is that of the device in bytes. ROOT is the root hash. TAIL is the SHA-256 of the bytes
/// behind the last whole block, or `-` if there are none. SUM is the SHA-256 of the superblock and
/// the line up to the space before `sum`.
package struct VeritySeal: Hashable, Sendable {
    /// Bytes in the file.
    package static let size = 4096
    private static let start = "blkferry-digest 1 "

    /// Bytes of the device.
    package var deviceSize: Int
    package var digests: VerityDigests

    package init(deviceSize: Int, _ digests: VerityDigests) {
        self.deviceSize = deviceSize
        self.digests = digests
    }

    /// - Parameter superblock: its 512 bytes.
    package func bytes(after superblock: [UInt8]) throws(IOError) -> [UInt8] {
        let tail = digests.tail.map { hexadecimal($0) } ?? "-"
        let line =
            "\(Self.start)size=\(deviceSize) root=\(hexadecimal(digests.root)) tail=\(tail)"
        let sum = hexadecimal(try sha256(of: superblock + Array(line.utf8)))
        let text = Array("\(line) sum=\(sum)\n".utf8)
        return text + [UInt8](repeating: 10, count: Self.size - text.count)
    }

    /// - Throws: the reason why it is damaged, also if it does not fit the superblock.
    package init(_ bytes: [UInt8], after superblock: [UInt8]) throws(WireError) {
        let damaged = WireError("its last line is damaged")
        guard let line = String(validating: bytes.prefix { $0 != 10 }, as: UTF8.self),
            line.hasPrefix(Self.start)
        else { throw damaged }
        let words = line.dropFirst(Self.start.count).split(
            separator: " ", omittingEmptySubsequences: false)
        func value(_ index: Int, _ name: String) -> Substring? {
            guard words.count == 4, words[index].hasPrefix("\(name)=") else { return nil }
            return words[index].dropFirst(name.count + 1)
        }
        guard let size = value(0, "size").flatMap({ Int($0) }),
            (0...Geometry.maximumSize).contains(size),
            let root = value(1, "root").flatMap({
                WireProtocol.bytes(fromHexadecimal: String($0))
            }),
            root.count == VerityShape.digest, let tailText = value(2, "tail")
        else { throw damaged }
        let tail = tailText == "-" ? nil : WireProtocol.bytes(fromHexadecimal: String(tailText))
        guard (tail == nil) == (tailText == "-"), (tail?.count ?? 32) == VerityShape.digest,
            (tail == nil) == (size % VerityShape.block == 0)
        else { throw damaged }
        self.init(deviceSize: size, VerityDigests(root: root, tail: tail))
        // Written again, it has the right sum, and spaces and line feeds where they belong.
        guard let again = try? self.bytes(after: superblock), again == bytes else { throw damaged }
    }
}

/// What pins the content of a device: `ROOT`, or `ROOT:TAIL` if there are bytes behind its last
/// whole block.
package struct VerityDigests: Hashable, Sendable {
    /// The root hash, as veritysetup prints it; zeros if the device has no whole block.
    package var root: [UInt8]
    /// The SHA-256 of the bytes behind the last whole block; `nil` if there are none.
    package var tail: [UInt8]?

    package init(root: [UInt8], tail: [UInt8]?) {
        self.root = root
        self.tail = tail
    }

    /// Parses what `text` prints; hexadecimal digits may be of either case.
    package init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            .map { bytes(fromHexadecimal: String($0)) }
        guard (1...2).contains(parts.count),
            parts.allSatisfy({ $0?.count == VerityShape.digest }), let root = parts[0]
        else { return nil }
        self.init(root: root, tail: parts.count == 2 ? parts[1] : nil)
    }

    package var text: String {
        hexadecimal(root) + (tail.map { ":" + hexadecimal($0) } ?? "")
    }
}
