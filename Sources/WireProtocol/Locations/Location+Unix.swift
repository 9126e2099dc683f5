// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension RemoteLocation {
    /// As in `serve --listen unix:PATH`.
    static let unixPrefix = "unix:"
    static let unixHost = "localhost"

    /// Parses `unix:SOCKET[:SELECTOR]`, without percent decoding, up to the first colon.
    ///
    /// A socket with a colon needs the URL form: `http+unix://%2Frun%2Fa%3Ab/…`.
    init(unixPlace text: String) throws(WireError) {
        // Compare bytes, because a combining mark forms one character with the colon before it.
        let rest = text.utf8.dropFirst(Self.unixPrefix.utf8.count)
        let path = rest.prefix { $0 != UInt8(ascii: ":") }
        let selector = String(Substring(rest[path.endIndex...].dropFirst()))
        self.init(scheme: .unix, host: Self.unixHost, text: text)
        guard !path.starts(with: "//".utf8) else {
            throw WireError("\(text): a URL of a unix socket begins with http+unix://")
        }
        try setSocket(String(Substring(path)))
        guard !selector.utf8.contains(0) else {
            throw WireError("\(text): a path has no NUL byte")
        }
        guard !selector.isEmpty, selector != "/" else { return }
        let bare = Self.selector(inPath: "/" + selector)
        let isTag = bare == selector
        guard isTag || selector.utf8.first == UInt8(ascii: "/") else {
            throw WireError(
                "\(text): \(selector) is neither an absolute path nor UUID= or the like; "
                    + "the first colon ends the path of the socket")
        }
        self.selector = isTag ? bare : selector
    }

    /// Sets the path of the socket, which must fit in sun_path of unix(7): 108 bytes with the NUL.
    mutating func setSocket(_ path: String) throws(WireError) {
        guard (1..<108).contains(path.utf8.count), !path.utf8.contains(0) else {
            throw WireError("\(text): the path of a unix socket has 1 to 107 bytes")
        }
        socket = path
    }
}
