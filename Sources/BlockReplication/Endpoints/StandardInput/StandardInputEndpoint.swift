// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SyncEngine
internal import Synchronization
internal import WireProtocol

/// Standard input as a source, `-` on the command line.
struct StandardInputEndpoint: Endpoint {
    static func source(
        _ context: EndpointContext, block: Int?, for purpose: ReadPurpose
    ) throws(IOError) -> (OpenedSource, any Endpoint)? {
        guard context.location.isStandardInput else { return nil }
        let endpoints = context.endpoints
        let source = try endpoints.standardInput.source(
            size: endpoints.options.streamSize, isCancelled: endpoints.isCancelled)
        return (source, StandardInputEndpoint())
    }

    static func target(
        _ context: EndpointContext, for source: OpenedSource, _ policy: GatePolicy
    ) throws(IOError) -> (AdmittedTarget, any Endpoint)? { nil }

    func fit(_ source: inout OpenedSource, to alignment: Int) -> any Endpoint { self }

    func identity() -> [String] { ["stream"] }
}

/// Standard input of a run, which is opened once, although the target may be tried several times.
final class StandardInput: Sendable {
    private let opened = Mutex<OpenedSource?>(nil)

    /// Reads the start of the stream, unless that was done before.
    ///
    /// - Parameter size: what the user says, in bytes.
    func source(
        size: Int?, isCancelled: @escaping @Sendable () -> Bool
    ) throws(IOError) -> OpenedSource {
        if let source = opened.withLock({ $0 }) { return source }
        let name = "standard input"
        let status = FileStatus(descriptor: STDIN_FILENO)
        let stream = try StreamSource(STDIN_FILENO, name: name, isCancelled: isCancelled)
        let head = stream.head
        let known = stream.knownSize
        if let size, let known, size != known {
            throw IOError(
                name, "read", reason: "it ended after \(known) of the \(size) bytes of --size",
                advice: "Nothing was written.")
        }
        var facts = SourceFacts(
            name: name, size: size ?? head.count,
            content: contentOfStream(head, size: size ?? known), logicalSector: nil,
            identity: status.flatMap { DeviceIdentity($0, path: "/proc/self/fd/0") })
        facts.isStream = true
        facts.isSizeKnown = size != nil || known != nil
        let source = OpenedSource(device: stream, facts: facts, warnings: [])
        opened.withLock { $0 = source }
        return source
    }
}

extension Location {
    /// Whether it is `-`; the file of that name is `./-`.
    package var isStandardInput: Bool { local == .path("-") }
}

extension Replication.Options {
    /// Throws `invalid` if a run cannot have its source on standard input, or `--size` without it.
    func checkStream(
        _ action: Replication.Action, _ operands: Operands
    ) throws(ReplicationError) {
        guard operands.source.isStandardInput else {
            if streamSize != nil {
                throw ReplicationError(.invalid, "size: goes with - as the source only")
            }
            return
        }
        let others = [
            ("refresh, snapshot and since", readsVolume(action)), ("sample", sample != nil),
            ("max-change", maximumChange != nil), ("move-backup-gpt", movesBackupTable),
            ("skip-unreadable", skipsUnreadable),
            ("size", streamSize != nil && action == .compare),
        ]
        if let other = others.first(where: \.1) {
            throw ReplicationError(.invalid, "-: does not go with \(other.0)")
        }
        let needs = [
            ("a target on a server", operands.target.remote != nil && action != .compare),
            ("create", createsVolume), ("shrink", shrinksVolume),
        ]
        if streamSize == nil, let need = needs.first(where: \.1) {
            throw ReplicationError(.invalid, "-: with \(need.0), the size must be known: --size")
        }
        if let streamSize, !(1...Geometry.maximumSize).contains(streamSize) {
            throw ReplicationError(
                .invalid, "size \(streamSize): must be from 1 to \(Geometry.maximumSize)")
        }
    }

    /// Where a stream must end.
    func end(
        of source: OpenedSource, _ action: Replication.Action, _ target: AdmittedTarget
    ) -> StreamSource.End {
        let size = target.device.geometry.size
        if action == .compare { return .compared(size) }
        if source.facts.isSizeKnown { return .announced(source.facts.size) }
        switch (sizePolicy, target.kind) {
        case (.prefix, _): return .withinTarget(size)
        case (.refuse, .image) where !target.wasCreated: return .atTarget(size)
        case (_, .image): return .anywhere
        case (_, .blockDevice): return .atTarget(size)
        }
    }
}
