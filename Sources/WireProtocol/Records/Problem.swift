// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe
package import LinuxIO
internal import SystemPackage

/// An error on the wire: problem details (RFC 9457) with a stable `type`.
package struct Problem: Codable, Hashable, Sendable {
    /// Stable names, which follow `urn:blkferry:problem:`.
    package enum Kind: String, Codable, Hashable, Sendable {
        /// The safety gate refused; `cause` says why.
        case refused
        /// A system call failed on a device; `errno` is its error, if any.
        case deviceError = "device-error"
        case notFound = "not-found"
        case noSession = "no-session"
        /// Another client has a conflicting session.
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
        /// The request has no token, or one that the server does not know.
        case unauthorized
    }

    private static let prefix = "urn:blkferry:problem:"

    package var type: String
    package var title: String
    package var status: Int
    /// One line.
    package var detail: String
    /// As the server's user would write it.
    package var object: String?
    package var operation: String?
    /// Linux's number.
    package var errno: Int?
    /// One line.
    package var advice: String?
    /// Only for a refusal.
    package var cause: String?
    /// For an ambiguous selector or a missing digest.
    package var candidates: [String]?

    package init(_ kind: Kind, status: Int, _ title: String, detail: String) {
        type = Self.prefix + kind.rawValue
        self.title = title
        self.status = status
        self.detail = detail
    }

    /// `nil` for a type from another version.
    package var kind: Kind? {
        type.hasPrefix(Self.prefix)
            ? Kind(rawValue: String(type.dropFirst(Self.prefix.count))) : nil
    }
}

extension Problem: Error {}

extension Problem {
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
        switch error.kind {
        case .corrupted:
            self.init(
                .corrupted, status: 422, "The frame is corrupted",
                detail: "the frame's digest is not that of its bytes; nothing was done")
            return
        case .digest:
            self.init(.digest, status: 500, "libcrypto failed", detail: error.reason)
            object = error.object
            operation = error.operation
            return
        case .device, .network, .unauthorized, .noSession: break
        }
        if let errno = error.errno, Shortages.includes(errno) {
            // It may be temporary, and says nothing about the device.
            self.init(
                .busy, status: 503, "The server has reached a limit", detail: error.reason)
            object = error.object
            operation = error.operation
            self.errno = Int(errno.rawValue)
            advice = error.advice
            return
        }
        let isFull = error.errno == .noSpace
        self.init(
            .deviceError, status: isFull ? 507 : 500, "The device failed", detail: error.reason)
        object = error.object
        operation = error.operation
        errno = error.errno.map { Int($0.rawValue) }
        advice = error.advice
    }

    /// The problem of a server with texts that a client can print.
    package var shortened: Problem {
        var problem = self
        problem.detail = detail.shortened
        problem.operation = operation?.shortened
        problem.advice = advice?.shortened
        return problem
    }

    /// `nil` for another problem; `name` is the client's name of the device.
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

    /// `nil` for another problem; `name` is the client's name of the device.
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
