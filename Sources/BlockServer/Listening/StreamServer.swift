// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import WireProtocol

/// Turns standard streams of this process and of joined processes into connections.
final class StreamServer: Sendable {
    private struct State {
        var count = 0
        var isEnding = false
    }
    private let state = Guarded(State())
    private let setup: ConnectionSetup
    private let group: MultiThreadedEventLoopGroup
    private let options: BlockServer.Options

    /// Milliseconds between two checks of `isEnding`.
    private static let pollInterval: Int32 = 200
    /// Milliseconds that a process may take to hand over its streams.
    private static let patience: Int32 = 5000

    init(
        _ setup: ConnectionSetup, _ group: MultiThreadedEventLoopGroup,
        _ options: BlockServer.Options
    ) {
        self.setup = setup
        self.group = group
        self.options = options
    }

    /// The socket to a process that handed over its streams, which stays until the socket closes.
    private final class Joined: Sendable {
        let socket: OwnedDescriptor
        init(_ socket: consuming OwnedDescriptor) { self.socket = socket }
    }

    /// Connects this process's streams, and then accepts those of other processes.
    func start() throws {
        let input = try retryingInterrupts { fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) }
        let output = try retryingInterrupts { fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3) }
        // Stray output must not reach the client, and the client must see the end of the streams.
        let null = try OwnedDescriptor.open("/dev/null", flags: O_RDWR)
        for descriptor in [STDIN_FILENO, STDOUT_FILENO] {
            let number = null.rawValue
            _ = try retryingInterrupts { dup2(number, descriptor) }
        }
        try connect(input, output, for: nil)
        guard let listener = options.streams else { return }
        _ = Threads.start(count: 1, orInline: false) { [self] _ in
            while !isEnding {
                guard isReadable(listener.socket.rawValue) else { continue }
                let descriptor = clb_accept(listener.socket.rawValue)
                if descriptor >= 0 {
                    take(Joined(OwnedDescriptor(owning: descriptor)))
                } else {
                    // Without descriptors the connection stays in the queue.
                    _ = state.wait(until: .now + .milliseconds(100)) { $0.isEnding ? true : nil }
                }
            }
        }
    }

    /// Accepts no more connections; a process that waits for one waits until this process ends.
    func stop() { state.withLock { $0.isEnding = true } }

    private var isEnding: Bool { state.withLock { $0.isEnding } }

    private func isReadable(_ descriptor: Int32) -> Bool {
        var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&polled, 1, Self.pollInterval) > 0
    }

    private func take(_ joined: Joined) {
        let socket = joined.socket.rawValue
        guard StreamListener.isSameUser(joined.socket) else { return }
        var waits = Self.patience / Self.pollInterval
        while !isReadable(socket) {
            waits -= 1
            guard waits > 0, !isEnding else { return }
        }
        var streams: [Int32] = [-1, -1]
        guard clb_receive_descriptors(socket, &streams) == 1, streams[1] >= 0 else {
            if streams[0] >= 0 { close(streams[0]) }
            return
        }
        do {
            try connect(streams[0], streams[1], for: joined)
        } catch {
            options.logger.escaping.warning("streams: connect: \(error)")
        }
    }

    /// Makes a connection, which owns both descriptors from now on.
    private func connect(_ input: Int32, _ output: Int32, for joined: Joined?) throws {
        let isWanted = state.withLock { state in
            if state.isEnding { return false }
            state.count += 1
            return true
        }
        guard isWanted else {
            close(input)
            close(output)
            return
        }
        // The pipe is empty, so this does not block.
        let greeting = StdioGreeting.line(version: options.version)
        _ = write(output, greeting, greeting.count)
        if let joined { _ = send(joined.socket.rawValue, [1], 1, Int32(MSG_NOSIGNAL)) }
        let setup = setup
        let bootstrap = NIOPipeBootstrap(group: group)
            .channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.recvAllocator, value: ReadAllocator())
            .channelInitializer { setup.prepare($0, peer: "ssh") }
        do {
            let channel = try bootstrap.takingOwnershipOfDescriptors(input: input, output: output)
                .wait()
            channel.closeFuture.whenComplete { [self] _ in
                // The joined process may end only now.
                withExtendedLifetime(joined) { isClosed() }
            }
        } catch {
            isClosed()
            throw error
        }
    }

    private func isClosed() {
        let isLast = state.withLock { state in
            state.count -= 1
            if state.count == 0 { state.isEnding = true }
            return state.isEnding && state.count == 0
        }
        if isLast { options.whenStreamsEnd() }
    }
}
