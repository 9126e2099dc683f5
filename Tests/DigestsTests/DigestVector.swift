// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import Testing

/// A published message and its digest.
struct DigestVector: Sendable, CustomTestStringConvertible {
    var method = ""
    var key: [UInt8]?
    var message: [UInt8] = []
    var digest: [UInt8] = []

    var testDescription: String { "\(method) of \(message.count) bytes" }

    /// Reads vectors in the form of NIST's .rsp files.
    ///
    /// That is `Name = value` in each line, and an empty line between two vectors. A value may go
    /// on in lines without a name; `Text` is a message as it stands.
    static func vectors(_ table: String) -> [DigestVector] {
        var vectors = [DigestVector()]
        var name = ""
        for line in table.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.isEmpty {
                vectors.append(DigestVector())
                continue
            }
            let parts = line.split(separator: "=", omittingEmptySubsequences: false)
            if parts.count == 2 { name = String(parts[0].filter { $0 != " " }) }
            let value = parts[parts.count - 1].drop { $0 == " " }
            vectors[vectors.count - 1].take(name, value)
        }
        return vectors
    }

    private mutating func take(_ name: String, _ value: Substring) {
        switch name {
        case "Method": method = String(value)
        case "Key": key = (key ?? []) + bytes(hexadecimal: value)
        case "Msg": message += bytes(hexadecimal: value)
        case "Text": message += Array(value.utf8)
        case "MD": digest += bytes(hexadecimal: value)
        default: preconditionFailure("no such name: \(name)")
        }
    }
}

private func bytes(hexadecimal text: Substring) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    precondition(digits.count == text.count && digits.count % 2 == 0)
    return stride(from: 0, to: digits.count, by: 2).map {
        UInt8(digits[$0] << 4 | digits[$0 + 1])
    }
}

/// The digest of one message by a hasher made for it.
func oneShot(
    _ method: DigestMethod, _ key: DigestKey?, _ message: [UInt8]
) throws -> [UInt8] {
    var hasher = try BlockHasher(method, key: key)
    return try hasher.digest(of: message)
}

extension BlockHasher {
    mutating func digest(of message: [UInt8]) throws -> [UInt8] {
        var digest = [UInt8](repeating: 0xA5, count: method.byteCount)
        try message.withUnsafeBytes { message in
            try digest.withUnsafeMutableBytes { digest in
                try self.digest(of: message, into: digest)
            }
        }
        return digest
    }
}
