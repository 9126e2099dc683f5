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
    private let limit: ClientLimit

    /// - Parameter limitOfClient: of one address, and of one token or certificate.
    init(limit: Int, ofClient limitOfClient: Int) {
        self.limit = ClientLimit(total: limit, ofClient: limitOfClient)
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
        try state.withLock { state throws(Problem) in
            let counts = clients.map { state.ofClients[$0, default: 0] }
            try limit.check(
                state.count, ofClient: counts.max() ?? 0, "downloads",
                client: "download from \(limit.ofClient) devices",
                server: "downloads from \(limit.total) devices")
            state.count += 1
            for client in clients { state.ofClients[client, default: 0] += 1 }
        }
        return Place(self, clients)
    }

    private func give(_ clients: [String]) {
        state.withLock { state in
            state.count -= 1
            for client in clients { state.ofClients.decrement(client) }
        }
    }
}
