// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import WireProtocol

/// The form of a successful answer, see docs/protocol.md, "Requests".
///
/// Other answers with a status of success are errors, since a captive portal may have sent them.
enum ExpectedAnswer {
    case json
    case created
    /// 200 and a frame, without a content type.
    case frame
    case nothing
    /// 204, or 200 and JSON with warnings.
    case nothingOrJSON

    func matches(_ response: HTTPResponse) -> Bool {
        let isJSON = response.isOf(MediaType.json)
        return switch self {
        case .json: response.status == 200 && isJSON
        case .created: response.status == 201 && isJSON
        case .frame: response.status == 200 && response.contentType.isEmpty
        case .nothing: response.status == 204
        case .nothingOrJSON: response.status == 204 || response.status == 200 && isJSON
        }
    }
}

extension HTTPResponse {
    /// Whether the body has a media type, with any parameters (RFC 9110, section 8.3.1).
    func isOf(_ type: String) -> Bool {
        contentType.prefix { $0 != ";" && $0 != " " }.lowercased() == type
    }
}

extension RemoteServer {
    func json<Value: Decodable>(
        _ request: HTTPRequest, _ operation: String, _ type: Value.Type,
        _ answer: ExpectedAnswer = .json
    ) throws(IOError) -> Value {
        let body = ResponseBody(limit: Limits.answer)
        try send(request, operation, answer, into: body)
        do throws(WireError) { return try WireJSON.decode(type, from: body.bytes) } catch {
            throw Self.invalid(error, location.text, operation)
        }
    }

    /// Sends a request, and throws unless the answer has the expected form.
    ///
    /// - Throws: the refusal or the device error of the answer's problem; a network error for all
    ///   else.
    @discardableResult
    func send(
        _ request: HTTPRequest, _ operation: String, _ answer: ExpectedAnswer,
        into body: ResponseBody
    ) throws(IOError) -> HTTPResponse {
        let response = try transport.send(request, operation, into: body)
        if answer.matches(response) { return response }
        guard response.status >= 400, response.isOf(MediaType.problem),
            let problem = try? WireJSON.decode(Problem.self, from: body.bytes).shortened
        else {
            guard response.status >= 500 else { throw noBlkferry(operation, response) }
            throw .network(
                location.text, operation,
                reason: "the server answers HTTP \(response.status)\(transport.way)")
        }
        throw Self.error(problem, location.text, operation)
    }
}
