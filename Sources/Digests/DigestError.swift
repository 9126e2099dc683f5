// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL

/// A digest that cannot be had or computed.
///
/// It reads as every message of blkferry does: object, operation, reason; then, where there is
/// something to do about it, one line of advice.
package struct DigestError: Error, Hashable, Sendable {
    /// What was worked on: the digest's name as the user wrote it, or what a key is for.
    package var object: String
    /// What was tried, in words: `digest`, `draw random bytes`.
    package var operation: String
    /// The reason in words, with libcrypto's own in brackets where it gave one.
    package var reason: String
    /// What the user can do about it.
    package var advice: String?

    package init(_ object: String, _ operation: String, reason: String, advice: String? = nil) {
        self.object = object
        self.operation = operation
        self.reason = reason
        self.advice = advice
    }

    /// A call of libcrypto that failed just now, on this thread.
    ///
    /// libcrypto's queue of errors is read and emptied, so that nothing stale is left in it for
    /// others on this thread. The corresponding C functions are `ERR_peek_last_error`,
    /// `ERR_reason_error_string` and `ERR_clear_error`.
    ///
    /// - Parameters:
    ///   - object: what was worked on.
    ///   - operation: what was tried.
    ///   - summary: what the failure means.
    init(_ object: String, _ operation: String, failedCall summary: String) {
        let code = ERR_peek_last_error()
        let text = ERR_reason_error_string(code).map { " (\(String(cString: $0)))" }
        ERR_clear_error()
        self.init(object, operation, reason: summary + (text ?? ""))
    }
}

extension DigestError: CustomStringConvertible {
    package var description: String { "\(object): \(operation): \(reason)" }
}
