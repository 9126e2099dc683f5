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
internal import SystemPackage
package import WireProtocol

/// A server that offers devices over HTTP.
package final class BlockServer: Sendable {
    package struct Options: Sendable {
        package enum Address: Hashable, Sendable {
            case host(String, port: Int)
            case unix(String)
            /// Standard streams of this process, and of other processes that join it.
            case standardStreams
        }
        package var address: Address
        /// The bound sockets; without any the server binds the address.
        package var sockets: [ListeningSocket] = []
        package var exports: [ExportSelector]
        /// Also exports every block device of the machine, read-only.
        package var exportsAll = false
        /// Whether a missing image that is exported by its path may be created.
        package var createsImages = false
        /// Where other processes hand over their standard streams; `nil` for none.
        package var streams: StreamListener?
        /// Called after the last connection of standard streams has closed.
        package var whenStreamsEnd: @Sendable () -> Void = {}
        /// The tokens that the server admits; `nil` for every client.
        package var tokens: [TokenEntry]?
        /// Certificate and key for TLS; `nil` for plain HTTP.
        package var identity: ServerIdentity?
        /// Directory for state that outlives the server until the machine restarts; `nil` for none.
        package var runtimeDirectory: String?
        /// Where the undo journals of writing sessions are; `nil` for none.
        package var undo: UndoDirectory?
        /// Seconds without a request after which a session is released.
        package var sessionTimeout = 60.0
        /// Threads for device I/O; `nil` for the default, which measurements have shown to be best.
        package var threads: Int?
        package var logger: Logger
        package var version = "0"
        package var maximumConnections = 1024
        /// Connections that one address, and one token or certificate, may have at once.
        package var maximumConnectionsOfClient = 512
        package var maximumSessions = 64
        /// Sessions that one address, and one token or certificate, may have at once.
        package var maximumSessionsOfClient = 32
        package var servesPdiffcopy = true
        /// `false` as if libzstd were missing, for tests.
        package var findsZstd = true
        /// Delay of the response to the first wrong token, in seconds.
        package var firstWait = 0.5
        /// Least time between two lines of the log about the same repeated event, in seconds.
        package var logInterval = 60.0
        /// Bytes that all requests in work may take together.
        package var memory = 64 << 20
        /// Seconds that a client may be silent in the middle of a request or response.
        package var patience = 60.0
        /// Seconds that a TLS handshake may take.
        package var handshakeTime = 10.0
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
    let queue: WorkQueue
    let sessions: SessionTable
    private let budget: MemoryBudget
    private let access: AccessTable
    private let identity: Mutex<ServerIdentity?>
    let service: Service
    let connections: Connections
    private let events: BoundedLog
    private let listeners: Mutex<[any Channel]> = Mutex([])
    private let socketFiles: Mutex<[UnixSocketFile]> = Mutex([])
    private let isStopped = Mutex(false)
    private let streams: StreamServer?
    private let tidying: Mutex<RepeatedTask?> = Mutex(nil)

    private static let loops = 2
    /// Least bytes for requests in work: enough for one of each kind.
    private static let leastMemory = 16 << 20
    /// Bytes for everything else.
    private static let reserve = 24 << 20
    /// Descriptors without which a server does not start.
    private static let leastDescriptors = 128

    /// Starts to listen and to answer.
    ///
    /// - Throws: if the address cannot be bound, or if memory, threads or descriptors are short.
    package init(_ options: Options) throws(LinuxIO.IOError) {
        self.options = options
        let logger = options.logger.escaping
        events = BoundedLog(logger, interval: .seconds(options.logInterval))
        connections = Connections(limitOfClient: options.maximumConnectionsOfClient)
        identity = Mutex(options.identity)
        let shares = DescriptorShares(of: try Self.requireDescriptors(), options)
        // Otherwise each thread keeps an arena full of responses that were sent long ago.
        clb_limit_arenas(2)
        let exports = ExportTable(
            exports: options.exports, offersAll: options.exportsAll,
            createsImages: options.createsImages)
        // NIO traps if it cannot start its threads.
        try Threads.require(Self.loops + 1)
        group = MultiThreadedEventLoopGroup(numberOfThreads: Self.loops)
        let processors = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        // One of the two is kept for sessions.
        var threads = max(2, options.threads ?? min(4 * processors, 32))
        var memory = options.memory
        if Memory.isLimited {
            // A thread takes its stack and its buffer.
            func need() -> Int { threads * (10 << 20) + 2 * memory + Self.reserve }
            while threads > 1 || memory > Self.leastMemory, !Memory.has(need()) {
                threads = max(1, threads / 2)
                memory = max(Self.leastMemory, memory / 2)
            }
            guard Memory.has(need()) else { throw Memory.error("server", "start", need()) }
        }
        queue = WorkQueue(threads: threads, memory: Limits.payload + (64 << 10))
        guard !queue.isIdle else {
            throw IOError("threads", "start", .resourceTemporarilyUnavailable)
        }
        access = try AccessTable(options.tokens)
        let rights = Rights(access, exports)
        sessions = SessionTable(
            rights, limit: shares.sessions, limitOfClient: shares.sessionsOfClient,
            silence: .seconds(options.sessionTimeout), logger: logger, events: events,
            directory: options.runtimeDirectory, findsZstd: options.findsZstd,
            undo: options.undo)
        service = Service(
            rights, sessions: sessions,
            downloads: DownloadLimit(
                limit: shares.downloads, ofClient: shares.downloadsOfClient),
            version: options.version, servesPdiffcopy: options.servesPdiffcopy,
            connections: connections)
        budget = MemoryBudget(bytes: memory)
        let shared = ConnectionContext(
            service: service, queue: queue, budget: budget,
            bodies: BodyPool(size: Limits.body), access: access,
            throttle: AuthThrottle(first: .seconds(options.firstWait)),
            connections: connections, logger: logger, events: events, counts: sessions.counts,
            hosts: options.address.hosts,
            patience: .milliseconds(Int64(options.patience * 1000)),
            idleTime: .milliseconds(Int64(options.idleTime * 1000)))
        let setup = ConnectionSetup(
            shared: shared, connections: connections,
            limit: shares.connections, limitOfAddress: shares.connectionsOfClient,
            handshakeTime: .milliseconds(Int64(options.handshakeTime * 1000)))
        do {
            if case .standardStreams = options.address {
                streams = StreamServer(setup, group, options)
                try streams?.start()
            } else {
                streams = nil
                try listen(setup)
            }
        } catch {
            queue.close()
            try? group.syncShutdownGracefully()
            if let error = error as? LinuxIO.IOError { throw error }
            throw IOError.network(
                "\(options.address)", "listen", reason: Self.reason(error),
                advice: "--listen chooses another address or port.")
        }
        let interval = TimeAmount.milliseconds(
            Int64(max(50, min(1000, options.sessionTimeout * 250))))
        let task = group.next().scheduleRepeatedTask(initialDelay: interval, delay: interval) {
            [queue, service, events, connections] _ in
            events.flush()
            // Tokens and certificates expire.
            connections.notifyAll(RightsChange(isOfAuthority: false))
            service.tidy(on: queue)
        }
        tidying.withLock { $0 = task }
    }

    private func listen(_ setup: ConnectionSetup) throws {
        // If every request is authorized, every user may connect to a unix socket.
        let sockets =
            try !options.sockets.isEmpty
            ? options.sockets
            : [ListeningSocket(options.address, isOpen: options.tokens != nil, owner: nil)]
        for socket in sockets {
            var setup = setup
            setup.shared.hosts = socket.address.hosts
            let channel = try listen(socket, setup)
            listeners.withLock { $0.append(channel) }
            if let file = socket.file { socketFiles.withLock { $0.append(file) } }
        }
    }

    private func listen(
        _ socket: ListeningSocket, _ setup: ConnectionSetup
    ) throws -> any Channel {
        var bootstrap = ServerBootstrap(group: group)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptPause())
                }
            }
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.recvAllocator, value: ReadAllocator())
            .childChannelInitializer { [self] channel in
                let identity = self.identity.withLock { $0 }
                if case .unix = socket.address {
                    return setup.prepareLocal(channel, identity: identity)
                }
                return setup.prepare(channel, identity: identity)
            }
        if case .host = socket.address {
            bootstrap = bootstrap.childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
        }
        let descriptor = socket.take()
        let channel = try bootstrap.withBoundSocket(descriptor).wait()
        // NIO has set a shorter queue.
        try? ListeningSocket.listen(descriptor)
        return channel
    }

    /// The symbolic link in an export's path that another user may change, so that the server does
    /// not export the path; `nil` for none.
    package static func untrustedLink(in path: String) -> String? {
        TrustedPath.untrustedLink(in: path)
    }

    /// The TCP port of the first socket; `nil` for a unix socket and for standard streams.
    package var port: Int? { listeners.withLock { $0.first?.localAddress?.port } }

    /// Calls a function at regular intervals until the server ends, but only while every event loop
    /// runs.
    package func whileEventLoopsRun(
        every interval: Duration, _ call: @escaping @Sendable () -> Void
    ) {
        let first = group.next()
        let delay = TimeAmount(interval)
        first.scheduleRepeatedAsyncTask(initialDelay: delay, delay: delay) { [group] _ in
            let answers = group.makeIterator().map { $0.submit {} }
            return EventLoopFuture.andAllSucceed(answers, on: first).map { call() }
        }
    }

    package var sessionCount: Int { sessions.count }

    package var freeMemory: Int { budget.free }

    package var connectionCount: Int { connections.count }

    /// Replaces exports, tokens and TLS identity; if libcrypto fails, it throws and changes
    /// nothing.
    ///
    /// Sessions and downloads continue as far as the new tokens and exports allow them. The server
    /// ends the others and flushes their targets. The new identity is for new connections only.
    package func replace(
        exports: [ExportSelector], tokens: [TokenEntry]?, identity: ServerIdentity? = nil
    ) throws(LinuxIO.IOError) {
        try access.replace(tokens)
        let before = self.identity.withLock { known in
            defer { known = identity }
            return known
        }
        service.replace(exports: exports)
        let isOfAuthority = before.map { !$0.hasAuthorities(of: identity) } ?? false
        if isOfAuthority { sessions.awaitClients() }
        connections.notifyAll(RightsChange(isOfAuthority: isOfAuthority))
        service.tidy(on: queue)
    }

    /// Finishes the requests in work, flushes the targets and ends; must not block an event loop.
    package func stop() {
        let isFirst = isStopped.withLock { isStopped in
            defer { isStopped = true }
            return !isStopped
        }
        guard isFirst else { return }
        tidying.withLock { $0 }?.cancel()
        for listener in listeners.withLock({ $0 }) { try? listener.close().wait() }
        streams?.stop()
        connections.endAll()
        // A client that keeps its connection open in the middle of a request delays this by 30 s at
        // most.
        connections.waitUntilAllHaveClosed(until: .now + .seconds(30))
        // Their questions that still wait for a thread end at once.
        connections.endAll(isLate: true)
        sessions.close()
        queue.close()
        events.close()
        try? group.syncShutdownGracefully()
        for file in socketFiles.withLock({ $0 }) { file.remove() }
    }

    /// Raises the limit of open descriptors as far as the system allows, and returns it.
    ///
    /// - Throws: if fewer than 128 are possible.
    @discardableResult
    package static func requireDescriptors() throws(LinuxIO.IOError) -> Int {
        var limit = rlimit()
        let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(kind, &limit) == 0 else { return 1024 }
        let before = limit.rlim_cur
        limit.rlim_cur = max(before, min(limit.rlim_max, 65536))
        let isRaised = setrlimit(kind, &limit) == 0
        let count = Int(clamping: isRaised ? limit.rlim_cur : before)
        guard count >= leastDescriptors else {
            throw IOError(
                "server", "start",
                reason: "the limit of open files is \(count), and \(leastDescriptors) are needed",
                advice: "ulimit -n raises it; in a unit of systemd, LimitNOFILE=.")
        }
        return count
    }

    static func reason(_ error: any Error) -> String {
        if let error = error as? Errno { return "\(error)" }
        if let error = error as? NIOCore.IOError {
            return String(cString: strerror(error.errnoCode))
        }
        return "\(error)"
    }
}
