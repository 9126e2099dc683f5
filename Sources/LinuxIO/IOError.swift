// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import SystemPackage

/// A failed operation on a device or file, on the connection to it, or on its data, or a refusal.
///
/// All layers throw it; a layer may add context, such as advice, and passes it on. The message has
/// the form of all messages of blkferry: object, operation, reason, then advice.
package struct IOError: Error, Hashable, Sendable {
    /// A path, as the user wrote it if possible.
    package var object: String
    /// Such as `open` or `read at 4096, 512 bytes`.
    package var operation: String
    /// `nil` if no system call failed but a result was wrong.
    package var errno: Errno?
    package var reason: String
    package var advice: String?
    package var kind = Kind.device

    package enum Kind: Hashable, Sendable {
        case device
        /// A new image cannot be created in its directory.
        case creation
        /// The connection failed, or the other side broke the protocol.
        case network
        /// The other side answered, but one of the two does not trust the other.
        case unauthorized
        /// The server does not know the session, or no longer.
        case noSession
        /// Bytes do not match the digest that was sent with them.
        case corrupted
        /// libcrypto failed, or does not have the digest.
        case digest
        /// LVM did not answer in time, or before the run was cancelled, or it could not be parsed.
        case noAnswer
        /// The undo journal cannot be written, so nothing more may be written to the target.
        case journal
        /// The user has cancelled the run.
        case cancelled
        /// The safety gate refused, before anything was written.
        case refused(Refusal)
    }

    package enum Refusal: String, Sendable {
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
        /// The source is a packed disk image, such as an xz file, and the target a device.
        case packed = "packed"
        /// A file of blkferry's own is damaged or cut off.
        case damaged = "damaged"
    }

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
        error.kind = .network
        return error
    }

    /// An error of libcrypto; the object is the digest as the user wrote it, or what a key is for.
    package static func digest(
        _ object: String, _ operation: String, reason: String, advice: String? = nil
    ) -> IOError {
        var error = IOError(object, operation, reason: reason, advice: advice)
        error.kind = .digest
        return error
    }

    /// A refusal of the safety gate; reason and advice are one line each.
    package static func refusal(
        _ cause: Refusal, _ object: String, _ reason: String, advice: String? = nil
    ) -> IOError {
        var error = IOError(object, "refused", reason: reason, advice: advice)
        error.kind = .refused(cause)
        return error
    }

    /// Why the safety gate refused; `nil` for any other error.
    package var cause: Refusal? {
        if case .refused(let cause) = kind { cause } else { nil }
    }

    /// Whether the connection to the device failed or the run was cancelled, and not the device.
    package var isNetwork: Bool {
        switch kind {
        case .network, .unauthorized, .noSession, .corrupted, .cancelled: true
        case .device, .creation, .digest, .noAnswer, .journal, .refused: false
        }
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
