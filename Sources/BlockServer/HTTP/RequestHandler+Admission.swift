// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import Glibc
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

extension RequestHandler {
    /// Bytes; a rejected request with a larger body closes the connection, and the server reads a
    /// smaller body.
    private static let droppable = 64 << 10

    private enum Admission {
        case granted(Grant)
        case rejected(Response)
        /// A wrong token, whose response is delayed.
        case punished
    }

    /// Checks a head and takes memory for the request, or rejects it.
    func begin(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        guard case .idle = state else { return }
        isUpgrade = head.method == .CONNECT || head.headers.contains(name: "Upgrade")
        keepsAlive = head.isKeepAlive && !isEnding && !isUpgrade
        asked = head
        client = nil
        takesChunks = head.version != .http1_0
        let target = RequestRules.target(of: head.uri)
        let route = shared.service.route(target.path)
        let length = RequestRules.contentLength(of: head)
        var incoming = Incoming(head: head, route: route, cost: 0)
        incoming.length = length ?? 0
        switch admit(head, authority: target.authority) {
        case .granted(let grant):
            incoming.grant = grant
            incoming.rejection = RequestRules.reject(head, route, length)
            if incoming.rejection == nil, let response = route?.rejection(grant) {
                incoming.rejection = response
                // A client whose session has ended continues with another session.
                return reject(incoming, dropping: Limits.body, context)
            }
        case .rejected(let response):
            incoming.rejection = response
            if response.tokenFault == .missing, let answer = route?.publicAnswer,
                RequestRules.reject(head, route, length) == nil
            {
                incoming.rejection = answer
            }
        case .punished: return punish(incoming, context)
        }
        guard incoming.rejection == nil else {
            return reject(incoming, hasLength: length != nil, context)
        }
        account =
            incoming.grant.name.map { "token \($0)" } ?? Peer(name: peer, address: address).network
        if route?.mayTransfer == nil {
            takeMemory(for: incoming, context)
        } else {
            checkRight(incoming, context)
        }
    }

    private func reject(
        _ incoming: Incoming, hasLength: Bool = true, dropping most: Int = RequestHandler.droppable,
        _ context: ChannelHandlerContext
    ) {
        var incoming = incoming
        incoming.isGranted = true
        state = .receiving(incoming)
        if !hasLength || incoming.length > most || incoming.head.headers.contains(name: "Expect") {
            keepsAlive = false
            answerRejection(context)
        } else {
            armForBody(context)
            replay(context)
        }
    }

    /// Checks on a thread of the queue whether the client may transfer data.
    private func checkRight(_ incoming: Incoming, _ context: ChannelHandlerContext) {
        guard let route = incoming.route else { return }
        state = .receiving(incoming)
        armForBody(context)
        let request = self.request(incoming, route)
        let (shared, loop) = (shared, context.eventLoop)
        let bound = NIOLoopBound((self, context), eventLoop: loop)
        shared.queue.add(on: route.subject, for: turn) { memory in
            let rejection = shared.service.rejection(of: request, memory)
            loop.execute {
                let (handler, context) = bound.value
                handler.checked(rejection, context)
            }
        }
    }

    private func checked(_ rejection: Response?, _ context: ChannelHandlerContext) {
        guard case .receiving(var incoming) = state, !incoming.isGranted else { return }
        guard let rejection else { return takeMemory(for: incoming, context) }
        incoming.rejection = rejection
        reject(incoming, context)
    }

    private func takeMemory(for incoming: Incoming, _ context: ChannelHandlerContext) {
        var incoming = incoming
        let size = incoming.length
        incoming.cost = shared.bodies.cost(size) + (incoming.route?.answerCost(size) ?? 0)
        state = .receiving(incoming)
        guard incoming.cost > 0 else {
            _ = granted(context)
            return
        }
        armForBody(context)
        _ = takeMemory(incoming.cost, context) { handler, context in handler.granted(context) }
    }

    /// The client whose turn at the queue a request takes; without a token, its network.
    var turn: String { account ?? address }

