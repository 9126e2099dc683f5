// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import WireProtocol

/// The paths of one protocol: a folder of the server, and a line in `Service.init`.
protocol RouteFamily: AnyObject, Sendable {
    /// Parses the target of a request; `nil` for a path of another family.
    func route(_ target: String) -> (any ServedRoute)?

    /// Forgets what no client has used for long; may block.
    func forgetOld()
}

/// A path of a family: the rules for its requests, and its handler.
protocol ServedRoute: Sendable {
    /// For `Allow`.
    var methods: [String] { get }

    /// Bytes.
    var bodyLimit: Int { get }

    /// The type that a body must have; `nil` for any.
    var mediaType: String? { get }

    var isOfSession: Bool { get }

    /// Whether a client asks this first, before it sends its token.
    var isFirstQuestion: Bool { get }

    /// The name of the device that a request works on, and that may delay it; `nil` for none.
    ///
    /// All spellings of a path are one name.
    var subject: String? { get }

    /// Whether the client may transfer the request's data; `nil` if only `answer` checks that.
    ///
    /// A thread of the queue asks, before the server takes memory for the body.
    var mayTransfer: (@Sendable (Request) -> Bool)? { get }

    /// Bytes of the budget that a response to a request with `size` bytes of body may take.
    ///
    /// Small responses take 0: a status request must not wait for clients that do not read.
    func answerCost(_ size: Int) -> Int

    /// Refuses a request by its head, without blocking; `nil` if it may go on.
    func rejection(_ grant: Grant) -> Response?

    /// - Parameter memory: of the thread, at least `Limits.payload`.
    func answer(
        _ request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response

    /// Adapts an error to the family's clients.
    func adapt(_ response: inout Response)

    /// The answer to a client without a token, which holds nothing of the server; `nil` if the
    /// client needs one.
    var publicAnswer: Response? { get }
}

extension ServedRoute {
    var publicAnswer: Response? { nil }
}
