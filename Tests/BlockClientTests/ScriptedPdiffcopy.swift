// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import Digests
import Foundation
import SyncEngine
import Synchronization
import TestSupport
import WireProtocol

/// A server that behaves like pdiffcopy, except for the test's changes.
final class ScriptedPdiffcopy: Sendable {
    typealias Query = [String: String]
    /// What it does with a request; `false` for the usual.
    typealias Deed = @Sendable (ScriptedConnection, _ endpoint: String, _ query: Query) -> Bool

    private let file: ServedFile
    private let server: ScriptedServer

    /// Starts it with one file, which has every path.
    ///
    /// - Parameters:
    ///   - content: of the file.
    ///   - deed: does something else, and says so.
    init(_ content: [UInt8], _ deed: @escaping Deed = { _, _, _ in false }) {
        let file = ServedFile(content)
        self.file = file
        // The script must not hold this object, whose end waits for the script.
        server = ScriptedServer { connection, _ in
            while let request = connection.readRequest() {
                file.heads.withLock { $0.append(request.head) }
                let (endpoint, query) = ServedFile.parse(request.head)
                if deed(connection, endpoint, query) { continue }
                file.answer(connection, endpoint, query, request.body)
            }
        }
    }

    var bytes: [UInt8] { file.bytes }
    var requests: [String] { file.heads.withLock { $0 } }
    var url: String { server.base + "/srv/image" }
}

/// The file of a scripted pdiffcopy, and the heads of the requests for it.
private final class ServedFile: Sendable {
    private let content: Mutex<[UInt8]>
    let heads = Mutex<[String]>([])

    init(_ content: [UInt8]) { self.content = Mutex(content) }

    var bytes: [UInt8] { content.withLock { $0 } }

    static func parse(_ head: String) -> (String, [String: String]) {
        let target = String(head.split(separator: " ")[1])
        let parts = URLComponents(string: target)
        var query: [String: String] = [:]
        for item in parts?.queryItems ?? [] { query[item.name] = item.value }
        return (parts?.path ?? "", query)
    }

    func answer(
        _ connection: ScriptedConnection, _ endpoint: String, _ query: [String: String],
        _ body: [UInt8]
    ) {
        let offset = query["offset"].flatMap { Int($0) } ?? 0
        let size = query["size"].flatMap { Int($0) } ?? 0
        switch endpoint {
        case "/info":
            connection.answer(type: "application/json", Array("{\"size\":\(bytes.count)}".utf8))
        case "/hashes":
            let block = query["block_size"].flatMap { Int($0) } ?? 1
            let lines = digestLines(bytes, block: block, method: query["method"] ?? "")
            connection.answer(200, Array(lines.reversed().joined().utf8))
        case "/blocks" where body.isEmpty:
            let all = bytes
            let start = min(offset, all.count)
            connection.answer(
                type: "application/octet-stream", Array(all[start..<min(start + size, all.count)]))
        case "/blocks":
            content.withLock { $0.replaceSubrange(offset..<offset + body.count, with: body) }
            connection.answer()
        case "/resize":
            content.withLock { content in
                content = Array(content.prefix(size))
                content += [UInt8](repeating: 0, count: size - content.count)
            }
            connection.answer()
        default: connection.answer(404, type: "text/html", Array("<!doctype html>".utf8))
        }
    }
}

/// The lines that pdiffcopy answers `GET /hashes` with, ascending.
func digestLines(_ content: [UInt8], block: Int, method name: String) -> [String] {
    guard let method = try? DigestMethod(named: name),
        var hasher = try? BlockHasher(method, key: nil)
    else { return [] }
    return stride(from: 0, to: content.count, by: block).map { offset in
        var digest = [UInt8](repeating: 0, count: method.byteCount)
        let bytes = Array(content[offset..<min(offset + block, content.count)])
        bytes.withUnsafeBytes { bytes in
            digest.withUnsafeMutableBytes { try? hasher.digest(of: bytes, into: $0) }
        }
        return "\(offset)\t\(hexadecimal(digest))\n"
    }
}

/// Finds the pdiffcopy server of a URL.
func findPdiffcopy(
    _ url: String, token: String? = nil, cancel: Flag = Flag()
) throws -> PdiffcopyServer? {
    guard case .remote(let location) = try Location(url) else { return nil }
    var options = RemoteServer.Options(isCancelled: { cancel.isSet })
    options.retrySeconds = 0.5
    options.token = token
    return try PdiffcopyServer.find(try RemoteServer(location, options))
}

/// Options of the engine for blocks of a size.
func engineOptions(block: Int, wholeFile: Bool = false) -> SyncOptions {
    SyncOptions(layout: BlockLayout(block: block), wholeFile: wholeFile, concurrency: 3)
}
