// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import FoundationEssentials

/// JSON bodies with sorted keys, so that equal content has equal bytes.
package enum WireJSON {
    package static func encode(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Encoding structs of numbers and strings cannot fail.
        guard let data = try? encoder.encode(value) else { preconditionFailure("not encodable") }
        return [UInt8](data)
    }

    /// Parses a body; an error names the place.
    package static func decode<Value: Decodable>(
        _ type: Value.Type, from bytes: UnsafeRawBufferPointer
    ) throws(WireError) -> Value {
        guard bytes.count <= Limits.answer else { throw WireError("too much JSON") }
        do {
            return try JSONDecoder().decode(type, from: Data(bytes))
        } catch DecodingError.keyNotFound(let key, _) {
            throw WireError("JSON: \(key.stringValue) is missing")
        } catch DecodingError.typeMismatch(_, let context),
            DecodingError.valueNotFound(_, let context)
        {
            let path = context.codingPath.map(\.stringValue).joined(separator: ".")
            throw WireError("JSON: \(path.isEmpty ? "it" : path) is not of the right type")
        } catch DecodingError.dataCorrupted(let context) where !context.codingPath.isEmpty {
            let path = context.codingPath.map(\.stringValue).joined(separator: ".")
            throw WireError("JSON: \(path) has a value that is unknown")
        } catch {
            throw WireError("it is not JSON")
        }
    }
}
