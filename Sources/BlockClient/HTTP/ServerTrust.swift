// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl

/// How client and server authenticate each other in TLS.
package struct ServerTrust: Hashable, Sendable {
    /// A PEM file of trusted authorities; `nil` for those of the system.
    package var authorities: String?
    /// A PEM file with the client's certificate.
    package var certificate: String?
    /// A PEM file with the key of that certificate.
    package var key: String?
    /// The pinned public key of the server, in the form of CURLOPT_PINNEDPUBLICKEY(3).
    ///
    /// The form is `sha256//` and the base64 of the key's SHA-256 digest; `;` separates several
    /// keys. Without `authorities` the pin replaces them: the client accepts only that key, as ssh
    /// does, and ignores the certificate's name, dates and signature. With `authorities` both must
    /// match.
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

    /// Ciphers of TLS 1.3, the preferred one first.
    private static let ciphers =
        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

    /// Applies the settings to an easy handle; returns libcurl's first error.
    func apply(to easy: UnsafeMutableRawPointer) -> CURLcode {
        let isPinAlone = pin != nil && authorities == nil
        let texts: [(CURLoption, String?)] = [
            (CURLOPT_CAINFO, authorities), (CURLOPT_SSLCERT, certificate), (CURLOPT_SSLKEY, key),
            (CURLOPT_PINNEDPUBLICKEY, pin),
            // A key with a passphrase fails at once. Otherwise every connection would ask for it.
            (CURLOPT_KEYPASSWD, key == nil ? nil : ""),
        ]
        for (option, text) in texts {
            guard let text else { continue }
            let code = cc_setopt_string(easy, option, text)
            guard code == CURLE_OK else { return code }
        }
        // libssl prefers the longer key, which is slower without a benefit. Some TLS libraries do
        // not allow a choice, so the result is ignored.
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
