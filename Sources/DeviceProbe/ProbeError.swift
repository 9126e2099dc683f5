// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

/// The safety gate's no, before anything was written.
package struct Refusal: Error, Hashable, Sendable {
    /// Why, for programs.
    package enum Cause: String, Sendable {
        case inUse = "in-use"
        case locked = "locked"
        case readOnly = "read-only"
        case wrongKind = "wrong-kind"
        case overlap = "overlap"
        case signature = "signature"
        case size = "size"
        case sectorSize = "sector-size"
        case ambiguousSelector = "ambiguous-selector"
        case noSpace = "no-space"
        case nameTaken = "name-taken"
    }

    package var cause: Cause
    /// What was not written to, as the user wrote it.
    package var object: String
    /// Why, on one line.
    package var reason: String
    /// What the user can do about it, on one line.
    package var advice: String?

    package init(_ cause: Cause, _ object: String, _ reason: String, advice: String? = nil) {
        self.cause = cause
        self.object = object
        self.reason = reason
        self.advice = advice
    }
}

extension Refusal: CustomStringConvertible {
    package var description: String { "\(object): refused: \(reason)" }
}

/// Why a device cannot be taken.
package enum ProbeError: Error, Hashable, Sendable {
    /// The safety gate said no.
    case refused(Refusal)
    /// The system said no.
    case failed(IOError)
}

extension ProbeError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .refused(let refusal): refusal.description
        case .failed(let error): error.description
        }
    }

    /// What the user can do about it, on one line.
    package var advice: String? {
        switch self {
        case .refused(let refusal): refusal.advice
        case .failed(let error): error.advice
        }
    }
}

/// Runs what throws an `IOError` where a `ProbeError` is wanted.
func asProbeError<Result: ~Copyable>(
    _ body: () throws(IOError) -> Result
) throws(ProbeError) -> Result {
    do throws(IOError) { return try body() } catch { throw .failed(error) }
}
