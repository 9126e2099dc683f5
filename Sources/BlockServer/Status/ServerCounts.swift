// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Synchronization

/// What the server has counted since it started.
final class ServerCounts: Sendable {
    /// Bytes of the bodies of requests.
    let received = Atomic(0)
    /// Bytes of the bodies of responses.
    let sent = Atomic(0)
    /// Requests for a session that got none.
    let failedSessions = Atomic(0)
    private let classes = Mutex([Int](repeating: 0, count: 5))

    /// - Parameter status: of a response.
    func answered(_ status: UInt) {
        classes.withLock { classes in
            guard (100..<600).contains(status) else { return }
            classes[Int(status) / 100 - 1] += 1
        }
    }

    /// Responses by the class of their status, 1xx first.
    var answers: [Int] { classes.withLock { $0 } }
}

extension Atomic<Int> {
    func count(_ number: Int) { wrappingAdd(number, ordering: .relaxed) }

    var counted: Int { load(ordering: .relaxed) }
}
