// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// How many connections, sessions and downloads the descriptors of the process allow.
///
/// Half of the descriptors that the server does not need itself are for connections. The rest is
/// for devices: first those that a list or the safety gate opens for a moment, then sessions, then
/// downloads. So no client can take the descriptors that others need.
struct DescriptorShares {
    private(set) var connections: Int
    private(set) var connectionsOfClient: Int
    private(set) var sessions: Int
    private(set) var sessionsOfClient: Int
    private(set) var downloads: Int
    private(set) var downloadsOfClient: Int

    /// Descriptors of the server itself: standard streams, event loops, a socket, a few of LVM.
    private static let own = 24
    /// Descriptors reserved for devices, and for the files that are read to find them.
    private static let kept = 64
    /// Those of the kept ones that are open for a moment only.
    private static let passing = 24
    /// Descriptors of a session: the device with and without direct I/O, the anchor of its path,
    /// the watch for other writers, and two locks on related devices or backing files.
    private static let session = 6
    /// Descriptors of a download: the device with and without direct I/O, the anchor of its path.
    private static let download = 3

    /// - Parameter count: descriptors that the process may have, at least
    ///   `BlockServer.leastDescriptors`.
    init(of count: Int, _ options: BlockServer.Options) {
        let possible = (count - Self.own - Self.kept) / 2
        connections = min(options.maximumConnections, possible)
        connectionsOfClient = min(options.maximumConnectionsOfClient, possible / 2)
        let ofDevices = count - Self.own - connections - Self.passing
        // A fifth is for downloads, at least.
        let most = ofDevices / 5 * 4 / Self.session
        sessions = min(options.maximumSessions, most)
        sessionsOfClient = min(options.maximumSessionsOfClient, most / 2)
        downloads = (ofDevices - sessions * Self.session) / Self.download
        downloadsOfClient = downloads / 2
    }
}
