// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// There is no change map that can be trusted: whoever wanted one compares everything.
package struct ChangeMapError: Error, Hashable, Sendable {
    /// What it was to be a map of, or to come from.
    package var object: String
    /// Why there is none, on one line.
    package var reason: String
    /// What the user can do about it, on one line.
    package var advice: String?
    /// Whether there is none only because nobody wants it any more.
    package var isCancellation = false

    package init(_ object: String, _ reason: String, advice: String? = nil) {
        self.object = object
        self.reason = reason
        self.advice = advice
    }

    /// The run that wanted it is over.
    static func cancelled(_ object: String) -> ChangeMapError {
        var error = ChangeMapError(object, "interrupted")
        error.isCancellation = true
        return error
    }
}

extension ChangeMapError: CustomStringConvertible {
    package var description: String { "\(object): no change map: \(reason)" }
}
