// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import SystemPackage

/// A system call on a device or file that failed.
///
/// It reads as every message of blkferry does: object, operation, reason; then, where there is
/// something to do about it, one line of advice.
package struct IOError: Error, Hashable, Sendable {
    /// What was worked on: a path, as the user wrote it where there is such a name.
    package var object: String
    /// What was tried, in words: `open`, `read at 4096, 512 bytes`.
    package var operation: String
    /// The system's reason; `nil` where no system call failed but its result was wrong.
    package var errno: Errno?
    /// The reason in words.
    package var reason: String
    /// What the user can do about it.
    package var advice: String?
    /// Whether the way to the device failed, and not the device.
    package var isNetwork = false
    /// Of those: whether the other side was there, and does not know or trust this one.
    package var isUnauthorized = false

    package init(_ object: String, _ operation: String, _ errno: Errno, advice: String? = nil) {
        self.object = object
        self.operation = operation
        self.errno = errno
        self.reason = errno.description
        self.advice = advice
    }

    package init(_ object: String, _ operation: String, reason: String, advice: String? = nil) {
        self.object = object
        self.operation = operation
        self.errno = nil
        self.reason = reason
        self.advice = advice
    }

    /// The way to a device on another machine failed, or the server there broke the protocol.
    package static func network(
        _ object: String, _ operation: String, reason: String, advice: String? = nil
    ) -> IOError {
        var error = IOError(object, operation, reason: reason, advice: advice)
        error.isNetwork = true
        return error
    }
}

extension IOError: CustomStringConvertible {
    package var description: String { "\(object): \(operation): \(reason)" }
}

extension IOError {
    /// Whether the medium itself failed at this place, so that other places may still be read.
    ///
    /// The block layer reports a bad sector as ENODATA, a failed integrity check as EILSEQ, a
    /// target's failure as EREMOTEIO and everything else as EIO (`blk_errors` in the kernel's
    /// block/blk-core.c). A device that vanished or timed out is none of these.
    package var isMediumError: Bool {
        switch errno {
        case .ioError, .noData, .illegalByteSequence: return true
        case .some(let code): return code.rawValue == 121  // EREMOTEIO
        case .none: return false
        }
    }
}
