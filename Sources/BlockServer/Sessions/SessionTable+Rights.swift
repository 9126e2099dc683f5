// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import WireProtocol

extension SessionTable {
    /// Finds a session and begins a request on it; the caller must call its `finish()`.
    ///
    /// - Throws: 404, also without the right to continue; a client that opens it again gets the
    ///   reason.
    func begin(_ id: String, _ grant: Grant) throws(Problem) -> Session {
        let session = state.withLock { $0.sessions[id] }
        // The rights check the token itself, since the name may belong to another token now.
        if let session, session.grant.name == grant.name, isAllowed(session), session.begin() {
            return session
        }
        throw Self.noSession
    }

    static let noSession = Problem(
        .noSession, status: 404, "There is no such session",
        detail: "the session has ended or never existed")

    static let clientHasGone = Problem(
        .busy, status: 503, "The client has gone",
        detail: "the client has ended its connection while the request waited")

    /// The mode of a client's session; does not block, as it does not check the session's rights.
    func mode(of id: String, _ grant: Grant) -> SessionRequest.Mode? {
        state.withLock { state in
            guard let session = state.sessions[id], session.grant.name == grant.name else {
                return nil
            }
            return session.mode
        }
    }

    /// The session that a client has already opened without having received the response.
    func sessionOf(
        run: String?, _ key: DeviceKey, _ mode: SessionRequest.Mode, _ grant: Grant
    ) -> Session? {
        guard let run else { return nil }
        let known = state.withLock { state in
            state.sessions.values.first {
                $0.run == run && $0.mode == mode && $0.grant.name == grant.name
                    && state.claims[$0.id]?.key == key
            }
        }
        // Skips a session that is being released after its timeout.
        guard let known, isAllowed(known), known.begin() else { return nil }
        known.finish()
        return known
    }

    func known(
        _ run: String, _ found: ExportTable.Found, _ mode: SessionRequest.Mode, _ grant: Grant
    ) -> Session? { sessionOf(run: run, DeviceKey(found), mode, grant) }

    /// Whether a session is still allowed; ends it if it is not.
    private func isAllowed(_ session: Session) -> Bool {
        if rights.allow(session.permission) { return true }
        revoke(session)
        return false
    }

    private func revoke(_ session: Session) {
        session.revoke()
        endIdleAndFlush(session, how: "not allowed any more")
    }

    /// Ends sessions after their timeout, and sessions that are not allowed any more.
    func endSilentAndRevoked() {
        for session in all {
            if session.isRevoked {
                revoke(session)
            } else if isAllowed(session) {
                endIdleAndFlush(
                    session, after: session.silence ?? silence, how: "silent")
            }
        }
    }

    /// Gives clients with certificates a short time to reconnect after a change of the authority.
    func awaitClients() {
        for session in all { session.awaitClient() }
    }
}

extension SessionTable.Claim {
    /// Whether no other session may have the device: in a dry run, the gate locks the target as
    /// before a real run.
    var isExclusive: Bool { mode != .read }

    /// What the client does with the device, for a message.
    var use: String {
        switch mode {
        case .read: "reading it"
        case .write: "writing to it"
        case .dryRun: "checking it as a target"
        }
    }
}
