// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import WireProtocol

extension Service {
    /// Gives a request the client's present rights; returns the response if the client has none any
    /// more.
    ///
    /// The request was admitted by its head. Since then its body may have been slow, or it may have
    /// waited for memory or a thread.
    func authorizeAgain(_ request: inout Request) -> Response? {
        let (access, peer, now) = (rights.access, request.peer, time(nil))
        guard access.grant(of: peer, before: request.grant, now: now) != request.grant else {
            return nil
        }
        var response: Response
        if let end = peer.certificateEnd, now > end {
            response = RequestRules.expiredCertificate
        } else {
            switch access.authorize(
                request.headers, certified: peer.certified, user: peer.user, address: peer.address,
                now: now)
            {
            case .granted(let grant):
                request.grant = grant
                return nil
            case .missing: response = RequestRules.noToken(peer.certified)
            case .wrong: response = RequestRules.tokenIsGone
            case .expired: response = RequestRules.expired
            case .misplaced: response = RequestRules.misplaced
            }
        }
        request.route.adapt(&response)
        return response
    }
}
