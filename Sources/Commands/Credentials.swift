// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockClient
internal import BlockReplication
internal import CLinuxBlock
internal import FoundationEssentials
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// What a client shows a server, and by what it knows the server.
struct Credentials: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "File with the token that the server wants (or BLKFERRY_TOKEN).", valueName: "path"))
    var tokenFile: String?

    @OptionGroup var ssh: SSHOptions
    @Option(
        help: ArgumentHelp(
            "Trust servers whose certificate one of these has signed, in PEM (default: those that "
                + "the system trusts).", valueName: "path"))
    var cacert: String?

    @Option(help: ArgumentHelp("Show the server this certificate, in PEM.", valueName: "path"))
    var cert: String?

    @Option(
        help: ArgumentHelp(
            "The certificate's key, in PEM (default: it is in the certificate's file).",
            valueName: "path"))
    var key: String?

    @Option(
        help: ArgumentHelp(
            "Trust the server with this key alone, whoever signed its certificate.",
            valueName: "sha256//…"))
    var pinnedPubkey: String?

    func validate() throws {
        guard key == nil || cert != nil else {
            throw ValidationError("--key belongs to a certificate: say --cert as well")
        }
        guard let pinnedPubkey else { return }
        for pin in pinnedPubkey.split(separator: ";", omittingEmptySubsequences: false) {
            guard pin.hasPrefix("sha256//"),
                Data(base64Encoded: String(pin.dropFirst(8)))?.count == 32
            else {
                throw ValidationError(
                    "pin \(pin): not sha256// and the base64 of 32 bytes, as the server prints it")
            }
        }
    }

    /// Makes sure that what is to protect a connection does so.
    ///
    /// - Throws: wrong usage, for a URL without TLS.
    func check(_ location: RemoteLocation) throws(WireError) {
        guard location.scheme != .https else { return }
        let given = [
            ("--cacert", cacert), ("--cert", cert), ("--key", key),
            ("--pinned-pubkey", pinnedPubkey),
        ].first { $0.1 != nil }
        if let given {
            throw WireError("\(location.text): \(given.0) is for https, which this is not")
        }
    }

    /// What servers are shown and known by.
    ///
    /// - Throws: wrong usage, for a token or a certificate that is not to be had.
    func access() throws(CommandFailure) -> Replication.Access {
        var access = Replication.Access()
        access.token = try token()
        let trust = try trust()
        access.authorities = trust.authorities
        access.certificate = trust.certificate
        access.key = trust.key
        access.pinnedPublicKey = trust.pin
        access.sshCommand = ssh.settings(isTarget: false).command
        access.remoteCommand = ssh.remoteCommand
        return access
    }

    /// How the server is known, and how this side is.
    ///
    /// - Throws: wrong usage, for files that cannot be read, and a key that others can.
    func trust() throws(CommandFailure) -> ServerTrust {
        for path in [cacert, cert].compactMap({ $0 }) { _ = try readCredential(path, .open) }
        if let key {
            clb_forbid_core_dumps()
            _ = try readCredential(key, .key)
        }
        return ServerTrust(
            authorities: cacert, certificate: cert, key: key ?? cert, pin: pinnedPubkey)
    }

    private static let variable = "BLKFERRY_TOKEN"

    /// The token of the file, else that of the environment, else none.
    ///
    /// - Throws: wrong usage, for a file that others can read or that holds no token; the message
    ///   never has the token in it.
    func token() throws(CommandFailure) -> String? {
        if let tokenFile {
            clb_forbid_core_dumps()
            let text = try readCredential(tokenFile, .token)
            do throws(WireError) {
                return try WireProtocol.token(inFile: text, named: tokenFile)
            } catch {
                throw CommandFailure(.usage, error.reason)
            }
        }
        guard let raw = getenv(Self.variable) else { return nil }
        clb_forbid_core_dumps()
        let token = String(cString: raw)
        // Who looks into /proc/PID/environ later does not find it.
        explicit_bzero(raw, strlen(raw))
        unsetenv(Self.variable)
        do throws(WireError) { try TokenEntry.check(token) } catch {
            throw CommandFailure(.usage, "\(Self.variable): \(error.reason)")
        }
        return token
    }
}

/// Who may read a file that shows who somebody is.
enum Secrecy {
    /// Everybody: a certificate.
    case open
    /// Its owner and a group that the system keeps for keys.
    case key
    /// Its owner, who is root or the one who runs this, and nobody else.
    case token

    /// Bits that the file's mode must not have.
    fileprivate var forbidden: mode_t {
        switch self {
        case .open: 0
        case .key: S_IRWXO | S_IWGRP
        case .token: S_IRWXO | S_IRWXG
        }
    }
}

/// Reads a file that shows who somebody is.
///
/// - Parameters:
///   - path: the file's path.
///   - secrecy: who may read it.
/// - Returns: its text.
/// - Throws: wrong usage, where it cannot be read, is not a regular file, or may be read or changed
///   by others than those.
func readCredential(_ path: String, _ secrecy: Secrecy) throws(CommandFailure) -> String {
    func wrong(_ reason: String) -> CommandFailure { CommandFailure(.usage, "\(path): \(reason)") }
    var status = stat()
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw wrong("open: \(currentErrno())") }
    defer { close(file) }
    guard fstat(file, &status) == 0 else { throw wrong("get status: \(currentErrno())") }
    guard status.st_mode & S_IFMT == S_IFREG else { throw wrong("not a regular file") }
    guard secrecy != .token || status.st_uid == 0 || status.st_uid == geteuid() else {
        throw wrong("it belongs to somebody else")
    }
    guard status.st_mode & secrecy.forbidden == 0 else {
        throw wrong("others can read or change it: chmod 600 it")
    }
    guard let text = readSmallFile("/proc/self/fd/\(file)") else {
        throw wrong("read: \(currentErrno())")
    }
    return text
}
