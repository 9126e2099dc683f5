// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import FoundationEssentials

/// Encodes bytes in base64 (RFC 4648, section 4).
///
/// - Parameter isForURLs: uses `-` and `_` and no padding (section 5).
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
