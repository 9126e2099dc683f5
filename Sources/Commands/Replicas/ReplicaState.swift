// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import Digests
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// What the refreshes of one target have left, in a file of `/var/lib/blkferry`.
struct ReplicaState: Codable {
    /// Times are in seconds since 1970, sizes in bytes.
    struct Run: Codable {
        /// The replica is as old as this.
        var start: Int
        var end: Int
        var exitStatus: Int32
        var error: String?
        /// Of the source; this and what follows only if the run has compared.
        var size: Int?
        /// What was not read.
        var unchanged: Int?
        var different: Int?
        var written: Int?
    }

    var source: String
    var target: String
    var lastRun: Run
    /// The last one that ended with 0.
    var lastSuccess: Run?

    /// The directory that systemd.exec(5) names for StateDirectory=, or the usual one.
    private static var directory: String {
        getenv("STATE_DIRECTORY").map { String(cString: $0) } ?? "/var/lib/blkferry"
    }

    private static func path(_ operands: Operands) throws(IOError) -> String {
        "\(directory)/\(try operands.fileName()).json"
    }

    /// Reads the state; `nil` if no run has left one.
    static func of(_ operands: Operands) throws(IOError) -> ReplicaState? {
        let path = try path(operands)
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

    /// Records a run; the file is the old one or the new one at every moment.
    static func record(_ run: Run, of operands: Operands) throws(IOError) {
        let path = try path(operands)
        // A damaged file is replaced.
        let before = try? of(operands)
        let state = ReplicaState(
            source: "\(operands.source)", target: "\(operands.target)", lastRun: run,
            lastSuccess: run.exitStatus == 0 ? run : before?.lastSuccess)
        do throws(Errno) {
            do throws(Errno) { _ = try retryingInterrupts { mkdir(directory, 0o755) } } catch {
                guard error == .fileExists else { throw error }
            }
            try replaceFile(path, with: WireJSON.encode(state))
        } catch {
            throw IOError(path, "write", error)
        }
    }
}

extension Operands {
    /// A name for files about a replica, without the slashes of a location: 32 hexadecimal digits.
    func fileName() throws(IOError) -> String {
        hexadecimal(try sha256(of: Array("\(source)\0\(target)".utf8)).prefix(16))
    }
}

extension ReplicaState.Run {
    /// A run that has ended now.
    init(since start: Int, _ outcome: RunCommand.Outcome) {
        self.start = start
        end = time(nil)
        exitStatus = outcome.status.rawValue
        error = outcome.error
        guard let report = outcome.report else { return }
        size = report.sourceSize
        unchanged = report.unchanged
        different = report.different
        written = report.written
    }
}
