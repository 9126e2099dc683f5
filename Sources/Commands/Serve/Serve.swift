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
            is in work and put it on the medium; SIGHUP reads the files of exports and tokens again.
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
        if verbose && quiet { throw ValidationError("--verbose does not go with --quiet") }
        guard (1...86_400).contains(sessionTimeout) else {
            throw ValidationError("session timeout \(sessionTimeout): must be from 1 to 86400")
        }
        do throws(WireError) {
            let address = try address()
            try validateStreams()
            guard insecure || isGuarded || address.isLocal else {
                throw WireError(
                    "\(listen ?? ""): other machines could connect, and nothing would keep them out: "
                        + "say --token-file FILE, --one-time-token or --tls-client-ca FILE, or "
                        + "listen on 127.0.0.1, [::1] or unix:PATH; --insecure admits every client")
            }
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
        let address: ListenAddress
        do throws(WireError) { address = try self.address() } catch {
            throw CommandFailure(.usage, error.reason)
        }
        var offer = try self.offer(oneTime, as: account)
        offer.identity = try tls.identity(for: address.hosts)
        do throws(IOError) { try requireSystem(for: offer.exports) } catch {
            throw CommandFailure(error)
        }
        var logger = Logger(label: "blkferry") {
            EscapingLogHandler(StreamLogHandler.standardError(label: $0))
        }
        logger.logLevel = verbose ? .debug : quiet ? .warning : .info
        var options = BlockServer.Options(
            address: address.address, exports: offer.exports, logger: logger)
        options.tokens = offer.tokens
        options.identity = offer.identity
        options.exportsAll = exportAll
        options.runtimeDirectory = usualRuntimeDirectory()
        options.sessionTimeout = sessionTimeout
        options.threads = concurrency
        options.servesPdiffcopy = !noPdiffcopy
        options.version = Blkferry.version

        signal(SIGPIPE, SIG_IGN)
        if stdio, try !prepareStreams(&options) { return }
        // Before any thread starts, so that no thread takes the signal.
        var signals = endings
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        if !stdio {
            // Without root's rights the server may not be allowed to bind the address.
            options.socket = try ListeningSocket.make(
                address.address, isOpen: offer.tokens != nil, for: account)
        }
        var privileges = try dropPrivileges(&options, as: account)
        let server: BlockServer
        do throws(IOError) { server = try BlockServer(options) } catch {
            throw CommandFailure(error)
        }
        warn(address, offer, logger)
        // Printed before "listening", so that a script that waits for it finds the token and the
        // pin.
        let urls = address.urls(port: server.port, isTLS: tls.isOn)
        guard printCommand(oneTime, urls, offer.identity, console) else {
            server.stop()
            throw CommandFailure(.deviceError, "serve: the one-time token could not be printed")
        }
        let place = address.description(port: server.port)
        logger.info(
            "listening",
            metadata: ["address": "\(place)", "exports": "\(numberInLog(offer.exports))"])
        var number: Int32 = 0
        while sigwait(&signals, &number) != 0 || (number == SIGHUP && !stdio) {
            if number == SIGHUP { reload(server, oneTime, offer.identity, &privileges, logger) }
        }
        logger.info("ending", metadata: ["signal": "\(number)"])
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

    private func warn(_ address: ListenAddress, _ offer: Offer, _ logger: Logger) {
        if let identity = offer.identity, identity.end < time(nil) {
            logger.warning("the certificate has expired")
        }
        warn(of: offer.exports, logger)
        for token in offer.tokens ?? [] where token.expires.map({ $0 <= time(nil) }) ?? false {
            logger.warning("the token has expired", metadata: ["client": "\(token.name)"])
        }
        guard !address.isLocal else { return }
        let reason: String? =
            !isGuarded
            ? "listening without any protection"
            : tls.isOn ? nil : "what crosses the network can be read on the way, tokens included"
        if let reason { logger.warning("\(reason)", metadata: ["address": "\(listen ?? "")"]) }
    }

    /// The exports, and the credentials of clients and server.
    private struct Offer {
        var exports: [ExportSelector] = []
        /// `nil` admits every client.
        var tokens: [TokenEntry]?
        var identity: ServerIdentity?
    }

    /// - Parameter account: the user of `--user`; this user or root owns the token file.
    private func offer(
        _ oneTime: String?, as account: Privileges.Account?
    ) throws(CommandFailure) -> Offer {
        var offer = Offer()
        let owner = account?.user ?? geteuid()
        let secrets = try tokenFile.map { path throws(CommandFailure) in
            (text: try readCredential(path, .token, of: owner), path: path)
        }
        do throws(WireError) {
            for selector in selectors + only {
                offer.exports.append(try ExportSelector(selector))
            }
            if let exportsFile { offer.exports += try read(exportsFile) }
            if let secrets {
                offer.tokens = try tokens(
                    inFile: secrets.text, named: secrets.path, users: Self.number(ofUser:))
            }
        } catch {
            throw CommandFailure(.usage, error.reason)
        }
        if let oneTime {
            offer.tokens = (offer.tokens ?? []) + [TokenEntry(name: "one-time", token: oneTime)]
        }
        return offer
    }

    /// Returns the id of a user of this machine; `nil` for an unknown name.
    private static func number(ofUser name: String) -> UInt32? {
        getpwnam(name).map(\.pointee.pw_uid)
    }

    /// Reads the files again; after an error the old state stays.
    private func reload(
        _ server: BlockServer, _ oneTime: String?, _ made: ServerIdentity?,
        _ privileges: inout Privileges?, _ logger: Logger
    ) {
        do throws(CommandFailure) {
            let offer = try offer(oneTime, as: nil)
            // Clients pin the key that was made at the start.
            let identity = tls.isSelfSigned ? made : try tls.identity(for: [])
            try privileges?.check(offer.exports)
            do throws(IOError) {
                try server.replace(
                    exports: offer.exports, tokens: offer.tokens, identity: identity)
            } catch {
                throw CommandFailure(error)
            }
            warn(of: offer.exports, logger)
            logger.info("reloaded", metadata: ["exports": "\(numberInLog(offer.exports))"])
        } catch {
            logger.error("not reloaded: \(error.message)")
        }
    }

    /// The number of exports for the log; `all` counts every block device of `--export-all`.
    private func numberInLog(_ exports: [ExportSelector]) -> String {
        guard exportAll else { return "\(exports.count)" }
        return exports.isEmpty ? "all" : "all+\(exports.count)"
    }

    private func read(_ path: String) throws(WireError) -> [ExportSelector] {
        guard let text = readSmallFile(path) else {
            throw WireError("\(path): read: \(currentErrno())")
        }
        return try WireProtocol.exports(inFile: text, named: path)
    }

    private var endings: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&set, number) }
        if stdio { sigaddset(&set, Self.streamsEnd) }
        return set
    }

    private func address() throws(WireError) -> ListenAddress {
        stdio ? .standardStreams : try ListenAddress(listen ?? "127.0.0.1:8080")
    }
}
