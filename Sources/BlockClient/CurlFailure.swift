// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl
internal import SystemPackage

/// A failure of libcurl, and what it means.
struct CurlFailure {
    var code: CURLcode
    /// libcurl's own words, which name what failed; empty where it has none.
    var message: String
    /// What the system said when connecting; 0 for nothing.
    var errno: Int32
    var connectSeconds: Double
    /// Whether the connection stood, TLS included.
    var isConnected: Bool

    var outcome: Outcome {
        if let distrust { return .final(distrust) }
        switch code {
        case CURLE_COULDNT_CONNECT, CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY,
            CURLE_PROXY, CURLE_SSL_CONNECT_ERROR:
            return .notConnected(HTTPError(.unreachable, systemReason ?? words))
        case CURLE_OPERATION_TIMEDOUT:
            // The only limit of time that libcurl is given.
            let time =
                connectSeconds.rounded() == connectSeconds
                ? "\(Int(connectSeconds))" : "\(connectSeconds)"
            return .notConnected(HTTPError(.timeout, "no connection within \(time) s"))
        case CURLE_SSL_CIPHER, CURLE_URL_MALFORMAT:
            return .final(HTTPError(.unreachable, words))
        case CURLE_GOT_NOTHING:
            return .lost(
                HTTPError(.unreachable, "the server closed the connection without an answer"))
        case CURLE_PARTIAL_FILE:
            return .lost(HTTPError(.unreachable, "the answer is incomplete: \(words)"))
        case CURLE_RECV_ERROR, CURLE_SEND_ERROR:
            let error = HTTPError(.unreachable, "the connection was lost: \(words)")
            return isConnected ? .lost(error) : .notConnected(error)
        case CURLE_UNSUPPORTED_PROTOCOL where isConnected:
            return .final(HTTPError(.protocolViolation, "the server does not speak HTTP"))
        case CURLE_OUT_OF_MEMORY where isConnected:
            // So it calls a line of a header that is longer than it takes.
            return .final(
                HTTPError(.protocolViolation, "out of memory, or the answer's header is too long"))
        case CURLE_OUT_OF_MEMORY:
            return .final(HTTPError(.unreachable, "out of memory"))
        default:
            return .final(HTTPError(.protocolViolation, words))
        }
    }

    /// Why one side does not trust the other.
    private var distrust: HTTPError? {
        switch code {
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_ISSUER_ERROR, CURLE_SSL_INVALIDCERTSTATUS:
            return HTTPError(
                .untrusted, words,
                advice: "--cacert FILE names who signs; --pinned-pubkey PIN trusts a single key.")
        case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
            return HTTPError(
                .untrusted, "the server's key is not the pinned one",
                advice: "It was made anew, or somebody is in between.")
        case CURLE_SSL_CACERT_BADFILE, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CLIENTCERT:
            return HTTPError(.untrusted, words)
        case CURLE_RECV_ERROR, CURLE_SEND_ERROR, CURLE_SSL_CONNECT_ERROR:
            guard let alert = Self.alerts.first(where: { message.contains("alert \($0.key)") })
            else { return nil }
            return HTTPError(
                .untrusted, "the server refuses this side's certificate: \(alert.value)",
                advice: "--cert FILE and --key FILE show one that the server's authority signed.")
        default:
            return nil
        }
    }

    /// What a server says of a client's certificate (RFC 8446, section 6.2), as libssl writes it.
    private static let alerts = [
        "certificate required": "it wants one", "bad certificate": "it is bad",
        "unsupported certificate": "it is of no use", "certificate revoked": "it was revoked",
        "certificate expired": "it has expired", "certificate unknown": "it is not accepted",
        "unknown ca": "its authority is unknown", "access denied": "it is not accepted",
    ]

    /// The system's reason, which is shorter than libcurl's sentence about it.
    private var systemReason: String? {
        guard code == CURLE_COULDNT_CONNECT, errno != 0 else { return nil }
        return Self.uncapitalized(Errno(rawValue: errno).description)
    }

    private var words: String {
        if code == CURLE_SSL_CONNECT_ERROR, message.contains("wrong version number") {
            return "what answers there does not speak TLS"
        }
        return Self.uncapitalized(
            message.isEmpty ? String(cString: curl_easy_strerror(code)) : message)
    }

    /// Makes a sentence part of another one: `SSL` stays as it is.
    private static func uncapitalized(_ text: String) -> String {
        guard text.dropFirst().first?.isLowercase == true else { return text }
        return text.prefix(1).lowercased() + text.dropFirst()
    }
}
