// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockServer
internal import CLinuxBlock
internal import DeviceProbe
internal import Glibc
internal import LinuxIO

/// The service manager that has started this process, such as systemd.
///
/// It passes sockets as sd_listen_fds(3) describes, and receives the state of the server as
/// sd_notify(3) and sd_watchdog_enabled(3) describe. Without a service manager nothing is passed
/// and nothing is sent.
struct ServiceManager: Sendable {
    /// Half of the time after which the service manager ends a server that is silent; `nil` if it
    /// waits for ever.
    let watchdogInterval: Duration?
    /// How many sockets it has passed, as text.
    private let passed: String?
    private let names: [String]
    /// Sends datagrams to the service manager, until this process ends; -1 for none.
    private let socket: Int32

    /// The number of the first passed socket: `SD_LISTEN_FDS_START`.
    private static let first = 3
    /// Most characters of a status: systemd drops datagrams of more than 4096 bytes.
    private static let mostOfStatus = 500

    /// Reads the variables of the protocols, and removes them from the environment, since they are
    /// not for programs that the server starts.
    init() {
        let passed = Self.take("LISTEN_FDS")
        let names =
            Self.take("LISTEN_FDNAMES")?
            .split(separator: ":", omittingEmptySubsequences: false) ?? []
        let process = "\(getpid())"
        self.passed = Self.take("LISTEN_PID") == process ? passed : nil
        self.names = names.map(String.init)
        let watchdog = Self.take("WATCHDOG_USEC").flatMap { Int64($0) }
        let isWatched = Self.take("WATCHDOG_PID").map { $0 == process } ?? true
        watchdogInterval = watchdog.flatMap { time in
            isWatched && time > 0 ? max(Duration.milliseconds(1), .microseconds(time) / 2) : nil
        }
        socket = Self.take("NOTIFY_SOCKET").map { Self.connect(to: $0) } ?? -1
    }

    private static func take(_ name: String) -> String? {
        defer { unsetenv(name) }
        return getenv(name).map { String(cString: $0) }
    }

    /// - Parameter address: a path, or an abstract name behind an `@`.
    private static func connect(to address: String) -> Int32 {
        let kind = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = Glibc.socket(AF_UNIX, kind, 0)
        guard socket >= 0 else { return -1 }
        let result =
            address.hasPrefix("@")
            ? clb_connect_abstract(socket, String(address.dropFirst()))
            : clb_connect_unix(socket, address)
        guard result != 0 else { return socket }
        close(socket)
        return -1
    }

    /// Takes the sockets that the service manager has bound; empty without any.
    ///
    /// - Throws: wrong usage if the server cannot listen on one of them.
    func sockets() throws(CommandFailure) -> [ListeningSocket] {
        guard let passed else { return [] }
        guard let count = Int(passed), count >= 0 else {
            throw CommandFailure(.usage, "LISTEN_FDS: \(passed) is not a number of sockets")
        }
        var sockets: [ListeningSocket] = []
        for index in 0..<count {
            let number = Self.first + index
            let name = names.count == count ? " (\(names[index]))" : ""
            do throws(IOError) {
                sockets.append(
                    try ListeningSocket(
                        passed: Int32(clamping: number),
                        named: "descriptor \(number)\(name) of LISTEN_FDS"))
            } catch {
                throw CommandFailure(.usage, error.description, advice: error.advice)
            }
        }
        return sockets
    }

    func notifyReady(_ status: String) { send("READY=1\n" + Self.line(status)) }

    func notifyReloading() {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let time = now.tv_sec * 1_000_000 + now.tv_nsec / 1000
        send("RELOADING=1\nMONOTONIC_USEC=\(time)\n" + Self.line("reading the files again"))
    }

    func notifyStopping() {
        send("STOPPING=1\n" + Self.line("finishing requests, flushing targets"))
    }

    /// Does not wait, since an event loop calls it.
    func feedWatchdog() { send("WATCHDOG=1", Int32(MSG_DONTWAIT)) }

    private static func line(_ status: String) -> String {
        "STATUS=\(escaped(String(status.prefix(mostOfStatus))))"
    }

    private func send(_ text: String, _ flags: Int32 = 0) {
        guard socket >= 0 else { return }
        let flags = flags | Int32(MSG_NOSIGNAL)
        // The server works without a service manager that listens.
        _ = try? retryingInterrupts { Glibc.send(socket, text, text.utf8.count, flags) }
    }
}
