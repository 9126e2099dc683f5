// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe
package import LinuxIO
internal import SystemPackage

/// An error on the wire: problem details (RFC 9457) with a stable `type`.
package struct Problem: Codable, Hashable, Sendable {
    /// Stable names, each after `urn:blkferry:problem:`.
    package enum Kind: String, Codable, Hashable, Sendable {
        /// The safety gate's no; `cause` says why.
        case refused
        /// A system call failed on a device; `errno` where there is one.
        case deviceError = "device-error"
        case notFound = "not-found"
        case noSession = "no-session"
        /// Somebody else has a session that does not go together with the one asked for.
        case locked
        case ambiguous
        case digest
        case corrupted
        case malformed
        case method
        case mediaType = "media-type"
        case tooLarge = "too-large"
        case lengthRequired = "length-required"
        case timeout
        case busy
        case access
        /// No token was shown, or none that the server knows.
        case unauthorized
    }

    private static let prefix = "urn:blkferry:problem:"

    package var type: String
    package var title: String
    package var status: Int
    /// Why, on one line.
    package var detail: String
    /// What the error is about, as the server's user would write it.
    package var object: String?
    package var operation: String?
    /// Linux's number.
    package var errno: Int?
    /// What the user can do about it, on one line.
    package var advice: String?
    /// Of a refusal.
    package var cause: String?
    /// Of an ambiguous selector; of a digest that the server lacks.
    package var candidates: [String]?

    package init(_ kind: Kind, status: Int, _ title: String, detail: String) {
        type = Self.prefix + kind.rawValue
        self.title = title
        self.status = status
        self.detail = detail
    }

    /// `nil` for a type of another version.
    package var kind: Kind? {
        type.hasPrefix(Self.prefix)
            ? Kind(rawValue: String(type.dropFirst(Self.prefix.count))) : nil
    }
}

extension Problem: Error {}

extension Problem {
    /// An error of a device or of the safety gate, as the client's user is to see it.
    package init(_ error: ProbeError) {
        switch error {
        case .refused(let refusal) where refusal.cause == .ambiguousSelector:
            self.init(.ambiguous, status: 409, "The selector is ambiguous", detail: refusal.reason)
            set(refusal)
        case .refused(let refusal) where refusal.cause == .locked:
            self.init(.locked, status: 423, "The device is locked", detail: refusal.reason)
            set(refusal)
        case .refused(let refusal):
            self.init(
                .refused, status: 409, "The safety gate refused the device", detail: refusal.reason)
            set(refusal)
        case .failed(let error): self.init(error)
        }
    }

    private mutating func set(_ refusal: Refusal) {
        object = refusal.object
        advice = refusal.advice
        cause = refusal.cause.rawValue
    }

    package init(_ error: IOError) {
        let isFull = error.errno == .noSpace
        self.init(
            .deviceError, status: isFull ? 507 : 500, "The device failed", detail: error.reason)
        object = error.object
        operation = error.operation
        errno = error.errno.map { Int($0.rawValue) }
        advice = error.advice
    }

    /// The refusal it tells of; `nil` when it tells of something else.
    ///
    /// - Parameter name: what the client's user calls the device.
    /// - Returns: the refusal, about the device by that name.
    package func refusal(of name: String) -> Refusal? {
        switch kind {
        case .refused, .locked, .ambiguous:
            Refusal(
                cause.flatMap { Refusal.Cause(rawValue: $0) } ?? .inUse, name, detail,
                advice: advice)
        case .access: Refusal(.readOnly, name, detail, advice: advice)
        default: nil
        }
    }

    /// The device's error it tells of; `nil` when it tells of something else.
    ///
    /// - Parameter name: what the client's user calls the device.
    /// - Returns: the error, about the device by that name.
    package func deviceError(of name: String) -> IOError? {
        guard kind == .deviceError || kind == .notFound else { return nil }
        let operation = operation ?? "find device"
        guard let errno, let code = Int32(exactly: errno) else {
            return IOError(name, operation, reason: detail, advice: advice)
        }
        var error = IOError(name, operation, Errno(rawValue: code), advice: advice)
        error.reason = detail
        return error
    }
}
