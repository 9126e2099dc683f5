// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package enum Route: Hashable, Sendable {
    case info
    case devices
    case device(String)
    case content(String)
    case sessions(device: String)
    case session(String)
    case compare(session: String)
    case read(session: String)
    case write(session: String)
    case commit(session: String)

    /// Parses the target of a request, without its query; `nil` for an unknown path.
    package init?(_ target: some StringProtocol) {
        guard var parts = segments(of: target)?.decoded else { return nil }
        if parts.count > 1 && parts.last == "" { parts.removeLast() }
        guard parts.first == "v1", !parts.contains("") else { return nil }
        let names = parts.dropFirst().map { $0 }
        switch (names.count, names.first, names.dropFirst(2).first) {
        case (0, _, _): self = .info
        case (1, "devices", _): self = .devices
        case (2, "devices", _): self = .device(names[1])
        case (3, "devices", "content"): self = .content(names[1])
        case (3, "devices", "sessions"): self = .sessions(device: names[1])
        case (2, "sessions", _): self = .session(names[1])
        case (3, "sessions", "compare"): self = .compare(session: names[1])
        case (3, "sessions", "read"): self = .read(session: names[1])
        case (3, "sessions", "write"): self = .write(session: names[1])
        case (3, "sessions", "commit"): self = .commit(session: names[1])
        default: return nil
        }
    }

    package var path: String {
        switch self {
        case .info: "/v1"
        case .devices: "/v1/devices"
        case .device(let name): "/v1/devices/\(percentEncoded(name))"
        case .content(let name): "/v1/devices/\(percentEncoded(name))/content"
        case .sessions(let name): "/v1/devices/\(percentEncoded(name))/sessions"
        case .session(let id): "/v1/sessions/\(percentEncoded(id))"
        case .compare(let id): "/v1/sessions/\(percentEncoded(id))/compare"
        case .read(let id): "/v1/sessions/\(percentEncoded(id))/read"
        case .write(let id): "/v1/sessions/\(percentEncoded(id))/write"
        case .commit(let id): "/v1/sessions/\(percentEncoded(id))/commit"
        }
    }

    /// For `Allow`.
    package var methods: [String] {
        switch self {
        case .info, .devices, .device, .content: ["GET", "HEAD"]
        case .session: ["GET", "HEAD", "DELETE"]
        case .sessions, .compare, .read, .write, .commit: ["POST"]
        }
    }
}

/// The segments of a target's path, and its query; `nil` for a target that no route has.
func segments(of target: some StringProtocol) -> (decoded: [String], query: String)? {
    guard target.hasPrefix("/"), target.utf8.count <= 8192 else { return nil }
    let path = target.prefix { $0 != "?" && $0 != "#" }
    var decoded: [String] = []
    for part in path.split(separator: "/", omittingEmptySubsequences: false).dropFirst() {
        guard let text = percentDecoded(part) else { return nil }
        decoded.append(text)
    }
    return (decoded, String(target.dropFirst(path.count + 1).prefix { $0 != "#" }))
}

/// Percent-encodes all characters except the unreserved ones of RFC 3986 and `=`.
package func percentEncoded(_ text: String) -> String {
    var result = ""
    let digits = Array("0123456789ABCDEF")
    for byte in text.utf8 {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"),
            UInt8(ascii: "."), UInt8(ascii: "~"), UInt8(ascii: "="):
            result.unicodeScalars.append(Unicode.Scalar(byte))
        default:
            result.append("%")
            result.append(digits[Int(byte >> 4)])
            result.append(digits[Int(byte & 15)])
        }
    }
    return result
}

/// Decodes percent triplets; `nil` for half a triplet, a NUL and invalid UTF-8.
package func percentDecoded(_ text: some StringProtocol) -> String? {
    var bytes: [UInt8] = []
    var rest = text.utf8.makeIterator()
    while let byte = rest.next() {
        guard byte == UInt8(ascii: "%") else {
            bytes.append(byte)
            continue
        }
        guard let high = rest.next().flatMap(hexDigit), let low = rest.next().flatMap(hexDigit)
        else { return nil }
        bytes.append(high << 4 | low)
    }
    return bytes.contains(0) ? nil : String(validating: bytes, as: UTF8.self)
}

func hexDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
}

package func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef")
    var text = ""
    for byte in bytes {
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
    }
    return text
}

package func bytes(fromHexadecimal text: String) -> [UInt8]? {
    let digits = text.utf8.map(hexDigit)
    guard digits.count % 2 == 0, !digits.contains(where: { $0 == nil }) else { return nil }
    return stride(from: 0, to: digits.count, by: 2).map {
        (digits[$0] ?? 0) << 4 | (digits[$0 + 1] ?? 0)
    }
}
