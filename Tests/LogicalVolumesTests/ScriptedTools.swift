// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import LogicalVolumes
import TestSupport

/// Scripts in place of thin_delta and thin_dump, which record their arguments and answer as files tell, and a
/// device mapper that does the same, with a pool whose metadata snapshot is a line in a file.
final class ScriptedTools: Sendable {
    let scratch: ScratchDirectory

    init() throws {
        scratch = try ScratchDirectory()
        try install(
            "thin_delta",
            """
            echo "$*" >asked-for
            cat held >held-meanwhile
            [ ! -f taken ] || cat taken >held
            : >started
            while [ -f slow ]; do sleep 0.02; done
            [ ! -f fails ] || { cat fails >&2; echo 'Usage: and more' >&2; exit 1; }
            echo 'no error, only talk' >&2
            cat xml
            """)
        try install(
            "thin_dump",
            """
            echo "$*" >dumped
            [ -f dump ] && cat dump
            """)
        put("held", "-")
        put("mode", "rw")
        put(
            "xml",
            """
            <superblock data_block_size="128">
            <diff left="1" right="2"><different begin="3" length="1"/></diff></superblock>
            """)
    }

    private func install(_ name: String, _ script: String) throws {
        // Written by another process: what this one has open to write may be so in a child that
        // another test starts just then, and cannot be run as long.
        try must(
            "sh", "-c", "cat >\"$0\" && chmod +x \"$0\"", scratch.file(name),
            input: "#!/bin/sh\ncd '\(scratch.path)' || exit 9\n\(script)\n")
    }

    /// Makes a file that the scripts or the device mapper look at.
    func put(_ name: String, _ text: String) {
        _ = FileManager.default.createFile(
            atPath: scratch.file(name), contents: Data((text + "\n").utf8))
    }

    func remove(_ name: String) { try? FileManager.default.removeItem(atPath: scratch.file(name)) }

    func has(_ name: String) -> Bool { FileManager.default.fileExists(atPath: scratch.file(name)) }

    /// What a file says; nothing where there is none.
    func text(_ name: String) -> String {
        let text = try? String(contentsOfFile: scratch.file(name), encoding: .utf8)
        return (text ?? "").trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// What was sent to the pool.
    var messages: [Substring] { text("messages").split(separator: "\n") }

    var mapper: DeviceMapper { .scripted(in: scratch.path) }

    var programs: ThinPool.Programs {
        var programs = ThinPool.Programs()
        programs.delta = scratch.file("thin_delta")
        programs.dump = scratch.file("thin_dump")
        return programs
    }

    var pool: ThinPool {
        ThinPool(
            group: "vg-0", pool: "pool", mapper: mapper, programs: programs,
            lockDirectory: scratch.path)
    }

    /// What a lock says whose holder has reserved a metadata snapshot.
    static func record(_ root: String) -> String {
        "3 140/1024 512/3200 \(root) rw discard_passdown queue_if_no_space - 1024"
    }

    static let lock = "vg--0-pool-tpool.lock"
}
