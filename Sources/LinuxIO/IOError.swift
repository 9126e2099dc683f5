// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import SystemPackage

/// A failed operation on a device or file.
///
/// The message has the form of all messages of blkferry: object, operation, reason, then advice.
package struct IOError: Error, Hashable, Sendable {
    /// A path, as the user wrote it if possible.
    package var object: String
    /// Such as `open` or `read at 4096, 512 bytes`.
    package var operation: String
    /// `nil` if no system call failed but a result was wrong.
    package var errno: Errno?
    package var reason: String
    package var advice: String?
    /// Whether the connection to the device failed, and not the device.
    package var isNetwork = false
    /// Whether the other side of the connection answered, but one of the two does not trust the
    /// other.
    package var isUnauthorized = false

    package init(_ object: String, _ operation: String, _ errno: Errno, advice: String? = nil) {
        self.object = object
        self.operation = operation
        self.errno = errno
        self.reason = errno.description
        self.advice = advice ?? Self.advice(on: errno)
    }

    package init(_ object: String, _ operation: String, reason: String, advice: String? = nil) {
        self.object = object
        self.operation = operation
        self.errno = nil
        self.reason = reason
        self.advice = advice
    }

    /// Advice for a limit of this process.
    private static func advice(on errno: Errno) -> String? {
        switch errno {
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem: Descriptors.advice
        case .noMemory: Memory.advice
        default: nil
        }
    }

    /// An error of the connection, or of the protocol.
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
    /// Whether the medium failed at this place only, so that other places may be readable.
    ///
    /// The block layer reports a bad sector as ENODATA, a failed integrity check as EILSEQ, a
    /// target's failure as EREMOTEIO and everything else as EIO (`blk_errors` in the kernel's
    /// block/blk-core.c). A device that vanished or timed out has other errors.
    package var isMediumError: Bool {
        switch errno {
        case .ioError, .noData, .illegalByteSequence: return true
        case .some(let code): return code.rawValue == 121  // EREMOTEIO
        case .none: return false
        }
    }
}
