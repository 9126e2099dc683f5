// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL

/// A digest that is not available or failed, with a message like all others of blkferry.
package struct DigestError: Error, Hashable, Sendable {
    /// The digest as the user wrote it, or the purpose of a key.
    package var object: String
    /// Such as `digest` or `draw random bytes`.
    package var operation: String
    /// With libcrypto's own reason in brackets if it gave one.
    package var reason: String
    package var advice: String?

    package init(_ object: String, _ operation: String, reason: String, advice: String? = nil) {
        self.object = object
        self.operation = operation
        self.reason = reason
        self.advice = advice
    }

    /// Describes a failed call of libcrypto on this thread, and empties its error queue for later
    /// calls.
    ///
    /// The corresponding C functions are `ERR_peek_last_error`, `ERR_reason_error_string` and
    /// `ERR_clear_error`.
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
