// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

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

    package init(
        _ kind: Kind, status: Int, _ title: String, detail: String, object: String? = nil,
        operation: String? = nil, advice: String? = nil, cause: IOError.Refusal? = nil,
        candidates: [String]? = nil
    ) {
        type = Self.prefix + kind.rawValue
        self.title = title
        self.status = status
        self.detail = detail
        self.object = object
        self.operation = operation
        self.advice = advice
        self.cause = cause?.rawValue
        self.candidates = candidates
    }

    /// `nil` for a type from another version.
    package var kind: Kind? {
        type.hasPrefix(Self.prefix)
            ? Kind(rawValue: String(type.dropFirst(Self.prefix.count))) : nil
    }
}

extension Problem: Error {}

extension Problem {
    package init(_ error: IOError) {
        switch error.kind {
        case .refused(let cause):
            let answer: (kind: Kind, status: Int, title: String) =
                switch cause {
                case .ambiguousSelector: (.ambiguous, 409, "The selector is ambiguous")
                case .locked: (.locked, 423, "The device is locked")
                default: (.refused, 409, "The safety gate refused the device")
                }
            self.init(
                answer.kind, status: answer.status, answer.title, detail: error.reason,
                object: error.object, advice: error.advice, cause: cause)
            return
        case .corrupted:
            self.init(
                .corrupted, status: 422, "The frame is corrupted",
                detail: "\(error.object): \(error.reason); nothing was done")
            return
        case .digest:
            self.init(
                .digest, status: 500, "libcrypto failed", detail: error.reason,
                object: error.object, operation: error.operation)
            return
        case .device, .creation, .network, .unauthorized, .noSession, .noAnswer, .journal,
            .cancelled:
            break
        }
        // A shortage may be temporary, and says nothing about the device.
        let isShortage = error.errno.map(Shortages.includes) == true
        self.init(
            isShortage ? .busy : .deviceError,
            status: isShortage ? 503 : error.errno == .noSpace ? 507 : 500,
            isShortage ? "The server has reached a limit" : "The device failed",
            detail: error.reason, object: error.object, operation: error.operation,
            advice: error.advice)
        errno = error.errno.map { Int($0.rawValue) }
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
    package func refusal(of name: String) -> IOError? {
        switch kind {
        case .refused, .locked, .ambiguous:
            .refusal(
                cause.flatMap { IOError.Refusal(rawValue: $0) } ?? .inUse, name, detail,
                advice: advice)
        case .access: .refusal(.readOnly, name, detail, advice: advice)
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
