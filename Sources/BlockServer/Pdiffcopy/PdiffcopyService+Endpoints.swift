// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

extension PdiffcopyService {
    func info(_ question: Question) throws(Problem) -> Response {
        let named = try resolve(question.filename, question.request.grant)
        guard let found = named.found else { throw ExportTable.notFound(question.filename) }
        if question.isFromClient && question.request.method == .GET {
            change(question.key) { $0.order.infoAsked() }
        }
        return Self.answer("application/json", "{\"size\":\(found.size)}\n")
    }

    func hashes(_ question: Question, _ call: PdiffcopyCall) throws(Problem) -> Response {
        let (block, name) = try parsed { () throws(WireError) in
            let block = try call.number(
                "block_size", in: 1...PdiffcopyCall.maximumBlock,
                default: PdiffcopyCall.defaultBlock)
            guard let name = try call.text("method") else {
                throw WireError("method is missing")
            }
            return (block, name)
        }
        let method = try HashSource.method(named: name)
        // A client that goes on to write must get the refusal now: its workers, which write, do not
        // report a refused write.
        let isTarget = question.isFromClient && change(question.key) { $0.order.isPush() }
        let use = isTarget ? try writing(question, size: nil) : try reading(question)
        var response = Self.answer("text/plain; charset=utf-8", "")
        guard let use else { return response }
        if question.isFromClient && !isTarget { change(question.key) { $0.order.hashesAsked() } }
        response.body = .stream(try HashSource(use, block: block, method: method))
        return response
    }

    func read(
        _ question: Question, _ call: PdiffcopyCall, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        let (offset, size) = try parsed { () throws(WireError) in
            (try call.number("offset", in: 0...Int.max), try call.number("size", in: 0...Int.max))
        }
        forgetOrder(question.key)
        var response = Self.answer(MediaType.bytes, "")
        guard let use = try reading(question) else { return response }
        let device = use.session.device
        let start = min(offset, device.geometry.size)
        let range = ByteRange(offset: start, length: min(size, device.geometry.size - start))
        guard !range.isEmpty else { return response }
        use.session.count { counts, map in
            counts.read += range.length
            map.mark(range, .transferred)
        }
        let source = ContentSource(
            device, range, owner: use, use.session.permission, isChunked: true)
        // One piece where possible, so that a read error becomes a status code.
        response.body =
            range.length <= ContentSource.step ? .bytes(try source.next(memory)) : .stream(source)
        return response
    }

    func write(
        _ question: Question, _ call: PdiffcopyCall, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        let offset = try parsed { () throws(WireError) in
            try call.number("offset", in: 0...Int.max)
        }
        forgetOrder(question.key)
        let (request, bytes) = (question.request, question.request.bytes)
        guard let use = try writing(question, size: nil) else {
            throw Session.beyondEnd(question.filename, offset, request.length, size: 0)
        }
        let size = use.session.device.geometry.size
        // The whole body must fit before its first piece is written.
        guard offset <= size, request.length <= size - offset else {
            throw Session.beyondEnd(question.filename, offset, request.length, size: size)
        }
        try use.session.writeThrough(
            bytes, at: offset + request.before, flushing: request.isLast, memory)
        return Self.answer("text/html; charset=utf-8", "")
    }

    func resize(_ question: Question, _ call: PdiffcopyCall) throws(Problem) -> Response {
        let size = try parsed { () throws(WireError) in
            try call.number("size", in: 0...Geometry.maximumSize)
        }
        forgetOrder(question.key)
        guard size > 0 else {
            throw Session.refusal(
                question.filename, .size, "a target of 0 bytes is a replica of nothing")
        }
        guard let use = try writing(question, size: size) else {
            return Self.answer("text/html; charset=utf-8", "")
        }
        try resize(use.session, to: size, question)
        return Self.answer("text/html; charset=utf-8", "")
    }

    private func resize(_ session: Session, to size: Int, _ question: Question) throws(Problem) {
        let grant = question.request.grant
        // Also for a smaller size: the image may have been cut further meanwhile.
        guard grant.maximumSize != nil, let found = try resolve(question.filename, grant).found
        else {
            return try session.resize(to: size, for: grant)
        }
        try sessions.promises.promising(size, to: found, grant, in: exports) {
            () throws(Problem) in
            try session.resize(to: size, for: grant)
        }
    }

    private static func answer(_ type: String, _ text: String) -> Response {
        var response = Response(.ok)
        response.headers.add(name: "Content-Type", value: type)
        response.body = .bytes(.init(string: text))
        return response
    }
}
