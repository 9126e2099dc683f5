// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Digests
import Glibc
import Testing
import WireProtocol

/// The top of the source tree.
let sourceTree = #filePath.split(separator: "/").dropLast(3).reduce("") { "\($0)/\($1)" }

/// One example of docs/protocol-vectors.txt.
struct Vector: Sendable, CustomTestStringConvertible {
    var fields: [String: String] = [:]
    var frame: [UInt8] = []

    var testDescription: String { fields["vector"] ?? "?" }
    var kind: String { fields["kind"] ?? "?" }

    func text(_ name: String) throws -> String {
        try #require(fields[name], "\(testDescription): \(name) is missing")
    }

    func number(_ name: String) throws -> Int { try #require(Int(try text(name))) }

    func range() throws -> ByteRange {
        ByteRange(offset: try number("offset"), length: try number("length"))
    }

    /// The ranges of a window.
    func ranges() throws -> [ByteRange] {
        try text("ranges").split(separator: " ").map { word in
            let numbers = word.split(separator: "+").compactMap { Int($0) }
            try #require(numbers.count == 2, "\(testDescription): \(word)")
            return ByteRange(offset: numbers[0], length: numbers[1])
        }
    }

    func method() throws -> DigestMethod { try DigestMethod(named: try text("digest")) }

    func hasher() throws -> BlockHasher {
        let key = try fields["key"].map { try DigestKey(try #require(bytes(fromHexadecimal: $0))) }
        return try BlockHasher(try method(), key: key)
    }

    func layout() throws -> BlockLayout {
        BlockLayout(block: try number("block"), region: try number("region"))
    }

    /// What is before the sealing digest, once that was found to be right.
    func content() throws -> [UInt8] {
        var hasher = try hasher()
        return try frame.withUnsafeBytes { Array(try SealedFrame.open($0, &hasher)) }
    }

    /// All examples of the file.
    static let all: [Vector] = {
        do { return try read("\(sourceTree)/docs/protocol-vectors.txt") } catch {
            Issue.record("docs/protocol-vectors.txt: \(error)")
            return []
        }
    }()

    private static func read(_ path: String) throws -> [Vector] {
        let text = String(decoding: try contents(of: path), as: UTF8.self)
        var vectors: [Vector] = []
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            if line.hasPrefix("    ") {
                vectors[vectors.count - 1].frame += try compactBytes(
                    line.prefix { $0 != "#" })
                continue
            }
            let colon = try #require(line.firstIndex(of: ":"), "\(line)")
            let (name, value) = (line[..<colon], line[line.index(after: colon)...])
            if name == "vector" { vectors.append(Vector()) }
            vectors[vectors.count - 1].fields[String(name)] = String(value.drop { $0 == " " })
        }
        return vectors
    }
}

/// Bytes in hexadecimal, `xx*n` for a byte n times.
func compactBytes(_ text: some StringProtocol) throws -> [UInt8] {
    var result: [UInt8] = []
    for word in text.split(separator: " " as Character) {
        let parts: [String] = word.split(separator: "*" as Character).map { String($0) }
        let byte = try #require(bytes(fromHexadecimal: parts[0])?.first)
        let count = parts.count > 1 ? try #require(Int(parts[1])) : 1
        result += [UInt8](repeating: byte, count: count)
    }
    return result
}

/// A whole file.
func contents(of path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "re"), "\(path): cannot be opened")
    defer { fclose(file) }
    var result: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = fread(&chunk, 1, chunk.count, file)
        guard count > 0 else { return result }
        result += chunk[..<count]
    }
}