    /// Takes bytes of the budget, and continues on the event loop when they are available or the
    /// connection has closed.
    ///
    /// `body` returns `false` if the bytes are not needed any more.
    ///
    /// - Parameter limit: how many requests of the client may wait.
    /// - Returns: `false` if more of them wait, and `body` is not called.
    func takeMemory(
        _ bytes: Int, _ context: ChannelHandlerContext, limit: Int = .max,
        then body: @escaping (RequestHandler, ChannelHandlerContext) -> Bool
    ) -> Bool {
        let (loop, budget, account) = (context.eventLoop, shared.budget, account)
        let bound = NIOLoopBound((self, context), eventLoop: loop)
        let action = NIOLoopBound(body, eventLoop: loop)
        let goOn: @Sendable (Bool) -> Void = { isGranted in
            let (handler, context) = bound.value
            if !action.value(handler, context), isGranted { budget.give(bytes, of: account) }
        }
        return budget.take(bytes, for: account, owner: ObjectIdentifier(self), limit: limit) {
            isGranted in
            if loop.inEventLoop { goOn(isGranted) } else { loop.execute { goOn(isGranted) } }
        }
    }

    /// Decides whether to admit a request, whatever its route is.
    ///
    /// Requests of web pages are rejected before their token is checked. Otherwise a page could
    /// throttle its reader's address with wrong tokens.
    private func admit(_ head: HTTPRequestHead, authority: String?) -> Admission {
        if let response = RequestRules.rejectHost(head)
            ?? BrowserRules.rejectForeignPage(head)
        {
            return .rejected(response)
        }
        if shared.access.isOpen, !asksForCertificate,
            let response = BrowserRules.rejectForeignHost(
                head, authority: authority, shared.hosts)
        {
            return .rejected(response)
        }
        if asksForCertificate && certified == nil { return .rejected(RequestRules.unnamed) }
        // A resumed TLS session (RFC 8446, section 2.2) accepts a certificate without checking its
        // dates, and a connection may outlast them.
        if let certificateEnd, time(nil) > certificateEnd {
            client = certified
            keepsAlive = false
            return .rejected(RequestRules.expiredCertificate)
        }
        if let wait = waitBeforeGuess(head) {
            keepsAlive = false
            noteWrongToken(wait)
            return .rejected(RequestRules.waiting(wait))
        }
        switch shared.access.authorize(
            head.headers, certified: certified, user: user, address: address)
        {
        case .granted(let grant):
            client = grant.name
            knownCredential =
                shared.access.isOpen ? nil : AccessTable.digest(ofTokenIn: head.headers)
            guard shared.connections.count(ObjectIdentifier(self), for: grant.name) else {
                keepsAlive = false
                return .rejected(
                    RequestRules.tooMany(.busy, "the client has too many connections"))
            }
            return .granted(grant)
        case .missing: return .rejected(RequestRules.noToken(certified))
        case .wrong: return .punished
        case .expired(let grant):
            client = grant.name
            return .rejected(RequestRules.expired)
        case .misplaced(let grant):
            client = grant.name
            return .rejected(RequestRules.misplaced)
        }
    }

    /// The rest of the delay after a wrong token; `nil` if this request's token may be checked.
    private func waitBeforeGuess(_ head: HTTPRequestHead) -> Duration? {
        guard let wait = shared.throttle.remaining(of: address),
            shared.access.isGuess(head.headers, certified: certified, user: user)
        else { return nil }
        if let knownCredential, let shown = AccessTable.digest(ofTokenIn: head.headers),
            areEqualInConstantTime(knownCredential, shown)
        {
            return nil
        }
        return wait
    }

    func client(shown credential: [UInt8]?) -> Peer {
        Peer(
            name: peer, address: address, certified: certified, certificateEnd: certificateEnd,
            credential: credential, user: user)
    }

    /// Delays the response to a wrong token, which closes the connection.
    private func punish(_ incoming: Incoming, _ context: ChannelHandlerContext) {
        var incoming = incoming
        let wait = shared.throttle.wait(of: address)
        noteWrongToken(wait)
        incoming.rejection = RequestRules.wrongToken
        incoming.isGranted = true
        incoming.isPunished = true
        keepsAlive = false
        state = .receiving(incoming)
        arm(.milliseconds(Int64(wait / .milliseconds(1))), context) { handler, context in
            handler.answerRejection(context)
        }
    }

    private func noteWrongToken(_ wait: Duration) {
        let seconds = (wait / .milliseconds(1)).rounded() / 1000
        shared.events.note(
            "wrong token", .warning, from: address, client: nil,
            ["peer": "\(peer)", "wait": "\(seconds)"])
    }
}
