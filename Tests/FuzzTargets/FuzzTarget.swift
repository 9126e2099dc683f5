// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A parser of bytes that a stranger may have sent or written, run on any bytes at all.
///
/// What it accepts must keep the parser's promises and be the same when it is written and read
/// again; what it does not accept it has to reject by an error. Everything else ends the program.
package enum FuzzTarget: String, CaseIterable, Sendable {
    case compareRequest = "compare-request"
    case compareAnswer = "compare-answer"
    case map
    case readRequest = "read-request"
    case payload
    case sealed
    case packed
    case json
    case range
    case exportsFile = "exports-file"
    case tokensFile = "tokens-file"
    case location
    case pdiffcopyQuery = "pdiffcopy-query"
    case thinMetadata = "thin-metadata"
    case verity
    case rescueMap = "rescue-map"
    case delta

    /// Runs the parser.
    ///
    /// - Parameter bytes: the first one chooses the parser's other arguments, such as the size
    ///   of the device; `exports-file`, `tokens-file`, `location`, `pdiffcopy-query`,
    ///   `thin-metadata` and `rescue-map` take all of them as text, `verity` and `delta` as they
    ///   are.
    package func run(_ bytes: UnsafeRawBufferPointer) {
        let text = String(decoding: bytes, as: UTF8.self)
        switch self {
        case .exportsFile: return fuzzExportsFile(text)
        case .tokensFile: return fuzzTokensFile(text)
        case .location: return fuzzLocation(text)
        case .pdiffcopyQuery: return fuzzPdiffcopyQuery(text)
        case .thinMetadata: return fuzzThinMetadata(bytes)
        case .verity: return fuzzVerity(Array(bytes))
        case .rescueMap: return fuzzRescueMap(bytes)
        case .delta: return fuzzDelta(bytes)
        default: break
        }
        guard let choice = bytes.first else { return }
        let rest = UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
        switch self {
        case .compareRequest: fuzzCompareRequest(rest, choice)
        case .compareAnswer: fuzzCompareAnswer(rest, choice)
        case .map: fuzzMap(rest, choice)
        case .readRequest: fuzzReadRequest(rest, choice)
        case .payload: fuzzPayload(rest, choice)
        case .sealed: fuzzSealed(rest, choice)
        case .packed: fuzzPacked(rest, choice)
        case .json: fuzzJSON(rest, choice)
        case .range: fuzzRange(String(decoding: rest, as: UTF8.self), choice)
        case .exportsFile, .tokensFile, .location, .pdiffcopyQuery, .thinMetadata, .verity,
            .rescueMap, .delta:
            break
        }
    }
}

/// Ends the program where a promise is broken, with optimisation too.
func require(_ condition: @autoclosure () -> Bool, _ promise: String) {
    if !condition() { fatalError("broken promise: \(promise)") }
}

/// One of several values, chosen by two bits of a byte.
func chosen<Value>(_ byte: UInt8, _ shift: UInt8, of values: [Value]) -> Value {
    values[Int(byte >> shift & 3) % values.count]
}

/// Bytes that a function writes into memory of a size.
func written(_ count: Int, _ body: (UnsafeMutableRawBufferPointer) -> Void) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { memory, written in
        body(UnsafeMutableRawBufferPointer(memory))
        written = count
    }
}
