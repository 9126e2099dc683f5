// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import FoundationEssentials
internal import LinuxIO
internal import NIOCore
internal import NIOHTTP1

/// The page at `/`, which is the same for every client.
///
/// It holds nothing of the server. Its script asks for the client's token, and then for the status.
enum StatusPage {
    private static let text = String(decoding: PackageResources.page_html, as: UTF8.self)

    /// What the page says of a token, if the request was admitted without one.
    private static let (needed, notNeeded) = ("data-token=\"needed\"", "data-token=\"none\"")

    private static let withToken = ByteBuffer(string: text)
    private static let withoutToken = ByteBuffer(
        string: text.split(separator: needed, omittingEmptySubsequences: false)
            .joined(separator: notNeeded))

    /// The only style and the only script that a browser may use are those of the page.
    private static let policy =
        "default-src 'none'; script-src \(source(of: "script")); style-src \(source(of: "style"))"
        + "; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
        + "; frame-ancestors 'none'"

    /// The content of an element as a source of a policy (Content Security Policy Level 3, section
    /// 2.3.1); `'none'` if libcrypto has no SHA-256.
    private static func source(of element: String) -> String {
        let parts = text.split(separator: "<\(element)>")
        guard parts.count == 2,
            let content = parts[1].split(separator: "</\(element)>").first,
            let digest = try? sha256(of: Array(content.utf8))
        else { return "'none'" }
        return "'sha256-\(Data(digest).base64EncodedString())'"
    }

    static func response(needsToken: Bool) -> Response {
        var response = Response(.ok)
        response.headers = [
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        ]
        response.body = .bytes(needsToken ? withToken : withoutToken)
        return response
    }
}
