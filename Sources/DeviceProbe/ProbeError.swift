// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

/// A refusal of the safety gate, before anything was written.
package struct Refusal: Error, Hashable, Sendable {
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
        /// Another program or client has written to the target since the run's session ended.
        case changed = "changed"
    }

    package var cause: Cause
    /// The refused device, as the user wrote it.
    package var object: String
    /// Reason and advice are one line each.
    package var reason: String
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

/// Why a device cannot be used.
package enum ProbeError: Error, Hashable, Sendable {
    case refused(Refusal)
    case failed(IOError)
}

extension ProbeError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .refused(let refusal): refusal.description
        case .failed(let error): error.description
        }
    }

    package var advice: String? {
        switch self {
        case .refused(let refusal): refusal.advice
        case .failed(let error): error.advice
        }
    }
}

func asProbeError<Result: ~Copyable>(
    _ body: () throws(IOError) -> Result
) throws(ProbeError) -> Result {
    do throws(IOError) { return try body() } catch { throw .failed(error) }
}
