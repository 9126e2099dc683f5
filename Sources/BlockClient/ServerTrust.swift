// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl

/// By what a client knows a server in TLS, and what it shows it.
package struct ServerTrust: Hashable, Sendable {
    /// A file of those who sign servers' certificates, in PEM; `nil` for those of the system.
    package var authorities: String?
    /// A file with the client's own certificate, in PEM.
    package var certificate: String?
    /// A file with that one's key, in PEM.
    package var key: String?
    /// `sha256//` and the base64 of the SHA-256 digest of the server's public key, or several with
    /// `;` between them (CURLOPT_PINNEDPUBLICKEY(3)).
    ///
    /// Without `authorities` it takes their place: the server is known by its key as in ssh, and
    /// its certificate's name, age and signature do not matter. With them both must be right.
    package var pin: String?

    package init(
        authorities: String? = nil, certificate: String? = nil, key: String? = nil,
        pin: String? = nil
    ) {
        self.authorities = authorities
        self.certificate = certificate
        self.key = key
        self.pin = pin
    }

    /// Of TLS 1.3, the preferred one first.
    private static let ciphers =
        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

    /// Gives it to an easy handle.
    ///
    /// - Returns: libcurl's first complaint.
    func apply(to easy: UnsafeMutableRawPointer) -> CURLcode {
        let isPinAlone = pin != nil && authorities == nil
        let texts: [(CURLoption, String?)] = [
            (CURLOPT_CAINFO, authorities), (CURLOPT_SSLCERT, certificate), (CURLOPT_SSLKEY, key),
            (CURLOPT_PINNEDPUBLICKEY, pin),
            // A key with a passphrase fails, instead of having each connection ask for it.
            (CURLOPT_KEYPASSWD, key == nil ? nil : ""),
        ]
        for (option, text) in texts {
            guard let text else { continue }
            let code = cc_setopt_string(easy, option, text)
            guard code == CURLE_OK else { return code }
        }
        // The longer key first, as libssl has it, costs speed and gains nothing. Not every library
        // of TLS lets one choose.
        _ = cc_setopt_string(easy, CURLOPT_TLS13_CIPHERS, Self.ciphers)
        let numbers: [(CURLoption, Int)] = [
            (CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2),
            (CURLOPT_SSL_VERIFYPEER, isPinAlone ? 0 : 1),
            (CURLOPT_SSL_VERIFYHOST, isPinAlone ? 0 : 2),
        ]
        for (option, number) in numbers {
            let code = cc_setopt_long(easy, option, number)
            guard code == CURLE_OK else { return code }
        }
        return CURLE_OK
    }
}
