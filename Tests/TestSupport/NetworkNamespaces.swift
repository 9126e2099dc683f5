// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import Synchronization

/// Two hosts with one cable between them: network namespaces joined by a veth pair.
///
/// Both go with this object, and with them the cable; programs that still run in them keep what
/// they use until they end.
package final class NetworkNamespaces: Sendable {
    /// One of the two.
    package struct Host: Sendable {
        /// Its name, as ip-netns(8) knows it.
        package let name: String
        /// The name of its end of the cable.
        package let interface = "veth0"
        package let ipv4: String
        package let ipv6: String

        /// What goes before a command so that it runs there.
        package var prefix: [String] { ["ip", "netns", "exec", name] }
    }

    package let first: Host
    package let second: Host
    private let isClosed = Mutex(false)

    /// Whether this process may make them; a trial tells.
    package static let isAvailable =
        isRoot
        && {
            guard let trial = try? NetworkNamespaces() else { return false }
            return (try? must(trial.first.prefix + ["true"])) != nil
        }()

    private static let made = Atomic<Int>(0)

    /// Makes both hosts; needs root.
    ///
    /// - Throws: when a command of ip(8) fails; nothing is left of them then.
    package init() throws {
        let number = Self.made.add(1, ordering: .relaxed).newValue
        // Unique among the processes of this machine; the addresses need not be, for each pair is
        // a network of its own.
        let name = "blkferry-\(getpid())-\(number)"
        let net = "10.77.\(number % 256)"
        first = Host(name: "\(name)-a", ipv4: "\(net).1", ipv6: "fd77::1")
        second = Host(name: "\(name)-b", ipv4: "\(net).2", ipv6: "fd77::2")
        do {
            try must("ip", "netns", "add", first.name)
            try must("ip", "netns", "add", second.name)
            try must(
                "ip", "-netns", first.name, "link", "add", first.interface, "type", "veth",
                "peer", "name", second.interface, "netns", second.name)
            try bringUp(first)
            try bringUp(second)
        } catch {
            close()
            throw error
        }
    }

    deinit { close() }

    /// Removes both hosts.
    package func close() {
        guard
            isClosed.withLock({
                let wasClosed = $0; $0 = true; return !wasClosed
            })
        else { return }
        // The cable first: the kernel takes a namespace apart some time after its name has gone.
        _ = try? must("ip", "-netns", first.name, "link", "delete", first.interface)
        _ = try? must("ip", "netns", "delete", first.name)
        _ = try? must("ip", "netns", "delete", second.name)
    }

    /// What goes before a command so that it runs on a host.
    package func run(in host: Host) -> [String] { host.prefix }

    private func bringUp(_ host: Host) throws {
        let ip = ["ip", "-netns", host.name]
        try must(ip + ["address", "add", "\(host.ipv4)/30", "dev", host.interface])
        // Without duplicate address detection, which would keep it from use for a second or two.
        try must(ip + ["address", "add", "\(host.ipv6)/64", "dev", host.interface, "nodad"])
        try must(ip + ["link", "set", "lo", "up"])
        try must(ip + ["link", "set", host.interface, "up"])
    }
}
