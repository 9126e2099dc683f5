// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import FoundationEssentials

/// JSON for scripts: one object, sorted keys, one line.
enum JSON {
    static func line(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        // Structs of numbers and strings always encode.
        guard let data = try? encoder.encode(value) else { preconditionFailure("not encodable") }
        return withoutControls(String(decoding: data, as: UTF8.self))
    }

    /// Escapes control characters, so that strings do not change a terminal; a JSON parser restores
    /// them.
    ///
    /// The encoder itself escapes C0. There are no control characters outside of strings.
    private static func withoutControls(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        return text.unicodeScalars.map { scalar in
            guard isControl(scalar) else { return String(scalar) }
            let digits = String(scalar.value, radix: 16)
            return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }.joined()
    }
}
