// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockServer
internal import CLinuxBlock
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import Logging
internal import SystemPackage
internal import WireProtocol

struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Offer devices and images over HTTP until a signal ends the server.",
        discussion: """
            Only what is exported can be reached, and it is read-only unless :rw says otherwise. \
            Without tokens every client that can connect may use it, and the server listens on \
            this machine alone, unless --insecure says otherwise. SIGTERM and SIGINT finish what \
            is in work and put it on the medium; SIGHUP reads the files of exports and tokens again. \
            Sockets that systemd passes take the place of --listen.
            """)

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "Where to listen: [ADDRESS:]PORT or unix:PATH (default: 127.0.0.1:8080).",
            valueName: "address"))
    var listen: String?

    @Flag(help: "Speak over standard input and output instead, as ssh:// does.")
    var stdio = false

    @Option(
        help: ArgumentHelp(
            "With --stdio: all processes with this name are one server; random letters and digits.",
            valueName: "name"))
    var group: String?

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp(
            "With --stdio, for a forced command of sshd: offer these exports, whatever the client "
                + "asks for.", valueName: "export"),
        completion: .file())
    var only: [String] = []

    @Option(
        name: .customLong("export"),
        help: ArgumentHelp(
            "Offer a device, an image or, with a slash at its end, a directory of images; the "
                + "logical volumes of a group (GROUP or 'GROUP/*'), or GROUP/VOLUME, with "
                + ":rw,create also to be made; SELECTOR[:ro|:rw|:rw,create] (repeatable).",
            valueName: "selector"),
        completion: .file())
    var selectors: [String] = []

    @Option(
        help: ArgumentHelp(
            "Offer what a file lists, one export a line, # for comments.", valueName: "path"),
        completion: .file())
    var exportsFile: String?

    @Flag(help: "Offer every block device of this machine, read-only.")
    var exportAll = false

    @Option(
        help: ArgumentHelp(
            "Admit only clients with a token of this file, one a line: "
                + "NAME TOKEN [ro] [expires=DATE] [from=ADDRESS/LENGTH,…] [max-size=SIZE] "
                + "[append-only] [SELECTOR…]; in place of TOKEN also sha256:DIGEST, user:NAME on a "
                + "unix socket, or - for a certificate.", valueName: "path"),
        completion: .file())
    var tokenFile: String?

    @Flag(
        help: "Make a token, admit only clients with it, and print the command for the other host.")
    var oneTimeToken = false

    @Option(
        help: ArgumentHelp(
            "Keep what each writing session overwrites in a new file of this directory; blkferry "
                + "rollback makes the target what it was.", valueName: "path"),
        completion: .directory)
    var undoDirectory: String?

    @Option(
        help: ArgumentHelp(
            "With --undo-directory: bytes of each file at most; a session ends with an error there.",
            valueName: "size"))
    var undoLimit: ByteSize?

    @OptionGroup var tls: ServerTLS

    @Flag(help: "Do not answer clients of pdiffcopy.")
    var noPdiffcopy = false

    @Option(
        help: ArgumentHelp(
            "Started by root, become this user once the address is bound and the files are read.",
            valueName: "name"))
    var user: String?

    @Flag(help: "Listen on an address that other machines reach, without any protection.")
    var insecure = false

    @Option(
        name: [.customShort("c"), .long],
        help: ArgumentHelp(
            "Threads for device I/O, 1 to 256 (default: four a processor, at most 32).",
            valueName: "n"))
    var concurrency: Int?

    @Option(
        help: ArgumentHelp(
            "Release a session that was silent for so many seconds.", valueName: "seconds"))
    var sessionTimeout = 60.0

    @Flag(name: .shortAndLong, help: "Log every request.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Log warnings and errors only.")
    var quiet = false

    func validate() throws {
        if let concurrency, !(1...256).contains(concurrency) {
            throw ValidationError("concurrency \(concurrency): must be from 1 to 256")
        }
        if undoLimit != nil && undoDirectory == nil {
            throw ValidationError("--undo-limit goes with --undo-directory")
        }
        if verbose && quiet { throw ValidationError("--verbose does not go with --quiet") }
        guard (1...86_400).contains(sessionTimeout) else {
            throw ValidationError("session timeout \(sessionTimeout): must be from 1 to 86400")
        }
        do throws(WireError) {
            try validateStreams()
            _ = try addresses()
            for selector in selectors + only { _ = try ExportSelector(selector) }
        } catch {
            throw ValidationError(error.reason)
        }
    }

    func run() throws {
        let console = Console()
        do throws(CommandFailure) { try serve(console) } catch {
            console.error(error.message, advice: error.advice)
            throw CommandEnd(status: error.status)
        }
    }

    private func serve(_ console: Console) throws(CommandFailure) {
        let manager = ServiceManager()
        // Before this process opens a descriptor with such a number.
        let passed = try manager.sockets()
        guard !selectors.isEmpty || !only.isEmpty || exportsFile != nil || exportAll else {
            throw CommandFailure(
                .usage, "nothing is exported",
                advice: "Say --export, --exports-file or --export-all.")
        }
        do throws(IOError) { try BlockServer.requireDescriptors() } catch {
            throw CommandFailure(error)
        }
        let account = try user.map { name throws(CommandFailure) in
            try Privileges.Account(name)
        }
        // Before the server reads a secret or creates a file.
        clb_forbid_core_dumps()
        umask(0o077)
        if geteuid() == 0, account == nil, !stdio { _ = PrivilegedCalls.startHelper() }
        let oneTime = oneTimeToken ? try Token.make() : nil
        let addresses: [ListenAddress]
        do throws(WireError) { addresses = try self.addresses(of: passed) } catch {
            throw CommandFailure(.usage, error.reason)
        }
        var offer = try self.offer(oneTime, as: account)
        offer.identity = try tls.identity(for: addresses.flatMap(\.hosts))
        do throws(IOError) { try requireSystem(for: offer.exports) } catch {
            throw CommandFailure(error)
        }
        var logger = Logger(label: "blkferry") {
            EscapingLogHandler(
                Journal.isStandardError
                    ? JournalLogHandler(label: $0) : StreamLogHandler.standardError(label: $0))
        }
        logger.logLevel = verbose ? .debug : quiet ? .warning : .info
        var options = BlockServer.Options(
            address: addresses[0].address, exports: offer.exports, logger: logger)
        options.tokens = offer.tokens
        options.identity = offer.identity
        options.exportsAll = exportAll
        options.runtimeDirectory = usualRuntimeDirectory()
        options.sessionTimeout = sessionTimeout
        options.threads = concurrency
        options.servesPdiffcopy = !noPdiffcopy
        do throws(IOError) {
            options.undo = try undoDirectory.map { path throws(IOError) in
                try UndoDirectory(path, limit: undoLimit?.bytes)
            }
        } catch {
            throw CommandFailure(error)
        }
        options.version = Blkferry.version

        signal(SIGPIPE, SIG_IGN)
        if stdio, try !prepareStreams(&options) { return }
        // Before any thread starts, so that no thread takes the signal.
        var signals = endings
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        options.sockets = passed
        if !stdio, passed.isEmpty {
            // Without root's rights the server may not be allowed to bind the address.
            options.sockets = try addresses.map { one throws(CommandFailure) in
                try ListeningSocket.make(one.address, isOpen: offer.tokens != nil, for: account)
            }
        }
        var privileges = try dropPrivileges(&options, as: account)
        let server: BlockServer
        do throws(IOError) {
            try options.undo?.check()
            server = try BlockServer(options)
        } catch {
            throw CommandFailure(error)
        }
        warn(addresses, offer, logger)
        // Printed before "listening", so that a script that waits for it finds the token and the
        // pin.
        let port = passed.isEmpty ? server.port : nil
        let urls = addresses.flatMap { $0.urls(port: port, isTLS: tls.isOn) }
        guard printCommand(oneTime, urls, offer.identity, console) else {
            server.stop()
            throw CommandFailure(.deviceError, "serve: the one-time token could not be printed")
        }
        let exports = numberInLog(offer.exports)
        let places = addresses.map { $0.description(port: port) }
        for place in places {
            logger.info("listening", metadata: ["address": "\(place)", "exports": "\(exports)"])
        }
        let place = places.joined(separator: ", ")
        manager.notifyReady("\(place): exports: \(exports)")
        if let interval = manager.watchdogInterval {
            server.whileEventLoopsRun(every: interval) { manager.feedWatchdog() }
        }
        var number: Int32 = 0
        while sigwait(&signals, &number) != 0 || (number == SIGHUP && !stdio) {
            guard number == SIGHUP else { continue }
            manager.notifyReloading()
            let result = reload(server, oneTime, offer.identity, &privileges, logger)
            manager.notifyReady("\(place): \(result)")
        }
        logger.info("ending", metadata: ["signal": "\(number)"])
        manager.notifyStopping()
        server.stop()
        logger.info("ended")
    }

    /// Throws if a needed part of /proc or /sys is missing; otherwise every request would answer
    /// 404.
    private func requireSystem(for exports: [ExportSelector]) throws(IOError) {
        let needsHost =
            exportAll
            || exports.contains { export in
                guard case .path(let path) = export.selector, export.group == nil else {
                    return true
                }
                return (try? FileStatus(path: path))?.kind == .blockDevice
            }
        if needsHost { try requireHost() }
        // Images in a directory are opened through descriptors.
        guard exports.contains(where: \.isDirectory), !FileStatus.exists("/proc/self/fd") else {
            return
        }
        throw IOError(
            "/proc/self/fd", "open", .noSuchFileOrDirectory,
            advice: "Mount /proc: the images of a directory are opened through it.")
    }

    /// Whether clients must authenticate themselves.
    private var isGuarded: Bool {
        tokenFile != nil || oneTimeToken || tls.clientAuthorities != nil
    }

    private func warn(_ addresses: [ListenAddress], _ offer: Offer, _ logger: Logger) {
        if let identity = offer.identity, identity.end < time(nil) {
            logger.warning("the certificate has expired")
        }
        warn(of: offer.exports, logger)
        for token in offer.tokens ?? [] where token.expires.map({ $0 <= time(nil) }) ?? false {
            logger.warning("the token has expired", metadata: ["client": "\(token.name)"])
        }
        let reason: String? =
            !isGuarded
            ? "listening without any protection"
            : tls.isOn ? nil : "what crosses the network can be read on the way, tokens included"
        guard let reason else { return }
        for address in addresses where !address.isLocal {
            logger.warning("\(reason)", metadata: ["address": "\(address.address)"])
        }
    }

    private var endings: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&set, number) }
        if stdio { sigaddset(&set, Self.streamsEnd) }
        return set
    }

    /// The addresses of the sockets that the service manager has passed, or else the one of the
    /// options.
    ///
    /// - Throws: wrong usage if both are given, or if other machines could use an address without
    ///   any protection.
    private func addresses(
        of passed: [ListeningSocket] = []
    ) throws(WireError) -> [ListenAddress] {
        guard passed.isEmpty || !stdio && listen == nil else {
            throw WireError(
                "LISTEN_FDS: the service manager has passed sockets: leave out --listen and --stdio"
            )
        }
        var addresses = passed.map { ListenAddress($0.address) }
        if addresses.isEmpty {
            addresses.append(
                stdio ? .standardStreams : try ListenAddress(listen ?? "127.0.0.1:8080"))
        }
        let open = addresses.first { !$0.isLocal }
        guard let open, !insecure, !isGuarded else { return addresses }
        throw WireError(
            "\(open.address): other machines could connect, and nothing would keep them out: "
                + "say --token-file FILE, --one-time-token or --tls-client-ca FILE, or "
                + "listen on 127.0.0.1, [::1] or unix:PATH; --insecure admits every client")
    }
}
