// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import DeviceProbe
import Glibc
import LinuxIO
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// A server whose sessions are made up, and what it was asked.
private final class MadeUpSessions: Sendable {
    /// How requests are answered, by their lines: the status, and JSON.
    typealias Answers = @Sendable (_ line: String, _ count: Int) -> (Int, String)

    let lines = Mutex<[String]>([])
    /// The requests for sessions, each with its device.
    let opened = Mutex<[(device: String, request: SessionRequest)]>([])
    private let answers: Answers

    init(_ answers: @escaping Answers) { self.answers = answers }

    func serve(_ connection: ScriptedConnection) {
        while let request = connection.readRequest() {
            let line = request.head.split(separator: "\r\n").first.map(String.init) ?? ""
            if line.hasPrefix("GET /v1 ") {
                let info = ServerRecord(
                    version: "1", features: [SessionRequest.volumes], digests: ["sha256"])
                connection.answer(type: MediaType.json, WireJSON.encode(info))
                continue
            }
            let asked = try? request.body.withUnsafeBytes {
                try WireJSON.decode(SessionRequest.self, from: $0)
            }
            if let asked, line.contains("/sessions ") {
                let name = String(line.dropFirst("POST /v1/devices/".count).prefix { $0 != "/" })
                opened.withLock { $0.append((name, asked)) }
            }
            let count = lines.withLock { lines in
                lines.append(line)
                return lines.count { $0 == line } - 1
            }
            let (status, text) = answers(line, count)
            let type = status < 300 ? MediaType.json : MediaType.problem
            connection.answer(status, type: type, [UInt8](text.utf8))
        }
    }

    /// The record of a session.
    static func session(
        _ id: String, device: String = "LVUUID=a", number: Int = 1, created: Bool = false,
        snapshot: String? = nil, timeout: Double? = nil
    ) -> (Int, String) {
        let timeout = timeout.map { ",\"timeout\":\($0)" } ?? ""
        let snapshot = snapshot.map { ",\"snapshot\":\"\($0)\"" } ?? ""
        return (
            201,
            """
            {"session":"\(id)","device":"\(device)","size":4096,"logicalSector":512,
            "alignment":512,"block":4096,"region":65536,"content":{"state":"empty"},
            "kind":"block-device","rotational":false,"warnings":[],"created":\(created),
            "host":{"boot":"b","device":\(number)}\(snapshot)\(timeout)}
            """
        )
    }

    static let lost = (
        404, #"{"type":"urn:blkferry:problem:no-session","title":"t","status":404,"detail":"gone"}"#
    )
    static let changed = (
        409,
        #"{"type":"urn:blkferry:problem:refused","title":"t","status":409,"detail":"it changed","#
            + #""cause":"changed","advice":"look"}"#
    )
    static let broken = (
        500, #"{"type":"urn:blkferry:problem:digest","title":"t","status":500,"detail":"d"}"#
    )
    static let missing = (
        404, #"{"type":"urn:blkferry:problem:not-found","title":"t","status":404,"detail":"none"}"#
    )
}

