// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import WireProtocol

struct PdiffcopyRoute: ServedRoute {
    let call: PdiffcopyCall
    let service: PdiffcopyService

    private var isOfBlocks: Bool { call.endpoint == .blocks }

    var methods: [String] { call.methods }
    var bodyLimit: Int { isOfBlocks ? PdiffcopyCall.maximumBlock : 0 }
    var mediaType: String? { nil }
    var isOfSession: Bool { false }
    var isFirstQuestion: Bool { false }

    var subject: String? { (try? call.filename()).map { PdiffcopyService.subject(of: $0) } }

    var mayTransfer: (@Sendable (Request) -> Bool)? {
        guard isOfBlocks else { return nil }
        return { service.mayTransfer(call, $0) }
    }

    func answerCost(_ size: Int) -> Int { isOfBlocks && size == 0 ? ContentSource.step : 0 }

    func rejection(_ grant: Grant) -> Response? { nil }

    func answer(
        _ request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        try service.answer(call, request, memory)
    }

    func adapt(_ response: inout Response) { response.putReasonInStatusLine() }
}
