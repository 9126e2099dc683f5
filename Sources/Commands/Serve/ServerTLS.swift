// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockServer
internal import Glibc
internal import LinuxIO

/// The TLS options of `serve`.
struct ServerTLS: ParsableArguments {
    @Option(
        name: .customLong("tls-cert"),
        help: ArgumentHelp(
            "Speak TLS, with this certificate and those that lead to its authority, in PEM.",
            valueName: "path"),
        completion: .file())
    var certificate: String?

    @Option(
        name: .customLong("tls-key"),
        help: ArgumentHelp("The certificate's key, in PEM.", valueName: "path"),
        completion: .file())
    var key: String?

    @Flag(
        name: .customLong("tls-self-signed"),
        help: "Speak TLS, with a key and certificate that are made now, and print the key's pin.")
    var isSelfSigned = false

    @Option(
        name: .customLong("tls-client-ca"),
        help: ArgumentHelp(
            "Admit only clients whose certificate one of these has signed, in PEM.",
            valueName: "path"),
        completion: .file())
    var clientAuthorities: String?

    func validate() throws {
        guard (certificate == nil) == (key == nil) else {
            throw ValidationError("--tls-cert and --tls-key belong together")
        }
        guard certificate == nil || !isSelfSigned else {
            throw ValidationError("--tls-cert and --tls-self-signed exclude each other")
        }
        guard clientAuthorities == nil || isOn else {
            throw ValidationError(
                "--tls-client-ca: a client shows its certificate in TLS only: "
                    + "say --tls-cert and --tls-key, or --tls-self-signed")
        }
    }

    var isOn: Bool { certificate != nil || isSelfSigned }

    /// Reads the files, or makes a key and a certificate; `nil` without TLS.
    ///
    /// - Parameter hosts: the names and addresses in a made certificate.
    func identity(for hosts: [String]) throws(CommandFailure) -> ServerIdentity? {
        guard isOn else { return nil }
        var authorities: NamedText?
        if let clientAuthorities {
            authorities = NamedText(
                name: clientAuthorities, text: try readCredential(clientAuthorities, .open))
        }
        guard let certificate, let key else {
            return try made { () throws(IOError) in
                try ServerIdentity(selfSignedFor: hosts, clientAuthorities: authorities)
            }
        }
        let chain = NamedText(name: certificate, text: try readCredential(certificate, .open))
        let secret = NamedText(
            name: key, text: try readCredential(key, .key))
        return try made { () throws(IOError) in
            try ServerIdentity(chain: chain, key: secret, clientAuthorities: authorities)
        }
    }

    private func made(
        _ make: () throws(IOError) -> ServerIdentity
    ) throws(CommandFailure) -> ServerIdentity {
        do throws(IOError) { return try make() } catch {
            throw CommandFailure(.usage, error.description, advice: error.advice)
        }
    }
}
