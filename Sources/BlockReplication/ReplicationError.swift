// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

/// Why a replication could not start, or why it failed.
public struct ReplicationError: Error, Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        /// An option or a location is wrong.
        case invalid
        /// The safety gate or the size policy refused; nothing was written.
        case refused
        /// An I/O error on a device.
        case device
        /// The network failed, or the other side broke the protocol.
        case network
        /// The server does not know this side, or this side does not trust the server.
        case unauthorized
        /// The target may differ after the run: it read back differently, or another program wrote
        /// to it.
        case different
        /// The run was cancelled; an initialiser that throws this has written nothing.
        case interrupted
    }

    public var kind: Kind
    /// Object, operation, reason, in one line.
    public var message: String
    /// One line; options are named as on the command line.
    public var advice: String?
    /// The cause of a refusal, for programs: `in-use`, `locked`, `read-only`, `wrong-kind`,
    /// `overlap`, `signature`, `size`, `sector-size`, `ambiguous-selector`, `no-space`,
    /// `name-taken`, `changed`, `packed`, `damaged` or `max-change`.
    public var cause: String?

    public init(_ kind: Kind, _ message: String, advice: String? = nil) {
        self.kind = kind
        self.message = message
        self.advice = advice
    }

    package init(_ error: IOError) {
        let kind: Kind =
            switch error.kind {
            case .refused: .refused
            case .unauthorized: .unauthorized
            case .cancelled: .interrupted
            default: error.isNetwork ? .network : .device
            }
        self.init(kind, error.description, advice: error.advice)
        cause = error.cause?.rawValue
    }
}

extension ReplicationError {
    /// Whether the target is mounted, claimed, locked, or in another session.
    package var isBusy: Bool { BusyWait.isBusy(cause) }
}

extension ReplicationError: CustomStringConvertible {
    public var description: String { message }
}
