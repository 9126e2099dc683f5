// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockServer
internal import CLinuxBlock
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import Logging
internal import WireProtocol

/// `blkferry serve`: offers devices over HTTP.
struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Offer devices and images over HTTP until it is told to end.",
        discussion: """
            Only what is exported can be reached, and it is read-only unless :rw says otherwise. \
            Without tokens whoever can connect may use it, and the server listens on this machine \
            alone, unless --insecure says otherwise. SIGTERM and SIGINT finish what is in work and \
            put it on the medium; SIGHUP reads the files of exports and tokens again.
            """)

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "Where to listen: [ADDRESS:]PORT or unix:PATH (default: 127.0.0.1:8080).",
            valueName: "address"))
    var listen: String?

    @Flag(help: "Speak over standard input and output instead, as ssh:// has it done.")
    var stdio = false

    @Option(
        help: ArgumentHelp(
            "With --stdio: all processes with this name are one server; random letters and digits.",
            valueName: "name"))
    var group: String?

    @Option(
        name: .customLong("export"),
        help: ArgumentHelp(
            "Offer a device, an image or, with a slash at its end, a directory of images; the "
                + "logical volumes of a group (GROUP or 'GROUP/*'), or GROUP/VOLUME, with "
                + ":rw,create also to be made; SELECTOR[:ro|:rw|:rw,create] (repeatable).",
            valueName: "selector"))
    var selectors: [String] = []

    @Option(
        help: ArgumentHelp(
            "Offer what a file lists, one export a line, # for comments.", valueName: "path"))
    var exportsFile: String?

    @Flag(help: "Offer every block device of this machine, read-only.")
    var exportAll = false

    @Option(
        help: ArgumentHelp(
            "Let only those in who show a token of this file, one a line: "
                + "NAME TOKEN [ro] [SELECTOR…].", valueName: "path"))
    var tokenFile: String?

    @Flag(
        help: "Let only those in who show a token that is made now, and print what to type there.")
    var oneTimeToken = false

    @OptionGroup var tls: ServerTLS

    @Flag(help: "Listen on an address that other machines reach, without any protection.")
    var insecure = false

    @Option(
        name: [.customShort("c"), .long],
        help: ArgumentHelp(
            "Threads for device I/O (default: four a processor).", valueName: "n"))
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
                        + "listen on 127.0.0.1, [::1] or unix:PATH; --insecure lets everybody in")
            }
            for selector in selectors { _ = try ExportSelector(selector) }
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
        guard !selectors.isEmpty || exportsFile != nil || exportAll else {
            throw CommandFailure(
                .usage, "nothing is exported",
                advice: "Say --export, --exports-file or --export-all.")
        }
        // Before a secret is read or a file is made.
        clb_forbid_core_dumps()
        umask(0o077)
        let oneTime = oneTimeToken ? try Token.make() : nil
        let address: ListenAddress
        do throws(WireError) { address = try self.address() } catch {
            throw CommandFailure(.usage, error.reason)
        }
        var offer = try self.offer(oneTime)
        offer.identity = try tls.identity(for: address.hosts)
        var logger = Logger(label: "blkferry") { StreamLogHandler.standardError(label: $0) }
        logger.logLevel = verbose ? .debug : quiet ? .warning : .info
        var options = BlockServer.Options(
            address: address.address, exports: offer.exports, logger: logger)
        options.tokens = offer.tokens
        options.identity = offer.identity
        options.exportsAll = exportAll
        options.sessionTimeout = sessionTimeout
        options.threads = concurrency
        options.version = Blkferry.version

        signal(SIGPIPE, SIG_IGN)
        if stdio, try !prepareStreams(&options) { return }
        // Before any thread is started, so that none of them takes the signal.
        var signals = endings
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        let server: BlockServer
        do throws(IOError) { server = try BlockServer(options) } catch {
            throw CommandFailure(error)
        }
        warn(address, offer, logger)
        // Whoever waits for "listening" finds there what a client needs.
        tell(oneTime, address.urls(port: server.port, isTLS: tls.isOn), offer.identity, console)
        let place = address.description(port: server.port)
        logger.info(
            "listening", metadata: ["address": "\(place)", "exports": "\(offer.exports.count)"])
        var number: Int32 = 0
        while sigwait(&signals, &number) != 0 || (number == SIGHUP && !stdio) {
            if number == SIGHUP { reload(server, oneTime, offer.identity, logger) }
        }
        logger.info("ending", metadata: ["signal": "\(number)"])
        server.stop()
        logger.info("ended")
    }

    /// Whether the server asks who somebody is.
    private var isGuarded: Bool {
        tokenFile != nil || oneTimeToken || tls.clientAuthorities != nil
    }

    private func warn(_ address: ListenAddress, _ offer: Offer, _ logger: Logger) {
        if let identity = offer.identity, identity.end < time(nil) {
            logger.warning("the certificate has expired")
        }
        warn(ofMissing: offer.exports, logger)
        guard !address.isLocal else { return }
        let reason: String? =
            !isGuarded
            ? "listening without any protection"
            : tls.isOn ? nil : "what crosses the network can be read on the way, tokens included"
        if let reason { logger.warning("\(reason)", metadata: ["address": "\(listen ?? "")"]) }
    }

    /// Names without a slash at their start may be mistyped paths; the groups and volumes that are
    /// meant may also come later.
    private func warn(ofMissing exports: [ExportSelector], _ logger: Logger) {
        guard exports.contains(where: { $0.group != nil || $0.isVolumeName }) else { return }
        let groups = KnownVolumes().groups()
        for export in exports {
            let file = try? FileStatus(path: export.text)
            if let group = export.group {
                // Where LVM cannot be asked: it has a directory for a group with active volumes.
                if groups?.contains(group) ?? (file?.kind == .directory) { continue }
                logger.warning(
                    "there is no such volume group now; a device is exported by its path",
                    metadata: ["export": "\(group)"])
            } else if export.isVolumeName, !export.canCreate, file == nil {
                logger.warning(
                    "there is no such logical volume now; an image is exported by its whole path",
                    metadata: ["export": "\(export.text)"])
            }
        }
    }

    /// What is offered, and to whom.
    private struct Offer {
        var exports: [ExportSelector] = []
        /// `nil` for everybody.
        var tokens: [TokenEntry]?
        var identity: ServerIdentity?
    }

    /// Reads options and files, but for those of TLS.
    private func offer(_ oneTime: String?) throws(CommandFailure) -> Offer {
        var offer = Offer()
        let secrets = try tokenFile.map { path throws(CommandFailure) in
            (text: try readCredential(path, .token), path: path)
        }
        do throws(WireError) {
            for selector in selectors { offer.exports.append(try ExportSelector(selector)) }
            if let exportsFile { offer.exports += try read(exportsFile) }
            if let secrets {
                offer.tokens = try tokens(inFile: secrets.text, named: secrets.path)
            }
        } catch {
            throw CommandFailure(.usage, error.reason)
        }
        if let oneTime {
            offer.tokens = (offer.tokens ?? []) + [TokenEntry(name: "one-time", token: oneTime)]
        }
        return offer
    }

    /// Reads the files again; what cannot be read changes nothing.
    private func reload(
        _ server: BlockServer, _ oneTime: String?, _ made: ServerIdentity?, _ logger: Logger
    ) {
        do throws(CommandFailure) {
            let offer = try offer(oneTime)
            // A key that was made at the start is what clients insist on.
            let identity = tls.isSelfSigned ? made : try tls.identity(for: [])
            do throws(IOError) {
                try server.replace(
                    exports: offer.exports, tokens: offer.tokens, identity: identity)
            } catch {
                throw CommandFailure(error)
            }
            warn(ofMissing: offer.exports, logger)
            logger.info("reloaded", metadata: ["exports": "\(offer.exports.count)"])
        } catch {
            logger.error("not reloaded: \(error.message)")
        }
    }

    /// Prints what the user types on the other host, where that is not known beforehand.
    private func tell(
        _ token: String?, _ urls: [String], _ identity: ServerIdentity?, _ console: Console
    ) {
        guard token != nil || tls.isSelfSigned else { return }
        let variable = token.map { "BLKFERRY_TOKEN=\($0) " } ?? ""
        var options = ""
        if tls.isSelfSigned, let identity {
            options = "--pinned-pubkey sha256//\(base64(identity.keyDigest)) "
        }
        console.result(
            """
            On the other host:
                \(variable)blkferry list \(options)\(urls.first ?? "URL")
            """)
        if urls.count > 1 {
            console.result("or with \(urls.dropFirst().joined(separator: ", "))")
        }
    }

    private func read(_ path: String) throws(WireError) -> [ExportSelector] {
        guard let text = readSmallFile(path) else {
            throw WireError("\(path): read: \(currentErrno())")
        }
        return try WireProtocol.exports(inFile: text, named: path)
    }

    /// Signals that are waited for.
    private var endings: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&set, number) }
        if stdio { sigaddset(&set, Self.streamsEnd) }
        return set
    }

    /// Where to listen.
    private func address() throws(WireError) -> ListenAddress {
        stdio ? .standardStreams : try ListenAddress(listen ?? "127.0.0.1:8080")
    }
}
