// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockServer
import TestSupport
import Testing
import WireProtocol

/// What each credential may do with each export: every cell.
@Suite(.blocking, .timeLimit(.minutes(30))) struct HTTPTokenTests {
    private let scratch: ScratchDirectory
    private let server: TestServer
    /// For pdiffcopy: what its requests begin ends by silence alone.
    private let impatient: TestServer
    private let size = 1 << 20

    private enum Credential: String, CaseIterable {
        case none, wrong, everything, readOnly, one, oneReadOnly, directory, nothing

        var header: [String] {
            self == .none ? [] : ["Authorization: Bearer \(token)"]
        }

        var token: String { "token-\(rawValue)-of-enough-characters" }
    }

    private enum Operation: CaseIterable {
        case show, content, head, read, dryRun, write
        case pdiffcopyInfo, pdiffcopyHashes, pdiffcopyRead, pdiffcopyWrite, pdiffcopyResize
    }

    /// `rw` and `ro` are exported by themselves, `inside` is in a directory that is exported `rw`.
    private enum Export: String, CaseIterable {
        case rw, ro, inside
    }

    init() throws {
        let scratch = try ScratchDirectory()
        self.scratch = scratch
        try must("mkdir", scratch.file("images"))
        for name in ["rw", "ro", "images/inside"] {
            try makeImage(scratch.file(name), [UInt8](repeating: 7, count: 1 << 20))
        }
        func entry(
            _ credential: Credential, _ access: ExportAccess, _ selectors: String...
        ) throws -> TokenEntry {
            TokenEntry(
                name: credential.rawValue, token: credential.token, access: access,
                selectors: selectors.isEmpty
                    ? nil : try selectors.map { try ExportSelector(scratch.file($0)) })
        }
        let tokens = [
            try entry(.everything, .readWrite), try entry(.readOnly, .readOnly),
            try entry(.one, .readWrite, "rw"), try entry(.oneReadOnly, .readOnly, "rw"),
            try entry(.directory, .readWrite, "images/"),
            try entry(.nothing, .readWrite, "elsewhere"),
        ]
        func start(sessionTimeout: Double) throws -> TestServer {
            try TestServer(
                scratch.file("rw") + ":rw", scratch.file("ro"), scratch.file("images/") + ":rw"
            ) {
                $0.tokens = tokens
                $0.sessionTimeout = sessionTimeout
            }
        }
        server = try start(sessionTimeout: 60)
        impatient = try start(sessionTimeout: 0.05)
    }

    private func path(_ export: Export) -> String {
        scratch.file(export == .inside ? "images/inside" : export.rawValue)
    }

    /// Status of an operation.
    private func perform(
        _ operation: Operation, _ export: Export, _ headers: [String]
    ) throws -> Int {
        let path = path(export)
        func open(_ mode: SessionRequest.Mode) throws -> Int {
            let body = WireJSON.encode(Wire.sessionRequest(mode, size: size))
            let answer = try server.ask(
                "POST", Route.sessions(device: path).path, [Wire.json] + headers, body: body)
            if answer.status == 201 {
                let id = try answer.decoded(as: SessionRecord.self).session
                #expect(
                    try server.ask("DELETE", Route.session(id).path, headers).status == 204)
            }
            return answer.status
        }
        switch operation {
        case .show: return try server.ask("GET", Route.device(path).path, headers).status
        case .content: return try server.ask("GET", Route.content(path).path, headers).status
        case .head: return try server.ask("HEAD", Route.content(path).path, headers).status
        case .read: return try open(.read)
        case .dryRun: return try open(.dryRun)
        case .write: return try open(.write)
        case .pdiffcopyInfo, .pdiffcopyHashes, .pdiffcopyRead, .pdiffcopyWrite, .pdiffcopyResize:
            return try performOfPdiffcopy(operation, path, headers)
        }
    }

    /// Status of a request without a session, which begins one; its time is waited for.
    private func performOfPdiffcopy(
        _ operation: Operation, _ path: String, _ headers: [String]
    ) throws -> Int {
        func ask(_ method: String, _ endpoint: String, body: [UInt8]? = nil) throws -> Int {
            let target = endpoint.replacing("?", with: "?filename=\(percentEncoded(path))&")
            return try impatient.ask(method, target, headers, body: body).status
        }
        defer { #expect(becomesTrue { impatient.server.sessionCount == 0 }) }
        switch operation {
        case .pdiffcopyInfo: return try ask("GET", "/info?")
        case .pdiffcopyHashes: return try ask("GET", "/hashes?method=sha1")
        case .pdiffcopyRead: return try ask("GET", "/blocks?offset=1&size=2")
        case .pdiffcopyWrite:
            return try ask("POST", "/blocks?offset=4096", body: [UInt8](repeating: 7, count: 4096))
        default: return try ask("POST", "/resize?size=\(size)")
        }
    }

    private func expected(
        _ credential: Credential, _ export: Export, _ operation: Operation
    ) -> Int {
        let seen: [Export]
        switch credential {
        case .none, .wrong: return 401
        case .everything, .readOnly: seen = Export.allCases
        case .one, .oneReadOnly: seen = [.rw]
        case .directory: seen = [.inside]
        case .nothing: seen = []
        }
        guard seen.contains(export) else { return 404 }
        let mayWrite = export != .ro && ![.readOnly, .oneReadOnly].contains(credential)
        switch operation {
        case .show, .content, .head, .pdiffcopyInfo, .pdiffcopyHashes, .pdiffcopyRead: return 200
        case .pdiffcopyWrite, .pdiffcopyResize: return mayWrite ? 200 : 403
        case .read: return 201
        case .dryRun, .write: return mayWrite ? 201 : 403
        }
    }

    @Test func `every credential may do with every export what it may, and nothing else`() throws {
        for credential in Credential.allCases where credential != .wrong {
            for export in Export.allCases {
                for operation in Operation.allCases {
                    #expect(
                        try perform(operation, export, credential.header)
                            == expected(credential, export, operation),
                        "\(credential) \(export) \(operation)")
                }
            }
        }
    }

    @Test func `a wrong token is let in nowhere, waits longer each time, and is logged without it`()
        throws
    {
        let clock = ContinuousClock()
        let start = clock.now
        for path in [Route.info.path, Route.devices.path, "/nowhere"] {
            let answer = try server.ask("GET", path, Credential.wrong.header)
            #expect(answer.status == 401 && answer.problem == .unauthorized)
            #expect(answer.headers["www-authenticate"]?.hasPrefix("Bearer") == true)
            #expect(answer.headers["connection"] == "close")
        }
        // Half a second, one, two.
        #expect(clock.now - start >= .milliseconds(3500))
        #expect(server.log.all(with: "wrong token").count == 3)
        #expect(server.log.all.allSatisfy { !$0.contains(Credential.wrong.token) })
        // Who is right does not wait for who was wrong.
        #expect(
            try server.ask("GET", Route.info.path, Credential.everything.header).status == 200)
    }

    @Test func `without a token nothing is told, not even what there is not`() throws {
        for path in [
            "/", "/v1", "/v1/devices", "/v1/devices/x", "/v1/sessions/x", "/nowhere", "/info",
            "/hashes?filename=/x", "/blocks?filename=/x", "/resize?filename=/x&size=1",
        ] {
            for method in ["GET", "POST", "DELETE", "PUT"] {
                #expect(try server.ask(method, path).status == 401, "\(method) \(path)")
            }
        }
    }

    @Test(arguments: [
        ("everything", 3, 1), ("readOnly", 3, 1), ("one", 1, 0), ("oneReadOnly", 1, 0),
        ("directory", 1, 1), ("nothing", 0, 0),
    ])
    func `a list has what there is for the one who asks`(
        name: String, devices: Int, directories: Int
    ) throws {
        let credential = try #require(Credential(rawValue: name))
        let list = try server.ask("GET", Route.devices.path, credential.header)
            .decoded(as: ExportList.self)
        #expect(list.devices.count == devices && list.directories.count == directories)
        if [.readOnly, .oneReadOnly].contains(credential) {
            #expect(list.devices.allSatisfy { $0.access == .readOnly })
            #expect(list.directories.allSatisfy { $0.access == .readOnly })
        }
    }

    @Test func `a session is its token's alone`() throws {
        let body = WireJSON.encode(Wire.sessionRequest(.write, size: size))
        let sessions = Route.sessions(device: path(.rw)).path
        let record = try server.ask(
            "POST", sessions, [Wire.json] + Credential.one.header, body: body
        ).decoded(as: SessionRecord.self)
        for credential in [Credential.everything, .oneReadOnly, .nothing] {
            let answer = try server.ask(
                "GET", Route.session(record.session).path, credential.header)
            #expect(answer.status == 404 && answer.problem == .noSession)
            #expect(
                try server.ask(
                    "DELETE", Route.session(record.session).path, credential.header
                ).status == 404)
        }
        #expect(
            try server.ask("GET", Route.session(record.session).path, Credential.one.header)
                .status == 200)
        let locked = try server.ask(
            "POST", sessions, [Wire.json] + Credential.everything.header, body: body)
        #expect(locked.status == 423)
        #expect(server.log.all(with: "client=one").count == 1)
    }

    @Test func `an image is created where the token sees the directory, and nowhere else`() throws {
        let body = WireJSON.encode(Wire.sessionRequest(.write, size: size))
        func create(_ name: String, _ credential: Credential) throws -> Int {
            let answer = try server.ask(
                "POST", Route.sessions(device: scratch.file(name)).path,
                [Wire.json] + credential.header, body: body)
            if answer.status == 201 {
                let id = try answer.decoded(as: SessionRecord.self).session
                _ = try server.ask("DELETE", Route.session(id).path, credential.header)
            }
            return answer.status
        }
        #expect(try create("images/new-1", .one) == 404)
        #expect(try create("images/new-2", .readOnly) == 403)
        #expect(try create("images/../new-3", .directory) == 404)
        #expect(try create("images/new-4", .directory) == 201)
        #expect(try create("images/new-5", .everything) == 201)
    }

    @Test func `other tokens and exports count from when they are given, sessions go on`() throws {
        let body = WireJSON.encode(Wire.sessionRequest(.write, size: size))
        let record = try server.ask(
            "POST", Route.sessions(device: path(.rw)).path,
            [Wire.json] + Credential.one.header, body: body
        ).decoded(as: SessionRecord.self)
        try server.server.replace(
            exports: [try ExportSelector(path(.ro))],
            tokens: [TokenEntry(name: "one", token: Credential.one.token)])
        let data = [UInt8](repeating: 9, count: 4096)
        #expect(
            try server.ask(
                "POST", Route.write(session: record.session).path,
                [Wire.frames] + Credential.one.header, body: try Wire.write(data, at: 8192)
            ).status == 204)
        #expect(try perform(.show, .rw, Credential.one.header) == 404)
        #expect(try perform(.show, .ro, Credential.one.header) == 200)
        #expect(try server.ask("GET", "/v1", Credential.everything.header).status == 401)
    }

    @Test func `a body is not taken from who may not send it`() throws {
        let free = server.server.freeMemory
        let connection = try HTTPConnection(port: server.port)
        try connection.send(
            Array(
                ("POST \(Route.write(session: "x").path) HTTP/1.1\r\nHost: t\r\n"
                    + "\(Wire.frames)\r\nContent-Length: 2000000\r\n\r\n").utf8))
        #expect(try connection.answer().status == 401)
        #expect(server.server.freeMemory == free)
    }
}
