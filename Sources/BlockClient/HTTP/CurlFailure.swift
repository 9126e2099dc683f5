// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// A failure of libcurl, and its meaning.
struct CurlFailure {
    var code: CURLcode
    /// libcurl's own text; empty if it has none.
    var message: String
    /// The system's error of the connection; 0 for none.
    var errno: Int32
    var connectSeconds: Double
    /// Whether the connection was complete, including TLS.
    var isConnected: Bool
    /// libssl's verdict on the server's certificate: `X509_V_…` of x509_vfy.h, 0 for no fault.
    var verifyResult: Int
    var trust: ServerTrust
    /// Seconds since 1970.
    var now: Int

    init(
        code: CURLcode, message: String, errno: Int32, connectSeconds: Double, isConnected: Bool,
        verifyResult: Int, trust: ServerTrust, now: Int = time(nil)
    ) {
        self.code = code
        self.message = message
        self.errno = errno
        self.connectSeconds = connectSeconds
        self.isConnected = isConnected
        self.verifyResult = verifyResult
        self.trust = trust
        self.now = now
    }

    /// A failure before the connection is complete, for tests, which do not import libcurl.
    init(number: UInt32, message: String, verifyResult: Int, trust: ServerTrust, now: Int) {
        self.init(
            code: CURLcode(rawValue: number), message: message, errno: 0, connectSeconds: 10,
            isConnected: false, verifyResult: verifyResult, trust: trust, now: now)
    }

    var outcome: AttemptResult {
        if let certificateError { return .final(certificateError) }
        switch code {
        case CURLE_COULDNT_CONNECT, CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY,
            CURLE_PROXY, CURLE_SSL_CONNECT_ERROR:
            return .notConnected(.transport(systemReason ?? words))
        case CURLE_OPERATION_TIMEDOUT:
            // libcurl gets no other timeout.
            return .notConnected(.noConnection(within: connectSeconds))
        case CURLE_SSL_CIPHER, CURLE_URL_MALFORMAT:
            return .final(.transport(words))
        case CURLE_GOT_NOTHING:
            return .lost(.transport("the server closed the connection without an answer"))
        case CURLE_PARTIAL_FILE:
            return .lost(.transport("the answer is incomplete: \(words)"))
        case CURLE_RECV_ERROR, CURLE_SEND_ERROR:
            let error = IOError.transport("the connection was lost: \(words)")
            return isConnected ? .lost(error) : .notConnected(error)
        case CURLE_UNSUPPORTED_PROTOCOL where isConnected:
            return .final(.transport("the server does not speak HTTP"))
        case CURLE_OUT_OF_MEMORY where isConnected:
            // libcurl also reports a header line beyond its limit as out of memory.
            return .final(.transport("out of memory, or the answer's header is too long"))
        case CURLE_OUT_OF_MEMORY:
            return .final(.noMemory)
        default:
            return .final(.transport(words))
        }
    }

    private var certificateError: IOError? {
        switch code {
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_ISSUER_ERROR, CURLE_SSL_INVALIDCERTSTATUS:
            return .transport(words, kind: .unauthorized, advice: adviceOnCertificate)
        case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
            return .transport(
                "the server's key is not the pinned one", kind: .unauthorized,
                advice: "The server has a new key, or another machine answers in its place.")
        case CURLE_SSL_CACERT_BADFILE:
            return .transport(
                words, kind: .unauthorized,
                advice: trust.authorities == nil
                    ? Self.noAuthorities
                    : "The file after --cacert must hold certificates in PEM form.")
        case CURLE_SSL_CERTPROBLEM, CURLE_SSL_CLIENTCERT:
            return .transport(
                words, kind: .unauthorized,
                advice:
                    "The files after --cert and --key must hold a certificate and its key in PEM form."
            )
        case CURLE_RECV_ERROR, CURLE_SEND_ERROR, CURLE_SSL_CONNECT_ERROR:
            guard let alert = Self.alerts.first(where: { message.contains("alert \($0.key)") })
            else { return nil }
            return .transport(
                "the server refuses this side's certificate: \(alert.value)", kind: .unauthorized,
                advice: "--cert FILE and --key FILE show one that the server's authority signed.")
        default:
            return nil
        }
    }

    private static let noAuthorities =
        "Install the package ca-certificates, or name the server's authority: --cacert FILE."

    /// Advice for a server's certificate that was not accepted.
    private var adviceOnCertificate: String {
        switch verifyResult {
        // X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
        case 9, 10: return "Look at the clock of this machine, which says \(date)."
        // X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        case 20 where trust.authorities == nil && !Self.hasAuthorities: return Self.noAuthorities
        default:
            return "--cacert FILE names an authority; --pinned-pubkey PIN trusts a single key."
        }
    }

    /// Whether the system has a list of authorities, at the usual places of distributions.
    private static var hasAuthorities: Bool {
        [
            "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
        ].contains { (try? FileStatus(path: $0)).map { $0.size > 0 } ?? false }
    }

    /// Formats the time as `1970-01-01 00:12 UTC`.
    private var date: String {
        var (time, parts) = (now, tm())
        gmtime_r(&time, &parts)
        let two = { (number: Int32) in number < 10 ? "0\(number)" : "\(number)" }
        return "\(1900 + parts.tm_year)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday)) "
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)) UTC"
    }

    /// A server's alerts about a client's certificate (RFC 8446, section 6.2), in libssl's words.
    private static let alerts = [
        "certificate required": "none was sent", "bad certificate": "it is bad",
        "unsupported certificate": "its type is not supported",
        "certificate revoked": "it was revoked",
        "certificate expired": "it has expired", "certificate unknown": "it is not accepted",
        "unknown ca": "its authority is unknown", "access denied": "it is not accepted",
    ]

    /// The system's reason, which is shorter than libcurl's message.
    private var systemReason: String? {
        guard code == CURLE_COULDNT_CONNECT, errno != 0 else { return nil }
        return Self.uncapitalized(Errno(rawValue: errno).description)
    }

    private var words: String {
        if code == CURLE_SSL_CONNECT_ERROR, message.contains("wrong version number") {
            return "the server does not speak TLS"
        }
        return Self.uncapitalized(
            message.isEmpty ? String(cString: curl_easy_strerror(code)) : message)
    }

    /// Lowers the first letter, except in an abbreviation such as `SSL`.
    private static func uncapitalized(_ text: String) -> String {
        guard text.dropFirst().first?.isLowercase == true else { return text }
        return text.prefix(1).lowercased() + text.dropFirst()
    }
}
