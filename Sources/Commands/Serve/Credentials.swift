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

/// The options by which a client authenticates itself and the server.
struct Credentials: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "File with the token that the server wants (or BLKFERRY_TOKEN).", valueName: "path"),
        completion: .file())
    var tokenFile: String?

    @OptionGroup var ssh: SSHOptions
    @Option(
        help: ArgumentHelp(
            "Trust servers whose certificate one of these has signed, in PEM (default: those that "
                + "the system trusts).", valueName: "path"),
        completion: .file())
    var cacert: String?

    @Option(
        help: ArgumentHelp("Show the server this certificate, in PEM.", valueName: "path"),
        completion: .file())
    var cert: String?

    @Option(
        help: ArgumentHelp(
            "The certificate's key, in PEM (default: it is in the certificate's file).",
            valueName: "path"),
        completion: .file())
    var key: String?

    @Option(
        help: ArgumentHelp(
            "Trust only the server with this key, whatever authority signed its certificate.",
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

    /// Throws wrong usage if TLS options are given for a URL without TLS.
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

    /// Warns if others can read the token on its way to a server.
    func warn(of token: String?, to locations: [RemoteLocation], _ console: Console) {
        guard token != nil else { return }
        for location in locations where RemoteServer.exposesToken(location) {
            console.warning(
                "\(location.server): the token crosses the network in clear; https:// hides it")
        }
    }

    /// Collects the TLS settings; throws wrong usage if a file cannot be read, or other users can
    /// read the key.
    func trust() throws(CommandFailure) -> ServerTrust {
        for path in [cacert, cert].compactMap({ $0 }) {
            guard !(try readCredential(path, .open)).contains("CERTIFICATE-----") else { continue }
            throw CommandFailure(
                .usage, "\(path): it contains no certificate in PEM form",
                advice: "openssl x509 -inform DER -in FILE -out FILE.pem converts one in DER form.")
        }
        if let key {
            clb_forbid_core_dumps()
            _ = try readCredential(key, .key)
        }
        return ServerTrust(
            authorities: cacert, certificate: cert, key: key ?? cert, pin: pinnedPubkey)
    }

    /// Reads the token from the file, or else from the environment; `nil` if there is none.
    ///
    /// - Throws: wrong usage if other users can read the file or it holds no token. The message
    ///   never contains the token.
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
        guard let token = EnvironmentToken.value else { return nil }
        clb_forbid_core_dumps()
        do throws(WireError) { try TokenEntry.check(token) } catch {
            throw CommandFailure(.usage, "\(EnvironmentToken.variable): \(error.reason)")
        }
        return token
    }
}

enum EnvironmentToken {
    static let variable = "BLKFERRY_TOKEN"

    /// The token at the first access, which also removes it from the environment; afterwards
    /// neither /proc/PID/environ nor the environment of ssh and other programs contains it.
    static let value: String? = {
        guard let raw = getenv(variable) else { return nil }
        let token = String(cString: raw)
        explicit_bzero(raw, strlen(raw))
        unsetenv(variable)
        return token
    }()
}

/// The users that may read a file of credentials or of a configuration, or change it.
enum Secrecy {
    /// Every user; for certificates.
    case open
    /// Every user may read it, and only its owner change it, who must be root or this user.
    case configuration
    /// Its owner and its group, such as a group that the system has for keys.
    case key
    /// Only its owner, who must be root or this user.
    case token

    /// Mode bits that the file must not have.
    fileprivate var forbidden: mode_t {
        switch self {
        case .open: 0
        case .configuration: S_IWGRP | S_IWOTH
        case .key: S_IRWXO | S_IWGRP
        case .token: S_IRWXO | S_IRWXG
        }
    }

    fileprivate var needsOwner: Bool { self == .token || self == .configuration }
}

/// Reads a file of credentials or of a configuration.
///
/// - Throws: wrong usage if it cannot be read, is not a regular file, or other users than `secrecy`
///   permits can read or change it.
func readCredential(
    _ path: String, _ secrecy: Secrecy, of owner: uid_t = geteuid()
) throws(CommandFailure) -> String {
    func wrong(_ reason: String) -> CommandFailure { CommandFailure(.usage, "\(path): \(reason)") }
    var status = stat()
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw wrong("open: \(currentErrno())") }
    defer { close(file) }
    guard fstat(file, &status) == 0 else { throw wrong("get status: \(currentErrno())") }
    guard status.st_mode & S_IFMT == S_IFREG else { throw wrong("not a regular file") }
    guard !secrecy.needsOwner || status.st_uid == 0 || status.st_uid == owner else {
        throw wrong("its owner is another user: chown it")
    }
    guard status.st_mode & secrecy.forbidden == 0 else {
        throw wrong(
            secrecy == .configuration
                ? "others can change it: chmod go-w it"
                : "others can read or change it: chmod 600 it")
    }
    guard let text = readSmallFile("/proc/self/fd/\(file)") else {
        throw wrong("read: \(currentErrno())")
    }
    return text
}
