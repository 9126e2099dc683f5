// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import FoundationEssentials

/// JSON for scripts: one object, keys sorted, one line.
enum JSON {
    static func line(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        // Encoding plain structs of numbers and strings cannot fail.
        guard let data = try? encoder.encode(value) else { preconditionFailure("not encodable") }
        return String(decoding: data, as: UTF8.self)
    }
}
