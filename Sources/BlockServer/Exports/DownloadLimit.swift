// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Synchronization
internal import WireProtocol

/// Counts the devices that are open for downloads, all of them and those of each client.
final class DownloadLimit: Sendable {
    private struct State {
        var count = 0
        var ofClients: [String: Int] = [:]
    }
    private let state = Mutex(State())
    private let limit: Int
    private let limitOfClient: Int

    /// - Parameter limitOfClient: of one address, and of one token or certificate.
    init(limit: Int, ofClient limitOfClient: Int) {
        self.limit = limit
        self.limitOfClient = limitOfClient
    }

    /// A device's place in the count, until the end of this object.
    final class Place: Sendable {
        private let limit: DownloadLimit
        private let clients: [String]

        fileprivate init(_ limit: DownloadLimit, _ clients: [String]) {
            self.limit = limit
            self.clients = clients
        }

        deinit { limit.give(clients) }
    }

    /// Counts a device; 429 or 503 if too many are open.
    func take(_ peer: Peer, _ grant: Grant) throws(Problem) -> Place {
        var clients: [String] = []
        if let network = peer.network { clients.append("address \(network)") }
        if let name = grant.name { clients.append("name \(name)") }
        let (hasEnough, isFull) = state.withLock { state -> (Bool, Bool) in
            let hasEnough = clients.contains { state.ofClients[$0, default: 0] >= limitOfClient }
            let isFull = state.count >= limit
            guard !hasEnough && !isFull else { return (hasEnough, isFull) }
            state.count += 1
            for client in clients { state.ofClients[client, default: 0] += 1 }
            return (false, false)
        }
        if hasEnough {
            throw Problem(
                .busy, status: 429, "The client has too many downloads",
                detail: "one client may download from \(limitOfClient) devices at once")
        }
        if isFull {
            throw Problem(
                .busy, status: 503, "The server has too many downloads",
                detail: "the server allows downloads from \(limit) devices at once")
        }
        return Place(self, clients)
    }

    private func give(_ clients: [String]) {
        state.withLock { state in
            state.count -= 1
            for client in clients {
                let count = state.ofClients[client, default: 1] - 1
                state.ofClients[client] = count > 0 ? count : nil
            }
        }
    }
}
