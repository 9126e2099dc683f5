// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

@testable import Commands

/// Words that look like options, and file systems of the kernel's that are not there.
@Suite(.blocking, .timeLimit(.minutes(60))) struct BareSystemTests {
    @Test(arguments: ["-h.img", "-has.img", "-vh", "-qh", "-h=x", "-disk", "-1", "-hh"])
    func `a word that begins with a dash is no call for help`(word: String) throws {
        for arguments in [[word, "b"], ["b", word], ["verify", word, "b"], ["list", word]] {
            let result = try RunningProgram([program] + arguments).wait()
            #expect(result.status == 64, "\(arguments)")
            #expect(result.errors.contains("A file of that name is ./\(word)"), "\(arguments)")
        }
    }

    @Test func `combined short options, and values behind an equals sign, are read`() {
        for words in [["-vq", "a"], ["-b=4K"], ["-h"], ["--", "-h.img"], ["-nW"], ["-"]] {
            #expect(Blkferry.misleadingName(in: words) == nil, "\(words)")
        }
    }

    @Test func `behind a double dash every word is a name`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("-h.img", size: 4096)
        let directory = URL(fileURLWithPath: source).deletingLastPathComponent().path
        for command in ["", "sync"] {
            try must("sh", "-c", "cd \(directory) && \(program) \(command) -q -- -h.img -v.img")
        }
        #expect(try areEqual(source, scratch.file("-v.img")))
    }

    /// Runs the program where a tmpfs hides a file system of the kernel's.
    private func without(_ mount: String, _ arguments: String...) throws -> ProgramResult {
        try RunningProgram(
            [
                "unshare", "--mount", "sh", "-c", "mount -t tmpfs none $0 && exec \"$@\"", mount,
                program,
            ]
                + arguments
        ).wait()
    }

    @Test(.enabled(if: isRoot, "mounting needs root"))
    func `without /proc the arguments are read, and a command that needs /proc says so`() throws {
        let scratch = try ScratchDirectory()
        let (a, b) = (
            try scratch.sparseFile("a", size: 4096), try scratch.sparseFile("b", size: 4096)
        )
        #expect(try without("/proc", "--version").output == Blkferry.version + "\n")
        #expect(try without("/proc", "verify", a, b).status == 0)
        for arguments in [[a, b], [a, scratch.file("new")], ["list"], ["serve", "--export-all"]] {
            let result = try RunningProgram(
                [
                    "unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"",
                    "sh",
                ]
                    + [program] + arguments
            ).wait()
            #expect(result.status == 3, "\(arguments)")
            #expect(result.errors.hasPrefix("blkferry: /proc/self/mountinfo: "), "\(result)")
        }
        let directory = URL(fileURLWithPath: a).deletingLastPathComponent().path
        let served = try without("/proc", "serve", "--export", directory + "/")
        #expect(served.status == 3)
        #expect(served.errors.hasPrefix("blkferry: /proc/self/fd: "), "\(served)")
    }

    @Test(.enabled(if: isRoot, "mounting needs root"))
    func `without /sys a selector says that /sys is missing`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        for selector in ["UUID=x", "LABEL=x", "PARTUUID=x", "LVUUID=x"] {
            for arguments in [[selector, image], [image, selector]] {
                let result = try without("/sys", "sync", arguments[0], arguments[1])
                #expect(result.status == 3)
                #expect(result.errors.hasPrefix("blkferry: /sys/class/block: "), "\(result)")
            }
        }
    }

    /// As in a container: sysfs tells of the machine's loop devices, /dev and the paths do not.
    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `in a container an image is accepted if no loop device can stand on it`() throws {
        let scratch = try ScratchDirectory()
        let size = 1 << 20
        let loop = try LoopDevice(size: size)
        let source = try scratch.sparseFile("source", size: size)
        let target = try scratch.sparseFile("target", size: size)
        try fill(source, seed: 3, size: size)
        let mine = scratch.file("mine")
        try must("ln", loop.backingFile, mine)
        let directory = URL(fileURLWithPath: loop.backingFile).deletingLastPathComponent().path
        func inside(_ target: String) throws -> ProgramResult {
            try run(
                "unshare", "--mount", "sh", "-c",
                """
                mount -t tmpfs none /dev && : > /dev/null && mount -t tmpfs none \(directory) &&
                exec "$@"
                """, "sh", program, "-q", source, target)
        }
        let free = try inside(target)
        #expect(free.status == 0, "\(free)")
        #expect(try areEqual(source, target))
        let taken = try inside(mine)
        #expect(taken.status == 2, "\(taken)")
        #expect(taken.errors.contains("loop device "), "\(taken)")
        #expect(!taken.errors.contains("Run it as root"))
        let new = try inside(scratch.file("new"))
        #expect(new.status == 0, "\(new)")
    }

    /// As above; the server had the image open for a reader just before.
    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `in a container a server writes to an image that was just being read`() throws {
        let scratch = try ScratchDirectory()
        let size = 1 << 20
        let loop = try LoopDevice(size: size)
        let source = try scratch.sparseFile("source", size: size)
        let target = try scratch.sparseFile("target", size: size)
        try fill(source, seed: 4, size: size)
        let directory = URL(fileURLWithPath: loop.backingFile).deletingLastPathComponent().path
        let server = try ServeProcess(
            target + ":rw",
            prefix: [
                "unshare", "--mount", "sh", "-c",
                """
                mount -t tmpfs none /dev && : > /dev/null && mount -t tmpfs none \(directory) &&
                exec "$@"
                """, "sh",
            ])
        let name = target.replacingOccurrences(of: "/", with: "%2F")
        let url = server.url("/v1/devices/\(name)/content")
        try must("curl", "-sSf", "-o", "/dev/null", "-r", "0-511", url)
        let push = try blkferry("-q", source, server.url(target))
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(source, target))
    }
}
