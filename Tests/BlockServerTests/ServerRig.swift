// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import BlockServer
import DeviceProbe
import Digests
import LinuxIO
import Logging
import SyncEngine
import Synchronization
import SystemPackage
import TestSupport
import WireProtocol

/// A server in this process that exports a directory of images and whatever else, for writing.
final class ServerRig: Sendable {
    /// What sessions have done, as the server logs it at their ends; bytes.
    struct Counts: Hashable, Sendable {
        var sessions = 0
        var compared = 0
        var read = 0
        var written = 0
        var zeroed = 0
    }

    let scratch: ScratchDirectory
    let server: BlockServer
    private let log = SessionLog()

    init(
        exporting paths: [String] = [], timeout: Double = 60, findsZstd: Bool = true
    ) throws {
        scratch = try ScratchDirectory()
        let log = log
        var options = BlockServer.Options(
            address: .host("127.0.0.1", port: 0),
            exports: try (["\(scratch.path)/"] + paths).map { try ExportSelector("\($0):rw") },
            logger: Logger(label: "test") { _ in log })
        options.sessionTimeout = timeout
        options.findsZstd = findsZstd
        // The log counts all sessions, so none of their lines may be left out.
        options.logInterval = 0
        server = try BlockServer(options)
    }

    deinit { server.stop() }

    var port: Int { server.port ?? 0 }

    /// Of all sessions that have ended.
    var counts: Counts { log.counts }

    /// How many requests of sessions were answered so far.
    ///
    /// - Parameter name: the last word of their path.
    /// - Returns: the number.
    func requests(to name: String) -> Int { log.requests[name] ?? 0 }

    /// What the client calls a device.
    func url(_ path: String, port: Int? = nil) -> String {
        "http://127.0.0.1:\(port ?? self.port)\(path)"
    }

    /// The path of an image in the exported directory.
    func image(_ name: String) -> String { scratch.file(name) }

    /// Opens a session.
    ///
    /// - Parameters:
    ///   - path: of the device.
    ///   - purpose: what for.
    ///   - method: name of the digest; `nil` for the fastest that both have.
    ///   - port: of a proxy before the server.
    ///   - options: of the client.
    /// - Returns: the open device.
    /// - Throws: what opening it throws.
    func open(
        _ path: String, for purpose: RemoteBlockDevice.Purpose, digest method: String? = nil,
        port: Int? = nil, _ options: RemoteServer.Options = RemoteServer.Options()
    ) throws -> RemoteBlockDevice {
        guard case .remote(let location) = try Location(url(path, port: port)) else {
            preconditionFailure("a URL is remote")
        }
        return try RemoteBlockDevice(
            try RemoteServer(location, options), for: purpose,
            digest: try method.map { try DigestMethod(named: $0) })
    }
}

/// How one run is to go.
struct RemoteRun {
    var block = BlockLayout.defaultBlock
    /// `nil` for the fastest that both sides have.
    var method: String?
    var options = SyncOptions(concurrency: 3)
    var sizePolicy: SizePolicy?
    var port: Int?
    var client = RemoteServer.Options()
    var control = RunControl()

    /// Makes a device of the server equal to one here, as the command does.
    func push(
        _ source: any BlockDevice, to path: String, of rig: ServerRig
    ) throws -> SyncReport {
        let facts = SourceFacts(
            name: source.name, size: source.geometry.size, content: .empty, logicalSector: nil,
            identity: nil)
        let target = try rig.open(
            path,
            for: .init(
                mode: options.isDryRun ? .dryRun : .write,
                block: block.raised(to: source.geometry.alignment), source: facts,
                policy: GatePolicy(sizePolicy: sizePolicy, isDryRun: options.isDryRun)),
            digest: method, port: port, client)
        var options = options
        options.layout = BlockLayout(block: target.record.block)
        if let size = target.record.resizeTo, size < target.record.size { options.resizeTo = size }
        let report = synchronize(
            source: source, target: target, options: options, control: control)
        target.release(isComplete: report.isGood)
        return report
    }

    /// Makes a device here equal to one of the server.
    func pull(
        _ path: String, of rig: ServerRig, to target: any BlockDevice
    ) throws -> SyncReport {
        let (source, layout) = try openSource(path, of: rig, beside: target)
        var options = options
        options.layout = layout
        if target.geometry.size != source.geometry.size, sizePolicy != .prefix {
            options.resizeTo = source.geometry.size
        }
        let report = synchronize(
            source: source, target: target, options: options, control: control)
        source.release(isComplete: report.isGood)
        return report
    }

    /// Compares a device here with one of the server.
    func verify(
        _ path: String, of rig: ServerRig, against other: any BlockDevice
    ) throws -> SyncReport {
        let (device, layout) = try openSource(path, of: rig, beside: other)
        var options = options
        options.layout = layout
        let report = compare(source: device, target: other, options: options, control: control)
        device.release(isComplete: true)
        return report
    }

    private func openSource(
        _ path: String, of rig: ServerRig, beside other: any BlockDevice
    ) throws -> (RemoteBlockDevice, BlockLayout) {
        let device = try rig.open(
            path, for: .init(mode: .read, block: block.raised(to: other.geometry.alignment)),
            digest: method, port: port, client)
        return (device, BlockLayout(block: device.record.block))
    }
}

extension SyncReport {
    /// Whether the command would end with 0.
    var isGood: Bool {
        failure == nil && flushError == nil && !wasInterrupted && tally.writeErrorCount == 0
            && verification?.different ?? 0 == 0
    }
}

extension Int {
    /// The smallest multiple of it that another number divides.
    fileprivate func raised(to unit: Int) -> Int {
        var result = self
        while result % unit != 0 { result += self }
        return result
    }
}

/// Keeps what the server says of ended sessions, and counts requests.
private final class SessionLog: LogHandler, Sendable {
    private let state = Mutex(ServerRig.Counts())
    private let paths = Mutex<[String: Int]>([:])

    var counts: ServerRig.Counts { state.withLock { $0 } }
    var requests: [String: Int] { paths.withLock { $0 } }
    var metadata: Logger.Metadata {
        get { [:] }
        set {}
    }
    var logLevel: Logger.Level {
        get { .debug }
        set {}
    }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }

    func log(event: LogEvent) {
        if event.message.description == "request" {
            let name = "\(event.metadata?["path"] ?? "")".split(separator: "/").last
            paths.withLock { $0[String(name ?? ""), default: 0] += 1 }
        }
        guard event.message.description == "session ends" else { return }
        func number(_ key: String) -> Int { Int("\(event.metadata?[key] ?? "")") ?? 0 }
        let sum = (number("compared"), number("read"), number("written"), number("zeroed"))
        state.withLock { counts in
            counts.sessions += 1
            counts.compared += sum.0
            counts.read += sum.1
            counts.written += sum.2
            counts.zeroed += sum.3
        }
    }
}
