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
        case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE, CURLE_SSL_CERTPROBLEM,
            CURLE_SSL_ISSUER_ERROR, CURLE_SSL_CIPHER, CURLE_SSL_PINNEDPUBKEYNOTMATCH,
            CURLE_SSL_INVALIDCERTSTATUS, CURLE_SSL_CLIENTCERT, CURLE_URL_MALFORMAT:
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

    /// The system's reason, which is shorter than libcurl's sentence about it.
    private var systemReason: String? {
        guard code == CURLE_COULDNT_CONNECT, errno != 0 else { return nil }
        return Self.uncapitalized(Errno(rawValue: errno).description)
    }

    private var words: String {
        Self.uncapitalized(
            message.isEmpty ? String(cString: curl_easy_strerror(code)) : message)
    }

    /// Makes a sentence part of another one: `SSL` stays as it is.
    private static func uncapitalized(_ text: String) -> String {
        guard text.dropFirst().first?.isLowercase == true else { return text }
        return text.prefix(1).lowercased() + text.dropFirst()
    }
}
