// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// The program in a root directory of its own, as in a rescue system or a container.
@Suite(.enabled(if: isRoot, "chroot(2) needs root"), .blocking, .timeLimit(.minutes(60)))
struct ChrootTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let size = 8 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.sparseFile("source", size: size)
        target = scratch.file("target")
        try fill(source, seed: 4, size: size / 2)
    }

    /// Runs the program in a root directory with this machine's programs, the scratch directory as
    /// `/data`, and what else is wanted.
    ///
    /// - Parameters:
    ///   - mounts: commands of the shell; the root directory is `$root`.
    ///   - arguments: of the program.
    /// - Returns: what the program did.
    /// - Throws: when it cannot be started.
    private func chroot(_ mounts: String, _ arguments: String...) throws -> ProgramResult {
        let script = """
            root=$1/root program=$2
            shift 2
            mkdir -p $root && mount -t tmpfs none $root || exit 99
            mkdir $root/usr $root/data $root/dev $root/proc $root/sys || exit 99
            mount --bind /usr $root/usr || exit 99
            for name in bin lib lib64 sbin; do
                if [ -L /$name ]; then cp -a /$name $root/
                elif [ -d /$name ]; then mkdir $root/$name && mount --bind /$name $root/$name; fi
            done
            # The libraries that a program has which is not linked statically.
            for directory in $(dirname $program) $(ldd $program \
                | sed -n 's|.*=> \\(.*\\)/[^/]* (.*|\\1|p' | sort -u); do
                [ -d $root$directory ] || {
                    mkdir -p $root$directory && mount --bind $directory $root$directory || exit 99
                }
            done
            mount --bind $(dirname $root) $root/data || exit 99
            \(mounts)
            exec chroot $root $program "$@"
            """
        return try RunningProgram(
            ["unshare", "--mount", "sh", "-c", script, "sh", scratch.path, program] + arguments
        ).wait()
    }

    private static let proc = "mount -t proc proc $root/proc"
    private static let all = "\(proc); mount -t sysfs sys $root/sys; mount --rbind /dev $root/dev"

    @Test func `with /proc, /sys and /dev images and devices are synced`() throws {
        let disk = try LoopDevice(size: size)
        for place in ["/data/target", "/data/target", disk.path] {
            let result = try chroot(Self.all, "-q", "--verify", "/data/source", place)
            #expect(result.status == 0, "\(result)")
        }
        #expect(try areEqual(source, target))
        #expect(try areEqual(source, disk.path))
        try fill(source, seed: 5, size: 4096)
        #expect(try chroot(Self.all, "verify", "/data/source", "/data/target").status == 1)
    }

    @Test func `a device that is mounted outside is refused, whatever the chroot shows`() throws {
        let mount = try LoopMount(size: size)
        let result = try chroot(
            Self.all, "--wait", "0", "--overwrite", "/data/source", mount.loop.path)
        #expect(result.status == 2, "\(result)")
        #expect(result.errors.contains("refused: it is "), "\(result)")
        withExtendedLifetime(mount) {}
    }

    @Test func `the image behind a loop device outside is refused`() throws {
        let disk = try LoopDevice(size: size)
        try must("ln", disk.backingFile, target)
        let before = try [UInt8](contentsOf: target)
        let result = try chroot(Self.all, "--overwrite", "/data/source", "/data/target")
        #expect(result.status == 2, "\(result)")
        #expect(try [UInt8](contentsOf: target) == before)
    }

    @Test(arguments: ["", proc])
    func `without /proc or /sys the arguments are read, and a line says which is missing`(
        mounts: String
    ) throws {
        #expect(try chroot(mounts, "--help").output.contains("USAGE"))
        let image = try scratch.sparseFile("image", size: size)
        for place in ["/data/target", "/data/image"] {
            let result = try chroot(mounts, "/data/source", place)
            #expect(result.status == 3, "\(result)")
            let lines = result.errors.split(separator: "\n")
            #expect(lines.count <= 2 && lines.first?.hasPrefix("blkferry: /") == true, "\(result)")
            #expect(result.errors.contains("/proc") || result.errors.contains("/sys"), "\(result)")
        }
        #expect(!FileManager.default.fileExists(atPath: target))
        #expect(try [UInt8](contentsOf: image).allSatisfy { $0 == 0 })
        #expect(try chroot(mounts, "verify", "/data/source", "/data/source").status != 64)
    }
}
