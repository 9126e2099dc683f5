// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL
internal import LinuxIO

extension IOError {
    /// The error of a failed call of libcrypto on this thread, with libcrypto's own reason in brackets
    /// if it gave one; empties its error queue for later calls.
    ///
    /// The corresponding C functions are `ERR_peek_last_error`, `ERR_reason_error_string` and
    /// `ERR_clear_error`.
    static func digest(
        _ object: String, _ operation: String, failedCall summary: String
    ) -> IOError {
        let code = ERR_peek_last_error()
        let text = ERR_reason_error_string(code).map { " (\(String(cString: $0)))" }
        ERR_clear_error()
        return .digest(object, operation, reason: summary + (text ?? ""))
    }
}
