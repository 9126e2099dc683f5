// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import SystemPackage

/// The meeting point of the processes that one client has started through ssh.
///
/// Each process is started by its own ssh process, with the same random name. The process that can
/// bind an abstract unix socket of that name becomes the server. The others hand it their standard
/// input and output, and stay while the server uses them. The name disappears with the server, and
/// no file is left. Each side checks that the other runs as the same user.
package final class StreamListener: Sendable {
    let socket: OwnedDescriptor

    private init(_ socket: consuming OwnedDescriptor) { self.socket = socket }

    /// Becomes the server of a group, or hands the standard streams to it and waits for their
    /// release.
    ///
    /// - Returns: `nil` if this process is not the server and has nothing left to do.
    /// - Throws: the system's error, also if a process of another user has bound the name.
    package static func join(_ name: String) throws(LinuxIO.IOError) -> StreamListener? {
        precondition(isName(name))
        let address = "blkferry-\(name)"
        do throws(Errno) {
            while !areStreamsClosed(within: 0) {
                if let listener = try bind(address) { return listener }
                guard let server = try connect(address) else {
                    // The server does not listen yet, or no longer.
                    if areStreamsClosed(within: 10) { return nil }
                    continue
                }
                guard isSameUser(server) else { throw .permissionDenied }
                if handOver(to: server) { return nil }
            }
            return nil
        } catch {
            throw IOError(address, "join", error)
        }
    }

    /// Whether a text can name a group: 1 to 64 ASCII letters and digits.
    package static func isName(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                switch $0 {
                case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "A")...UInt8(ascii: "Z"):
                    true
                default: false
                }
            }
    }

    static func isSameUser(_ socket: borrowing OwnedDescriptor) -> Bool {
        var user = uid_t.max
        return clb_get_peer_user(socket.rawValue, &user) == 0 && user == geteuid()
    }

    private static func bind(_ address: String) throws(Errno) -> StreamListener? {
        let socket = OwnedDescriptor(owning: try retryingInterrupts { clb_unix_socket() })
        let descriptor = socket.rawValue
        do throws(Errno) {
            _ = try retryingInterrupts { clb_bind_abstract(descriptor, address) }
        } catch .addressInUse {
            return nil
        }
        _ = try retryingInterrupts { listen(descriptor, 256) }
        return StreamListener(socket)
    }

    private static func connect(_ address: String) throws(Errno) -> OwnedDescriptor? {
        let socket = OwnedDescriptor(owning: try retryingInterrupts { clb_unix_socket() })
        let descriptor = socket.rawValue
        do throws(Errno) {
            _ = try retryingInterrupts { clb_connect_abstract(descriptor, address) }
        } catch .connectionRefused {
            return nil
        }
        return socket
    }

    /// Returns whether the server has used and released the streams, or the client has closed them.
    private static func handOver(to server: borrowing OwnedDescriptor) -> Bool {
        let socket = server.rawValue
        guard clb_send_descriptors(socket, STDIN_FILENO, STDOUT_FILENO) == 1 else { return false }
        // The server may be busy with the streams of an earlier process.
        guard waitForAnswer(from: socket) else { return areStreamsClosed(within: 0) }
        var byte: UInt8 = 0
        guard recv(socket, &byte, 1, 0) == 1 else { return false }
        _ = waitForAnswer(from: socket)
        return true
    }

    /// Waits until the server answers or ends; `false` if the client has closed its streams.
    private static func waitForAnswer(from socket: Int32) -> Bool {
        while true {
            var polled = [
                pollfd(fd: socket, events: Int16(POLLIN), revents: 0),
                pollfd(fd: STDIN_FILENO, events: clb_POLLRDHUP, revents: 0),
                pollfd(fd: STDOUT_FILENO, events: 0, revents: 0),
            ]
            guard poll(&polled, 3, -1) > 0 else { continue }
            if polled[0].revents != 0 { return true }
            if polled[1].revents != 0 || polled[2].revents != 0 { return false }
        }
    }

    private static func areStreamsClosed(within milliseconds: Int32) -> Bool {
        var polled = [
            pollfd(fd: STDIN_FILENO, events: clb_POLLRDHUP, revents: 0),
            pollfd(fd: STDOUT_FILENO, events: 0, revents: 0),
        ]
        return poll(&polled, 2, milliseconds) > 0
    }
}
