// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import Glibc
package import LinuxIO
internal import NIOSSL
internal import WireProtocol

/// What a server shows clients in TLS 1.2 and 1.3, and what it asks them for.
package struct ServerIdentity: Sendable {
    let context: NIOSSLContext
    /// SHA-256 of the public key (SubjectPublicKeyInfo), which a client can be told to insist on.
    package let keyDigest: [UInt8]
    /// Seconds since 1970 after which no client takes the certificate.
    package let end: Int
    /// Whether every client has to show a certificate.
    package let asksForCertificates: Bool

    /// Reads PEM.
    ///
    /// - Parameters:
    ///   - chain: the server's certificate and those that lead to its authority.
    ///   - key: of the server's certificate, without a passphrase.
    ///   - clientAuthorities: who signs the certificates of clients; `nil` to ask for none.
    /// - Throws: what cannot be used, by its name.
    package init(
        chain: NamedText, key: NamedText, clientAuthorities: NamedText?
    ) throws(LinuxIO.IOError) {
        let certificates = try Self.certificates(chain)
        let privateKey: NIOSSLPrivateKey
        do { privateKey = try NIOSSLPrivateKey(bytes: Array(key.text.utf8), format: .pem) } catch {
            throw IOError(
                key.name, "read key",
                reason: "there is no private key in PEM in it that could be used",
                advice: "The key must be without a passphrase.")
        }
        do throws(LinuxIO.IOError) {
            try self.init(certificates, privateKey, clientAuthorities)
        } catch {
            throw IOError(
                key.name, "use key", reason: "it does not fit the certificate in \(chain.name)")
        }
    }

    /// Makes a key and a certificate that nobody has signed.
    ///
    /// - Parameters:
    ///   - hosts: the names and addresses that clients may know the server by.
    ///   - clientAuthorities: who signs the certificates of clients; `nil` to ask for none.
    /// - Throws: when libcrypto fails, and for authorities that cannot be used.
    package init(
        selfSignedFor hosts: [String], clientAuthorities: NamedText?
    ) throws(LinuxIO.IOError) {
        let made = try SelfSignedCertificate(hosts: hosts)
        let certificate: NIOSSLCertificate
        let key: NIOSSLPrivateKey
        do {
            certificate = try NIOSSLCertificate(bytes: made.certificate, format: .der)
            key = try NIOSSLPrivateKey(bytes: made.key, format: .der)
        } catch {
            throw Self.failure
        }
        try self.init([certificate], key, clientAuthorities)
    }

    private init(
        _ chain: [NIOSSLCertificate], _ key: NIOSSLPrivateKey, _ clientAuthorities: NamedText?
    ) throws(LinuxIO.IOError) {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["http/1.1"]
        if let clientAuthorities {
            configuration.trustRoots = .certificates(try Self.certificates(clientAuthorities))
            // A client has a name, but no host.
            configuration.certificateVerification = .noHostnameVerification
            configuration.sendCANameList = true
        }
        guard let certificate = chain.first,
            let publicKey = try? certificate.extractPublicKey().toSPKIBytes(),
            let digest = try? sha256(of: publicKey),
            let context = try? NIOSSLContext(configuration: configuration)
        else { throw Self.failure }
        self.context = context
        keyDigest = digest
        end = Int(certificate.notValidAfter)
        asksForCertificates = clientAuthorities != nil
    }

    private static func certificates(
        _ file: NamedText
    ) throws(LinuxIO.IOError) -> [NIOSSLCertificate] {
        let found = try? NIOSSLCertificate.fromPEMBytes(Array(file.text.utf8))
        guard let found, !found.isEmpty else {
            throw IOError(
                file.name, "read certificate", reason: "there is no certificate in PEM in it")
        }
        return found
    }

    private static var failure: LinuxIO.IOError {
        IOError("certificate", "prepare TLS", reason: "the library refuses key or certificate")
    }
}

/// The text of a file, and what the user calls it.
package struct NamedText: Sendable {
    package var name: String
    package var text: String

    package init(name: String, text: String) {
        self.name = name
        self.text = text
    }
}

/// The name that a client's certificate gives it: its common name.
///
/// - Returns: `nil` where it has none or several, or one that could not stand in a token file.
func clientName(of certificate: NIOSSLCertificate) -> String? {
    let names = certificate.subjectName.filter { $0.type == .commonName }
    guard names.count == 1, TokenEntry.isName(names[0].value) else { return nil }
    return names[0].value
}
