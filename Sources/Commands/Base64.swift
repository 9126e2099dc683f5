// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import FoundationEssentials

/// Bytes as letters (RFC 4648).
///
/// - Parameters:
///   - bytes: what to write.
///   - isForURLs: with `-` and `_`, and without padding (section 5), else as in section 4.
/// - Returns: four letters for three bytes.
func base64(_ bytes: [UInt8], isForURLs: Bool = false) -> String {
    let text = Data(bytes).base64EncodedString()
    guard isForURLs else { return text }
    return String(
        text.compactMap { letter -> Character? in
            switch letter {
            case "+": "-"
            case "/": "_"
            case "=": nil
            default: letter
            }
        })
}