/// How a target's session ends, and continues after the server has lost it.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SessionEndTests {
    private func open(
        _ sessions: MadeUpSessions, _ change: (inout GatePolicy) -> Void = { _ in },
        _ body: (RemoteBlockDevice) throws -> Void
    ) throws {
        let server = ScriptedServer { connection, _ in sessions.serve(connection) }
        defer { server.stop() }
        guard case .remote(let location) = try Location(server.base + "/dev/vg1/root") else {
            throw CancellationError()
        }
        var policy = GatePolicy(sizePolicy: .resize)
        change(&policy)
        let source = SourceFacts(
            name: "S", size: 4096, content: .empty, logicalSector: 512, identity: nil)
        try body(
            try RemoteBlockDevice(
                try RemoteServer(location, RemoteServer.Options()),
                for: .init(mode: .write, block: 4096, source: source, policy: policy),
                digest: nil))
    }

    @Test(arguments: [
        (200, #"{"warnings":["an older one stays"],"new":1}"#, ["an older one stays"]),
        (200, "{}", []), (204, "", []), (200, #"{"warnings":"x"}"#, []),
    ])
    func `the server's warnings at the end reach the user, and may be missing`(
        status: Int, body: String, warnings: [String]
    ) throws {
        let sessions = MadeUpSessions { line, _ in
            line.contains("/commit ") ? (status, body) : MadeUpSessions.session("1")
        }
        try open(sessions) { #expect($0.release(isComplete: true) == warnings) }
    }

    @Test(arguments: [204, 503])
    func `a session with an invalid record is ended at once, with one attempt`(status: Int) throws {
        let sessions = MadeUpSessions { line, _ in
            guard line.hasPrefix("POST ") else { return (status, "") }
            let (created, text) = MadeUpSessions.session("1")
            return (created, text.replacing("\"alignment\":512", with: "\"alignment\":7"))
        }
        #expect(throws: IOError.self) { try open(sessions) { _ in } }
        let lines = sessions.lines.withLock { $0 }.filter { !$0.hasPrefix("POST ") }
        #expect(lines == ["DELETE /v1/sessions/1 HTTP/1.1"])
    }

    @Test func `a session whose name cannot be part of a path is not ended`() throws {
        let sessions = MadeUpSessions { _, _ in MadeUpSessions.session("../devices/x") }
        #expect(throws: IOError.self) { try open(sessions) { _ in } }
        let lines = sessions.lines.withLock { $0 }
        #expect(lines.allSatisfy { $0.hasPrefix("POST ") }, "\(lines)")
    }

    @Test(arguments: [true, false])
    func `a reopened session names its snapshot, so that the server rotates older ones`(
        isLostAtEnd: Bool
    ) throws {
        let snapshot = "vg1/day-20260101T000000Z"
        let sessions = MadeUpSessions { line, count in
            switch line {
            case _ where line.contains("/sessions/1/commit ") && (isLostAtEnd && count == 0):
                (204, "")
            case _ where line.contains("/sessions/1"): MadeUpSessions.lost
            case _ where line.contains("/commit "): (200, #"{"warnings":["it goes on"]}"#)
            default: MadeUpSessions.session(line.contains("LVUUID") ? "2" : "1", snapshot: snapshot)
            }
        }
        try open(sessions, { $0.snapshot = TargetSnapshot(name: "day", keeps: 7) }) { device in
            try device.flush()
            #expect(device.release(isComplete: true) == ["it goes on"])
        }
        let opened = sessions.opened.withLock { $0 }.filter { $0.request.mode == .write }
        #expect(opened.map(\.request.taken) == [nil, snapshot])
        #expect(opened.allSatisfy { $0.request.snapshot == "day" && $0.request.keep == 7 })
    }

    @Test
    func `a reopened session does not name a snapshot without a date, and its end is an error`()
        throws
    {
        let sessions = MadeUpSessions { line, count in
            line.contains("/sessions/1/commit ")
                ? MadeUpSessions.lost
                : line.contains("/commit ")
                    ? (204, "")
                    : MadeUpSessions.session(line.contains("LVUUID") ? "2" : "1", snapshot: "vg1/x")
        }
        try open(sessions, { $0.snapshot = TargetSnapshot(name: "x") }) { try $0.flush() }
        let last = try #require(sessions.opened.withLock { $0.last }).request
        #expect(last.snapshot == nil && last.keep == nil && last.taken == nil)
        let broken = MadeUpSessions { line, _ in
            line.contains("/commit ")
                ? MadeUpSessions.broken
                : MadeUpSessions.session("1", snapshot: "vg1/day-20260101T000000Z")
        }
        try open(broken, { $0.snapshot = TargetSnapshot(name: "day", keeps: 7) }) { device in
            #expect(device.release(isComplete: true) == ["older snapshots may stay: d"])
        }
    }

    @Test
    func `a created volume that was never written to is there at the end, or its loss is an error`()
        throws
    {
        for isThere in [true, false] {
            let sessions = MadeUpSessions { line, count in
                switch line {
                case _ where line.contains("/sessions/1/commit ") && count == 0: (204, "")
                case _ where line.contains("/sessions/1"): MadeUpSessions.lost
                case _ where line.contains("/commit "):
                    isThere ? (204, "") : MadeUpSessions.broken
                default: MadeUpSessions.session(line.contains("LVUUID") ? "2" : "1", created: true)
                }
            }
            try open(sessions, { $0.creates = true }) { device in
                try device.flush()
                #expect(
                    device.release(isComplete: true) == (isThere ? [] : ["it may be gone: d"]))
            }
            #expect(sessions.opened.withLock { $0.count { $0.request.mode == .write } } == 2)
        }
    }

    @Test func `a volume that was removed with its session is created again while it is empty`()
        throws
    {
        for isUsed in [false, true] {
            let sessions = MadeUpSessions { line, count in
                switch line {
                case _ where line.contains("/sessions/1"): MadeUpSessions.lost
                case _ where line.contains("LVUUID"): MadeUpSessions.missing
                case _ where line.contains("/commit "): (204, "")
                case _ where count == 0: MadeUpSessions.session("1", created: true)
                default:
                    MadeUpSessions.session("2", device: "LVUUID=b", number: 2, created: true)
                }
            }
            try open(sessions, { $0.creates = true }) { device in
                if isUsed { device.noteUse() }
                if isUsed {
                    #expect(throws: (any Error).self) { try device.flush() }
                    #expect(device.record.device == "LVUUID=a")
                } else {
                    try device.flush()
                    #expect(device.record.device == "LVUUID=b")
                }
            }
            let writes = sessions.opened.withLock { $0 }.filter { $0.request.mode == .write }
            #expect(writes.allSatisfy { $0.request.create == true })
            let names = ["%2Fdev%2Fvg1%2Froot", "LVUUID=a", "%2Fdev%2Fvg1%2Froot"]
            #expect(writes.map(\.device) == Array(names.prefix(isUsed ? 2 : 3)))
        }
    }

    @Test(arguments: [nil, true])
    func `a client that was away asks before it writes, and implies no overwrite`(overwrite: Bool?)
        throws
    {
        let sessions = MadeUpSessions { line, count in
            switch line {
            case _ where line.contains("/sessions/1"): MadeUpSessions.lost
            case _ where count > 0 || line.contains("LVUUID"): MadeUpSessions.changed
            default: MadeUpSessions.session("1", timeout: 0.3)
            }
        }
        try open(sessions, { $0.overwrite = overwrite ?? false }) { device in
            usleep(500_000)
            let bytes = [UInt8](repeating: 1, count: 4096)
            for _ in 0..<2 {
                do {
                    try bytes.withUnsafeBytes { try device.write($0, at: 0) }
                    Issue.record("it was written")
                } catch let error as IOError {
                    #expect(error.isNetwork && error.reason.hasPrefix("it changed"), "\(error)")
                    #expect(error.advice == "look")
                }
            }
            device.release(isComplete: false)
        }
        let lines = sessions.lines.withLock { $0 }
        #expect(!lines.contains { $0.contains("/write") }, "\(lines)")
        // A run that was refused once does not try again.
        let opened = sessions.opened.withLock { $0 }
        #expect(opened.map(\.request.overwrite) == [overwrite ?? false, overwrite ?? false])
        #expect(opened.map { $0.request.continues != nil } == [false, true])
        #expect(opened.last?.request.continues?.host?.device == 1)
    }
}
