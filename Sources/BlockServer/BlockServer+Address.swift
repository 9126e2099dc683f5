// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension BlockServer.Options.Address {
    /// The values of `Host` that a server without tokens accepts at this address.
    var hosts: BrowserRules.Hosts {
        switch self {
        case .unix, .standardStreams: .any
        case .host(let host, _):
            BrowserRules.isOurs(bracketed(host), .loopback) ? .loopback : .local
        }
    }
}

extension BlockServer.Options.Address: CustomStringConvertible {
    package var description: String {
        switch self {
        case .host(let host, let port): "\(bracketed(host)):\(port)"
        case .unix(let path): "unix:\(path)"
        case .standardStreams: "standard streams"
        }
    }
}

private func bracketed(_ host: String) -> String { host.contains(":") ? "[\(host)]" : host }
