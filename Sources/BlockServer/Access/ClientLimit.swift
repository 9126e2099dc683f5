// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import WireProtocol

/// How much of something, such as sessions, all clients and one client may have at once.
struct ClientLimit: Sendable {
    let total: Int
    /// Of one address, and of one token or certificate.
    let ofClient: Int

    /// Throws 429 or 503 if a client may have no more.
    ///
    /// - Parameters:
    ///   - count: of all clients.
    ///   - countOfClient: of its address, or of its token or certificate if that is more.
    ///   - noun: such as `sessions`.
    ///   - client: what one client may do at once.
    ///   - server: what the server allows at once.
    func check(
        _ count: Int, ofClient countOfClient: Int, _ noun: String, client: String, server: String
    ) throws(Problem) {
        if countOfClient >= ofClient {
            throw Problem(
                .busy, status: 429, "The client has too many \(noun)",
                detail: "one client may \(client) at once")
        }
        if count >= total {
            throw Problem(
                .busy, status: 503, "The server has too many \(noun)",
                detail: "the server allows \(server) at once")
        }
    }
}

extension [String: Int] {
    /// Subtracts 1 from a count, and removes it at 0.
    mutating func decrement(_ key: String) {
        let count = self[key, default: 1] - 1
        self[key] = count > 0 ? count : nil
    }
}
