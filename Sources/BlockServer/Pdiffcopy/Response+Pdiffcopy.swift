// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import NIOHTTP1
internal import WireProtocol

extension Response {
    /// Characters of the reason in a status line.
    private static let longestReason = 500

    /// Puts the problem's reason into the status line: pdiffcopy prints no other part of an error.
    mutating func putReasonInStatusLine() {
        guard let problem else { return }
        var reason = problem.object.map { "\($0): " } ?? ""
        reason += problem.detail
        if let advice = problem.pdiffcopyAdvice { reason += ". \(advice)" }
        let line = reason.unicodeScalars.prefix(Self.longestReason).map { scalar in
            (0x20..<0x7F).contains(scalar.value) ? Character(scalar) : "?"
        }
        status = .custom(code: UInt(problem.status), reasonPhrase: String(line))
    }
}

extension Problem {
    /// Advice for users of pdiffcopy, which has none of blkferry's options.
    fileprivate var pdiffcopyAdvice: String? {
        if kind == .unauthorized { return "pdiffcopy cannot show one, blkferry can." }
        switch cause.flatMap({ IOError.Refusal(rawValue: $0) }) {
        case .signature:
            return
                "If that may be lost, end the file name with \(PdiffcopyService.overwriteSuffix)."
        case .size: return nil
        default: return advice
        }
    }
}
