// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO

/// A loop device on a file that QEMU shows through FUSE.
private final class ShownFile {
    /// The loop device's file.
    let path: String
    private let file: String
    private let scratch: ScratchDirectory
    private let daemon: RunningProgram

    /// Makes it.
    ///
    /// - Parameters:
    ///   - drivers: of qemu-storage-daemon, the last one named `n`.
    ///   - size: in bytes.
    ///   - options: of losetup(8).
    /// - Throws: when a command fails.
    init(_ drivers: [String], size: Int, options: [String] = []) throws {
        scratch = try ScratchDirectory()
        file = try scratch.sparseFile("shown", size: 0)
        daemon = try RunningProgram(
            ["qemu-storage-daemon"] + drivers.flatMap { ["--blockdev", $0] } + [
                "--export", "type=fuse,id=e,node-name=n,mountpoint=\(file),writable=on",
            ])
        let shown = file
        guard becomesTrue({ (try? FileStatus(path: shown))?.size == size }) else {
            throw NotListening(errors: try daemon.errorsSoFar())
        }
        path = String(
            try must(["losetup"] + options + ["--find", "--show", file]).dropLast())
    }

    /// Makes everything fail that waits for it.
    func end() {
        daemon.signal(SIGKILL)
        _ = try? daemon.wait()
    }

    deinit {
        end()
        _ = try? run("losetup", "--detach", path)
        _ = try? run("umount", "--lazy", file)
    }
}

/// A disk that does not answer within any timeout of blkferry; it goes away with this object.
package final class SilentDisk {
    /// How long each read takes: longer than the 13 s of `list`, also on a busy machine.
    private static let seconds = 60
    private let file: ShownFile
    /// Its device file.
    package var path: String { file.path }

    /// Whether this machine can have one.
    package static let isPossible =
        isRoot && FileStatus.exists("/dev/fuse") && Program.find("qemu-storage-daemon") != nil

    /// Makes it.
    ///
    /// Its offset in the file is so large that it cannot be a part of the images of other tests: a
    /// loop device that does not answer may be backed by an image that another program has open.
    ///
    /// - Parameter size: in bytes.
    /// - Throws: when a command fails.
    package init(size: Int = 64 << 20) throws {
        let offset = 1 << 40
        let end = offset + size
        file = try ShownFile(
            [
                "driver=null-co,node-name=n,size=\(end),latency-ns=\(Self.seconds * 1_000_000_000),read-zeroes=on"
            ],
            size: end, options: ["--offset=\(offset)"])
    }

    /// Makes everything fail that waits for it, so that a test need not wait for its processes.
    package func end() { file.end() }
}

/// A disk with a bad sector; it goes away with this object.
package final class BadDisk {
    private let file: ShownFile
    private let scratch: ScratchDirectory
    /// Its device file.
    package var path: String { file.path }

    /// Makes it.
    ///
    /// - Parameters:
    ///   - backing: the file with its content.
    ///   - badSector: in units of 512 bytes; others in its page fail with it.
    /// - Throws: when a command fails.
    package init(on backing: String, badSector: Int) throws {
        scratch = try ScratchDirectory()
        let rules = scratch.file("rules")
        try must(
            "sh", "-c", "printf '%s\\n' \"$@\" >\(rules)", "sh", "[inject-error]",
            "event = \"none\"", "iotype = \"read\"", "errno = \"5\"", "sector = \"\(badSector)\"",
            "once = \"off\"")
        let size = try FileStatus(path: backing).size
        file = try ShownFile(
            [
                "driver=file,node-name=f,filename=\(backing),locking=off",
                "driver=blkdebug,node-name=n,config=\(rules),image=f",
            ], size: size, options: ["--direct-io=on"])
    }
}
