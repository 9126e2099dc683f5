// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import Logging
internal import Synchronization
internal import WireProtocol

extension SessionTable {
    /// Finishes the target after a complete commit, and returns warnings for the client.
    func finish(_ session: Session) -> [String] {
        let warnings = session.finishTarget()
        for warning in warnings {
            logger.warning("\(warning)", metadata: ["session": "\(session.id)"])
        }
        return warnings
    }

    static let committed = "committed"

    /// Ends a session; the caller has waited for its other requests.
    func end(_ session: Session, how: String) {
        guard session.end() else { return }
        release(session, how: how)
    }

    func endIdle(_ session: Session, how: String) {
        guard session.end(afterSilence: .zero) else { return }
        release(session, how: how)
    }

    func has(_ id: String) -> Bool { state.withLock { $0.sessions[id] != nil } }

    func name(of id: String) -> String? { state.withLock { $0.sessions[id]?.name } }

    /// Ends a session if no request of it is in work, and flushes what it has written.
    func endIdleAndFlush(_ session: Session, after silence: Duration = .zero, how: String) {
        if session.end(afterSilence: silence) { flushAndRelease(session, how: how) }
    }

    func close() {
        let sessions = state.withLock { state in
            state.isClosed = true
            return Array(state.sessions.values)
        }
        for session in sessions where session.end() {
            flushAndRelease(session, how: "server ended")
        }
    }

    private func flushAndRelease(_ session: Session, how: String) {
        session.leaveTarget()
        do throws(IOError) {
            try session.flush()
            // A client that comes back may continue if no other program has written since.
            let counter =
                session.mode == .write ? session.device.persistentChangeCounter()?.marks : nil
            // Asked after the counter was read, which may include a write of the last moment.
            let isWritten = session.hasForeignWrites
            release(
                session, how: how, session.hadOnlyOwnWriters ? counter : nil,
                writtenByOthers: isWritten)
        } catch {
            logger.error("flush failed: \(error)", metadata: ["session": "\(session.id)"])
            release(session, how: how, failure: error)
        }
    }

    private func release(
        _ session: Session, how: String, _ counter: [Int]? = nil, writtenByOthers: Bool = false,
        failure: IOError? = nil
    ) {
        // While no other session can write.
        let isComplete = how == Self.committed && failure == nil
        for warning in session.finishJournal(isComplete: isComplete) + session.updatePartitions() {
            logger.warning("\(warning)", metadata: ["session": "\(session.id)"])
        }
        let counts = session.counts
        let key = state.withLock { $0.claims[session.id]?.key }
        if session.mode == .write, let key {
            // Before another session can claim the device.
            history.add(
                WriteHistory.Entry(
                    run: session.run, client: session.grant.name,
                    hasWritten: counts.written + counts.zeroed > 0, counter: counter,
                    failure: failure?.reason, writtenByOthers: writtenByOthers ? true : nil),
                of: key)
        }
        state.withLock { state in
            state.sessions[session.id] = nil
            state.claims[session.id] = nil
            state.ended.add(EndedSessions.Run(session, end: how))
        }
        var metadata = metadata(session)
        metadata["compared"] = "\(counts.compared)"
        metadata["read"] = "\(counts.read)"
        metadata["written"] = "\(counts.written)"
        metadata["zeroed"] = "\(counts.zeroed)"
        let elapsed = (ContinuousClock().now - session.start) / .milliseconds(1)
        metadata["seconds"] = "\((elapsed).rounded() / 1000)"
        metadata["end"] = "\(how)"
        note("session ends", of: session, metadata)
    }

    /// Sessions of one client and network that are logged one by one in a minute.
    ///
    /// A client that refreshes a machine's volumes opens some dozens.
    private static let loggedSessions = 32
    /// Unicode scalars of a device's name in the log; the names of clients are short.
    private static let loggedName = 200

    func note(_ event: String, of session: Session, _ metadata: Logger.Metadata) {
        let peer = session.permission.peer
        events.note(
            event, .info, from: peer.address, client: session.grant.name,
            burst: Self.loggedSessions, metadata)
    }

    /// The metadata of a session without its client.
    func metadata(_ session: Session) -> Logger.Metadata {
        let name = session.name.unicodeScalars.prefix(Self.loggedName)
        return [
            "session": "\(session.id.prefix(8))", "peer": "\(session.peer)",
            "device": "\(String(String.UnicodeScalarView(name)))",
            "mode": "\(session.mode.rawValue)",
        ]
    }
}
