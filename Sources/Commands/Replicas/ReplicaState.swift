// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import Digests
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes
internal import SystemPackage
internal import WireProtocol

/// What the runs of one replica have left, in a file of `/var/lib/blkferry`.
struct ReplicaState: Codable {
    /// A run that has ended; times are in seconds since 1970, sizes in bytes.
    struct Run: Codable {
        /// The replica is as old as this.
        var start: Int
        var end: Int
        var exitStatus: Int32
        var error: String?
        /// Of the source; this and what follows only if the run has compared.
        var size: Int?
        var compared: Int?
        /// What was not read.
        var unchanged: Int?
        var different: Int?
        var written: Int?
        /// See `Replication.Report`.
        var fullComparison: String?
    }

    /// A run that has begun.
    struct Unfinished: Codable {
        var start: Int
        /// The identity of its process.
        var process: String
    }

    /// As the user named it.
    var name: String
    var source: String
    var target: String
    /// Also a run that was killed.
    var running: Unfinished?
    var lastRun: Run?
    /// The last one that ended with 0.
    var lastSuccess: Run?
    /// The last comparison of both sides.
    var lastVerify: Run?
    /// The samples that verifications have compared.
    var round: Replication.Options.SampleRound?
}

// MARK: Files

extension ReplicaState {
    static let usualDirectory = "/var/lib/blkferry"

    /// The directory that systemd.exec(5) names for StateDirectory=, or the usual one.
    private static var directory: String {
        getenv("STATE_DIRECTORY").map { String(cString: $0) } ?? usualDirectory
    }

    private static let suffix = ".json"

    private static func path(_ operands: Operands) throws(IOError) -> String {
        "\(directory)/\(try operands.fileName())\(suffix)"
    }

    /// The file for a checkpoint, beside the state; throws if no file can be made there.
    static func checkpoint(of operands: Operands) throws(IOError) -> String {
        try makeDirectory()
        guard access("\(directory)/", W_OK | X_OK) == 0 else {
            throw IOError(directory, "write", currentErrno())
        }
        return "\(directory)/\(try operands.fileName()).checkpoint"
    }

    private static func makeDirectory() throws(IOError) {
        do throws(Errno) {
            do throws(Errno) { _ = try retryingInterrupts { mkdir(directory, 0o755) } } catch {
                guard error == .fileExists else { throw error }
            }
        } catch {
            throw IOError(directory, "create", error)
        }
    }

    /// Reads the state; `nil` if no run has left one.
    static func of(_ operands: Operands) throws(IOError) -> ReplicaState? {
        try read(try path(operands))
    }

    /// Every state that can be read, by name and target.
    static func all() -> [ReplicaState] {
        namesInDirectory(directory).filter { $0.hasSuffix(suffix) }
            .compactMap { try? read("\(directory)/\($0)") }
            .sorted { ($0.name, $0.target) < ($1.name, $1.target) }
    }

    private static func read(_ path: String) throws(IOError) -> ReplicaState? {
        let bytes: [UInt8]
        do throws(Errno) { bytes = try smallFileBytes(path) } catch .noSuchFileOrDirectory {
            return nil
        } catch {
            throw IOError(path, "read", error)
        }
        let state = bytes.withUnsafeBytes { bytes in
            Result { () throws(WireError) in try WireJSON.decode(Self.self, from: bytes) }
        }
        do throws(WireError) { return try state.get() } catch {
            throw IOError(path, "read", reason: error.reason)
        }
    }

    /// Changes the state, and the metrics; each file is the old one or the new one at every moment.
    static func update(
        _ operands: Operands, named name: String, _ change: (inout ReplicaState) -> Void
    ) throws(IOError) {
        let path = try path(operands)
        try makeDirectory()
        let lock = try locked()
        defer { withExtendedLifetime(lock) {} }
        // A damaged file is replaced.
        var state =
            (try? read(path))
            ?? ReplicaState(
                name: name, source: "\(operands.source)", target: "\(operands.target)")
        state.name = name
        change(&state)
        // A power cut must not make forget that a run has begun: its target is partly written.
        do throws(Errno) { try replaceFileDurably(path, with: WireJSON.encode(state)) } catch {
            throw IOError(path, "write", error)
        }
        // The states of a test are no business of the machine's node_exporter.
        if directory == usualDirectory { try ReplicaMetrics.write(all()) }
    }

    /// Keeps other runs from changing a state or the metrics; they hold it for some milliseconds.
    private static func locked() throws(IOError) -> RunLock {
        let end = ContinuousClock.now + .seconds(10)
        while true {
            if let lock = try RunLock("state", in: directory) { return lock }
            guard ContinuousClock.now < end else {
                throw IOError(directory, "lock", reason: "another process holds it")
            }
            pause(for: .milliseconds(20))
        }
    }
}

extension Operands {
    /// A name for files about a replica, without the slashes of a location: 32 hexadecimal digits.
    func fileName() throws(IOError) -> String {
        hexadecimal(try sha256(of: Array("\(source)\0\(target)".utf8)).prefix(16))
    }
}
