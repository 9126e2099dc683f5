// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import SystemPackage

/// Where processes that one client has started find the one of them that is the server.
///
/// Each is started by an ssh process of its own, with the same random name. The one that can bind
/// an abstract unix socket of that name is the server; the others hand it their standard input and
/// output and stay as long as it uses them. The name is gone with the process, no file is left, and
/// each side checks that the other runs as the same user.
package final class StreamListener: Sendable {
    let socket: OwnedDescriptor

    private init(_ socket: consuming OwnedDescriptor) { self.socket = socket }

    /// Becomes the server of a group, or hands the standard streams to it and waits until it needs
    /// them no more.
    ///
    /// - Parameter name: of the group, `isName` says which ones there are.
    /// - Returns: `nil` when all is done.
    /// - Throws: what the system says; when the name belongs to somebody else.
    package static func join(_ name: String) throws(LinuxIO.IOError) -> StreamListener? {
        precondition(isName(name))
        let address = "blkferry-\(name)"
        do throws(Errno) {
            while !areStreamsClosed(within: 0) {
                if let listener = try bind(address) { return listener }
                guard let server = try connect(address) else {
                    // It does not listen yet, or no more.
                    usleep(10_000)
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

    /// Whether text can be the name of a group: up to 64 letters and digits.
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

    /// Whether the other end of a unix socket runs as the user that this process runs as.
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

    /// Gives the server the standard streams.
    ///
    /// - Returns: whether it has taken them and is done with them, or there is nothing left to give.
    private static func handOver(to server: borrowing OwnedDescriptor) -> Bool {
        let socket = server.rawValue
        guard clb_send_descriptors(socket, STDIN_FILENO, STDOUT_FILENO) == 1 else { return false }
        // The server may be busy with what a client before has left.
        guard waitForAnswer(from: socket) else { return areStreamsClosed(within: 0) }
        var byte: UInt8 = 0
        guard recv(socket, &byte, 1, 0) == 1 else { return false }
        _ = waitForAnswer(from: socket)
        return true
    }

    /// Waits until the server says something or is gone; `false` when the client is.
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
