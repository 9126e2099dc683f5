// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The error if no trustworthy change map can be made; the caller falls back to a full comparison.
package struct ChangeMapError: Error, Hashable, Sendable {
    package var object: String
    /// The reason, on one line.
    package var reason: String
    /// Advice for the user, on one line.
    package var advice: String?
    package var isCancellation = false

    package init(_ object: String, _ reason: String, advice: String? = nil) {
        self.object = object
        self.reason = reason
        self.advice = advice
    }

    static func cancelled(_ object: String) -> ChangeMapError {
        var error = ChangeMapError(object, "interrupted")
        error.isCancellation = true
        return error
    }
}

extension ChangeMapError: CustomStringConvertible {
    package var description: String { "\(object): no change map: \(reason)" }
}
