// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockServer
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
            Whoever can connect may use it: without --insecure the server listens on this machine \
            alone. SIGTERM and SIGINT finish what is in work and put it on the medium.
            """)

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "Where to listen: [ADDRESS:]PORT or unix:PATH (default: 127.0.0.1:8080).",
            valueName: "address"))
    var listen = "127.0.0.1:8080"

    @Option(
        name: .customLong("export"),
        help: ArgumentHelp(
            "Offer a device, an image or, with a slash at its end, a directory of images; "
                + "SELECTOR[:ro|:rw] (repeatable).", valueName: "selector"))
    var selectors: [String] = []

    @Option(
        help: ArgumentHelp(
            "Offer what a file lists, one export a line, # for comments.", valueName: "path"))
    var exportsFile: String?

    @Flag(help: "Offer every block device of this machine, read-only.")
    var exportAll = false

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

    func validate() throws {
        if let concurrency, !(1...256).contains(concurrency) {
            throw ValidationError("concurrency \(concurrency): must be from 1 to 256")
        }
        guard (1...86_400).contains(sessionTimeout) else {
            throw ValidationError("session timeout \(sessionTimeout): must be from 1 to 86400")
        }
        do throws(WireError) {
            let address = try ListenAddress(listen)
            guard insecure || address.isLocal else {
                throw WireError(
                    "\(listen): other machines could connect, and nothing would keep them out: "
                        + "listen on 127.0.0.1, [::1] or unix:PATH, or say --insecure")
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
        let address: ListenAddress
        var exports: [ExportSelector] = []
        do throws(WireError) {
            address = try ListenAddress(listen)
            for selector in selectors { exports.append(try ExportSelector(selector)) }
            if let exportsFile { exports += try read(exportsFile) }
        } catch {
            throw CommandFailure(.usage, error.reason)
        }
        var logger = Logger(label: "blkferry") { StreamLogHandler.standardError(label: $0) }
        logger.logLevel = .info
        var options = BlockServer.Options(
            address: address.address, exports: exports, logger: logger)
        options.exportsAll = exportAll
        options.sessionTimeout = sessionTimeout
        options.threads = concurrency
        options.version = Blkferry.version

        // Before any thread is started, so that none of them takes the signal.
        var signals = Self.endings()
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        signal(SIGPIPE, SIG_IGN)
        let server: BlockServer
        do throws(IOError) { server = try BlockServer(options) } catch {
            throw CommandFailure(error)
        }
        if insecure && !address.isLocal {
            logger.warning("listening without any protection", metadata: ["address": "\(listen)"])
        }
        let place = address.description(port: server.port)
        logger.info("listening", metadata: ["address": "\(place)", "exports": "\(exports.count)"])
        var number: Int32 = 0
        while sigwait(&signals, &number) != 0 {}
        logger.info("ending", metadata: ["signal": "\(number)"])
        server.stop()
        logger.info("ended")
    }

    private func read(_ path: String) throws(WireError) -> [ExportSelector] {
        guard let text = readSmallFile(path) else {
            throw WireError("\(path): read: \(currentErrno())")
        }
        return try WireProtocol.exports(inFile: text, named: path)
    }

    private static func endings() -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&set, number) }
        return set
    }
}

/// What `--listen` says.
struct ListenAddress: Hashable {
    let address: BlockServer.Options.Address

    /// Reads `PORT`, `ADDRESS:PORT`, `[IPV6]:PORT` or `unix:PATH`.
    init(_ text: String) throws(WireError) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            // sun_path of unix(7) has 108 bytes, one of them the NUL.
            guard (1..<108).contains(path.utf8.count) else {
                throw WireError("\(text): the path must have 1 to 107 bytes")
            }
            address = .unix(path)
            return
        }
        let colon = text.lastIndex(of: ":")
        let digits = colon.map { text[text.index(after: $0)...] } ?? text[...]
        guard let port = UInt16(digits), digits.utf8.allSatisfy({ $0 != UInt8(ascii: "+") }) else {
            throw WireError("\(text): not [ADDRESS:]PORT nor unix:PATH")
        }
        var host = colon.map { String(text[..<$0]) } ?? "127.0.0.1"
        if host.hasPrefix("[") && host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
        } else if host.contains(":") {
            throw WireError("\(text): an IPv6 address is written in brackets: [\(host)]:\(port)")
        }
        guard !host.isEmpty else { throw WireError("\(text): the address is missing") }
        address = .host(host, port: Int(port))
    }

    /// Whether only this machine can connect to it.
    var isLocal: Bool {
        switch address {
        case .unix: true
        case .host(let host, _): host == "localhost" || host == "::1" || Self.isLoopback(host)
        }
    }

    /// 127.0.0.0/8 (RFC 1122, section 3.2.1.3).
    private static func isLoopback(_ host: String) -> Bool {
        var parsed = in_addr()
        guard inet_pton(AF_INET, host, &parsed) == 1 else { return false }
        return UInt32(bigEndian: parsed.s_addr) >> 24 == 127
    }

    /// As a client would write it.
    ///
    /// - Parameter port: the one that the system gave where 0 was asked for.
    /// - Returns: address and port.
    func description(port: Int?) -> String {
        switch address {
        case .unix: "\(address)"
        case .host(let host, let asked):
            "\(BlockServer.Options.Address.host(host, port: port ?? asked))"
        }
    }
}
