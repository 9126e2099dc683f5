// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockServer
import DeviceProbe
import Foundation
import Glibc
import LinuxIO
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// A client ends the session of a killed client of the same machine, and no other session.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SessionClaimTests {
    private let rig: ServerRig
    private let image: String
    private let claims: String

    init() throws {
        rig = try ServerRig()
        image = rig.image("image")
        claims = rig.scratch.file("claims")
        try makeImage(image, [UInt8](repeating: 1, count: 1 << 20))
    }

    private func open(
        _ mode: SessionRequest.Mode = .write, _ path: String? = nil, claims: String?
    ) throws -> RemoteBlockDevice {
        var options = RemoteServer.Options()
        options.claims = claims
        let source = SourceFacts(
            name: "S", size: 1 << 20, content: .empty, logicalSector: nil, identity: nil)
        return try rig.open(
            path ?? image,
            for: .init(mode: mode, block: 4096, source: mode == .read ? nil : source),
            options)
    }

    private func isLocked(_ mode: SessionRequest.Mode = .write, claims: String?) -> Bool {
        do {
            try open(mode, claims: claims).release(isComplete: false)
            return false
        } catch {
            return (error as? IOError)?.cause == .locked
        }
    }

    /// Whether the next client ends the dead client's session, sooner than silence does.
    ///
    /// A child of another test may hold the claim until its exec.
    private func isFree(_ mode: SessionRequest.Mode = .write) -> Bool {
        becomesTrue(within: 20) { !isLocked(mode, claims: claims) }
    }

    /// Opens a session, and forgets it as a client does that is killed: nothing is released, and the
    /// kernel closes its files.
    private func openAndDie(_ mode: SessionRequest.Mode = .write) throws {
        let device = try open(mode, claims: claims)
        withExtendedLifetime(device) { #expect(isLocked(claims: claims)) }
    }

    @Test(
        arguments: [SessionRequest.Mode.write, .dryRun, .read],
        [SessionRequest.Mode.write, .dryRun])
    func `the next client of the machine does not wait for a dead client's session`(
        mode: SessionRequest.Mode, dead: SessionRequest.Mode
    ) throws {
        try openAndDie(dead)
        #expect(rig.server.sessionCount == 1)
        #expect(isFree(mode))
        #expect(rig.server.sessionCount == 0)
    }

    @Test func `a live client keeps its session, also after others have tried`() throws {
        let device = try open(claims: claims)
        for _ in 0..<3 { #expect(isLocked(claims: claims)) }
        try [UInt8](repeating: 2, count: 4096).withUnsafeBytes { try device.write($0, at: 0) }
        device.release(isComplete: true)
        #expect(!isLocked(claims: claims))
        #expect(try names().isEmpty)
    }

    @Test func `clients of other machines and users wait`() throws {
        try openAndDie()
        #expect(isLocked(claims: nil))
        #expect(isLocked(claims: rig.scratch.file("others")))
    }

    @Test func `an old claim ends no session of another client`() throws {
        try openAndDie()
        #expect(isFree())
        let device = try open(claims: claims)
        device.release(isComplete: true)
        let other = try open(claims: nil)
        #expect(isLocked(claims: claims))
        other.release(isComplete: true)
    }

    @Test func `a claim file that others can change is not used`() throws {
        try openAndDie()
        let name = try #require(try FileManager.default.contentsOfDirectory(atPath: claims).first)
        let place = "\(claims)/\(name)"
        try must("mv", place, rig.scratch.file("elsewhere"))
        try must("ln", "-s", rig.scratch.file("elsewhere"), place)
        #expect(isLocked(claims: claims))
    }

    /// The names in the directory of claims.
    private func names() throws -> Set<String> {
        Set(try FileManager.default.contentsOfDirectory(atPath: claims))
    }

    private func makeOld(_ name: String) throws {
        try must("touch", "-d", "26 hours ago", "\(claims)/\(name)")
    }

    @Test func `claims that no client has used for a day are removed, and nothing else`() throws {
        let device = try open(claims: claims)
        let own = try #require(try names().first)
        let held = try OwnedDescriptor.open(
            "\(claims)/held.session", flags: O_RDWR | O_CREAT)
        #expect(flock(held.rawValue, LOCK_EX) == 0)
        try must("ln", "-s", rig.scratch.file("elsewhere"), "\(claims)/link.session")
        for name in ["old.session", "killed.session", "new.session", "writes.json"] {
            try "0123456789abcdef".write(
                toFile: "\(claims)/\(name)", atomically: false, encoding: .utf8)
        }
        for name in [own, "held.session", "old.session", "killed.session", "writes.json"] {
            try makeOld(name)
        }
        try must("touch", "-h", "-d", "26 hours ago", "\(claims)/link.session")
        let image = rig.image("second")
        try makeImage(image, [UInt8](repeating: 1, count: 1 << 20))
        let second = try open(.write, image, claims: claims)
        let left = try names()
        #expect(
            left.isSuperset(of: [
                own, "held.session", "link.session", "new.session", "writes.json",
            ]))
        #expect(left.count == 6, "the sixth is that of the second image: \(left)")
        #expect(isLocked(claims: claims))
        second.release(isComplete: true)
        device.release(isComplete: true)
        #expect(flock(held.rawValue, LOCK_UN) == 0)
    }

    @Test func `a claim is in use as long as its client lives`() throws {
        let rig = try ServerRig(timeout: 1)
        let image = rig.image("image")
        try makeImage(image, [UInt8](repeating: 1, count: 1 << 20))
        var options = RemoteServer.Options()
        options.claims = claims
        let source = SourceFacts(
            name: "S", size: 1 << 20, content: .empty, logicalSector: nil, identity: nil)
        let device = try rig.open(
            image, for: .init(mode: .write, block: 4096, source: source), options)
        let name = try #require(try names().first)
        try makeOld(name)
        let old = try FileStatus(path: "\(claims)/\(name)").modified
        #expect(try becomesTrue { try FileStatus(path: "\(claims)/\(name)").modified > old })
        device.release(isComplete: true)
    }
}
