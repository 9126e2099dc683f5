// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import DeviceProbe
internal import Digests
internal import Glibc
package import LinuxIO
package import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import Synchronization
package import WireProtocol

/// Offers devices over HTTP.
package final class BlockServer: Sendable {
    package struct Options: Sendable {
        package enum Address: Hashable, Sendable {
            case host(String, port: Int)
            case unix(String)
            /// Those of this process, and of others that join it.
            case standardStreams
        }
        package var address: Address
        package var exports: [ExportSelector]
        /// Every block device of the machine as well, for reading.
        package var exportsAll = false
        /// Whether an image that is exported by its path and is not there may be created.
        package var createsImages = false
        /// Where others hand over their standard streams; `nil` where nobody does.
        package var streams: StreamListener?
        /// Called when the last connection of standard streams has closed.
        package var whenStreamsEnd: @Sendable () -> Void = {}
        /// Who may use it; `nil` for everybody.
        package var tokens: [TokenEntry]?
        /// What it shows and asks for in TLS; `nil` for none of it.
        package var identity: ServerIdentity?
        /// Seconds after which a silent session is released.
        package var sessionTimeout = 60.0
        /// Threads for device I/O; `nil` for what was measured to be best.
        package var threads: Int?
        package var logger: Logger
        package var version = "0"
        package var maximumConnections = 1024
        package var maximumSessions = 64
        /// Bytes that requests in work take together.
        package var memory = 64 << 20
        /// Seconds that a client may be silent in the middle of a request or of an answer.
        package var patience = 60.0
        /// Seconds that a connection may be idle.
        package var idleTime = 120.0

        package init(address: Address, exports: [ExportSelector], logger: Logger) {
            self.address = address
            self.exports = exports
            self.logger = logger
        }
    }

    private let options: Options
    private let group: MultiThreadedEventLoopGroup
    private let queue: WorkQueue
    private let sessions: SessionTable
    private let budget: MemoryBudget
    private let access: AccessTable
    private let identity: Mutex<ServerIdentity?>
    private let service: Service
    private let connections = Connections()
    private let listener: Mutex<(any Channel)?> = Mutex(nil)
    private let streams: StreamServer?
    private let tidying: Mutex<RepeatedTask?> = Mutex(nil)

    /// Listens, and answers from now on.
    ///
    /// - Throws: when the address cannot be had.
    package init(_ options: Options) throws(LinuxIO.IOError) {
        self.options = options
        identity = Mutex(options.identity)
        Self.raiseDescriptorLimit()
        // Each thread would keep an arena of its own, full of answers that are long sent.
        clb_limit_arenas(2)
        let exports = ExportTable(
            exports: options.exports, offersAll: options.exportsAll,
            createsImages: options.createsImages)
        group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let processors = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        queue = WorkQueue(
            threads: options.threads ?? min(4 * processors, 32),
            memory: Limits.payload + (64 << 10))
        sessions = SessionTable(
            exports: exports, limit: options.maximumSessions,
            silence: .seconds(options.sessionTimeout), logger: options.logger)
        do throws(DigestError) { access = try AccessTable(options.tokens) } catch {
            throw IOError("tokens", error.operation, reason: error.reason)
        }
        service = Service(exports: exports, sessions: sessions, version: options.version)
        budget = MemoryBudget(bytes: options.memory)
        let shared = ConnectionContext(
            service: service, queue: queue, budget: budget,
            bodies: BodyPool(size: Limits.body), access: access, penalties: Penalties(),
            logger: options.logger,
            patience: .milliseconds(Int64(options.patience * 1000)),
            idleTime: .milliseconds(Int64(options.idleTime * 1000)))
        let setup = ConnectionSetup(
            shared: shared, connections: connections, limit: options.maximumConnections)
        do {
            if case .standardStreams = options.address {
                streams = StreamServer(setup, group, options)
                try streams?.start()
            } else {
                streams = nil
                let channel = try listen(setup)
                listener.withLock { $0 = channel }
            }
        } catch {
            queue.close()
            try? group.syncShutdownGracefully()
            throw IOError.network(
                "\(options.address)", "listen", reason: Self.reason(error),
                advice: "--listen chooses another address or port.")
        }
        let interval = TimeAmount.milliseconds(
            Int64(max(50, min(1000, options.sessionTimeout * 250))))
        let task = group.next().scheduleRepeatedTask(initialDelay: interval, delay: interval) {
            [queue, service] _ in queue.add { _ in service.tidy() }
        }
        tidying.withLock { $0 = task }
    }

    private func listen(_ setup: ConnectionSetup) throws -> any Channel {
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 256)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.recvAllocator, value: ConnectionSetup.allocator)
            .childChannelInitializer { [self] channel in
                setup.prepare(channel, identity: identity.withLock { $0 })
            }
        switch options.address {
        case .host(let host, let port):
            return try bootstrap.childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .bind(host: host, port: port).wait()
        case .unix(let path):
            return try bootstrap.bind(
                unixDomainSocketPath: path, cleanupExistingSocketFile: true
            ).wait()
        case .standardStreams: preconditionFailure("nothing listens")
        }
    }

    /// The port that it listens on; `nil` for a unix socket.
    package var port: Int? { listener.withLock { $0?.localAddress?.port } }

    /// How many sessions there are, for tests.
    package var sessionCount: Int { sessions.count }

    /// Bytes of the budget that no request has, for tests.
    package var freeMemory: Int { budget.free }

    /// How many connections there are, for tests.
    package var connectionCount: Int { connections.count }

    /// Offers other exports to others from now on.
    ///
    /// Sessions go on, as far as their client's token is still known.
    ///
    /// - Parameters:
    ///   - exports: in place of those before.
    ///   - tokens: in place of those before; `nil` for everybody.
    ///   - identity: in place of the one before, for new connections.
    /// - Throws: when libcrypto fails; then all is as before.
    package func replace(
        exports: [ExportSelector], tokens: [TokenEntry]?, identity: ServerIdentity? = nil
    ) throws(LinuxIO.IOError) {
        do throws(DigestError) { try access.replace(tokens) } catch {
            throw IOError("tokens", error.operation, reason: error.reason)
        }
        self.identity.withLock { $0 = identity }
        service.replace(exports: exports)
    }

    /// Finishes the requests in work, flushes the targets and ends.
    ///
    /// Blocks; not to be called on an event loop.
    package func stop() {
        tidying.withLock { $0 }?.cancel()
        try? listener.withLock { $0 }?.close().wait()
        streams?.stop()
        connections.endAll()
        // A client that keeps its connection open in the middle of a request is not waited for.
        let clock = ContinuousClock()
        let deadline = clock.now + .seconds(30)
        while connections.count > 0 && clock.now < deadline { usleep(5000) }
        sessions.close()
        queue.close()
        try? group.syncShutdownGracefully()
        if case .unix(let path) = options.address { unlink(path) }
    }

    /// Each connection is a descriptor.
    private static func raiseDescriptorLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = min(limit.rlim_max, 65536)
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    private static func reason(_ error: any Error) -> String {
        if let error = error as? NIOCore.IOError {
            return String(cString: strerror(error.errnoCode))
        }
        return "\(error)"
    }
}

extension BlockServer.Options.Address: CustomStringConvertible {
    package var description: String {
        switch self {
        case .host(let host, let port):
            host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): "unix:\(path)"
        case .standardStreams: "standard streams"
        }
    }
}
