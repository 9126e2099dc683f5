// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import Glibc
package import LinuxIO
internal import NIOSSL
internal import WireProtocol

/// The server's certificate and key for TLS 1.2 and 1.3, and the authorities of its clients.
package struct ServerIdentity: Sendable {
    let context: NIOSSLContext
    /// SHA-256 of the public key (SubjectPublicKeyInfo), which a client can pin.
    package let keyDigest: [UInt8]
    /// Seconds since 1970 after which the certificate is invalid.
    package let end: Int
    package let asksForCertificates: Bool
    /// Authorities that sign clients' certificates, in PEM.
    private let authorities: String?

    func hasAuthorities(of other: ServerIdentity?) -> Bool { authorities == other?.authorities }

    /// Reads certificates and a key without a passphrase, in PEM.
    ///
    /// - Parameters:
    ///   - chain: the server's certificate, followed by those that lead to its authority.
    ///   - clientAuthorities: `nil` to ask clients for no certificate.
    package init(
        chain: NamedText, key: NamedText, clientAuthorities: NamedText?
    ) throws(LinuxIO.IOError) {
        let certificates = try Self.certificates(chain)
        let privateKey: NIOSSLPrivateKey
        do { privateKey = try NIOSSLPrivateKey(bytes: Array(key.text.utf8), format: .pem) } catch {
            throw IOError(
                key.name, "read key",
                reason: "it contains no usable private key in PEM form",
                advice: "The key must be without a passphrase.")
        }
        do throws(LinuxIO.IOError) {
            try self.init(certificates, privateKey, clientAuthorities)
        } catch {
            throw IOError(
                key.name, "use key", reason: "it does not fit the certificate in \(chain.name)")
        }
    }

    /// Makes a key and a self-signed certificate for the names and addresses in `hosts`.
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
        configuration.cipherSuiteValues = Self.ciphers
        configuration.applicationProtocols = ["http/1.1"]
        if let clientAuthorities {
            configuration.trustRoots = .certificates(try Self.certificates(clientAuthorities))
            // A client's certificate names a user, not a host.
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
        authorities = clientAuthorities?.text
    }

    /// Ciphers of TLS 1.2 with forward secrecy and authenticated encryption (RFC 9325, section
    /// 4.2); all of TLS 1.3 have both.
    private static let ciphers: [NIOTLSCipher] = [
        .TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, .TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        .TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, .TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        .TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        .TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ]

    private static func certificates(
        _ file: NamedText
    ) throws(LinuxIO.IOError) -> [NIOSSLCertificate] {
        let found = try? NIOSSLCertificate.fromPEMBytes(Array(file.text.utf8))
        guard let found, !found.isEmpty else {
            throw IOError(
                file.name, "read certificate", reason: "it contains no certificate in PEM form")
        }
        return found
    }

    private static var failure: LinuxIO.IOError {
        IOError("certificate", "prepare TLS", reason: "the library refuses key or certificate")
    }
}

package struct NamedText: Sendable {
    package var name: String
    package var text: String

    package init(name: String, text: String) {
        self.name = name
        self.text = text
    }
}

/// The common name of a client's certificate; `nil` unless it is single and fits a token file.
func clientName(of certificate: NIOSSLCertificate) -> String? {
    let names = certificate.subjectName.filter { $0.type == .commonName }
    guard names.count == 1, TokenEntry.isName(names[0].value) else { return nil }
    return names[0].value
}
