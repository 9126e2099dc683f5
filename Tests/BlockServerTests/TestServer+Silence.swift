// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO

@testable import BlockServer

extension TestServer {
    /// Ends all sessions as their timeout does, so that no test depends on a short timeout.
    ///
    /// - Returns: whether none is left; one with a request in work stays.
    func endSilentSessions() -> Bool {
        let sessions = server.sessions
        for session in sessions.state.withLock({ Array($0.sessions.values) }) {
            sessions.endIdleAndFlush(session, how: "silent")
        }
        return server.sessionCount == 0
    }
}
