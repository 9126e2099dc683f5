// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import WireProtocol

/// A kind of source and target: a folder next to this file, and a line in `Endpoints.kinds`.
///
/// A value is an open device of the kind, and does what a run asks of it beyond `BlockDevice`.
protocol Endpoint: Sendable {
    /// Opens a device for reading; `nil` if it is of another kind.
    ///
    /// - Parameters:
    ///   - block: the block size in bytes that suits the other side; `nil` if it is unknown.
    ///   - purpose: ignored for a device on a server.
    static func source(
        _ context: EndpointContext, block: Int?, for purpose: ReadPurpose
    ) throws(IOError) -> (OpenedSource, any Endpoint)?

    /// Opens a device for writing through a safety gate, here or on its server; `nil` if it is of
    /// another kind.
    ///
    /// - Throws: also the gate's refusal.
    static func target(
        _ context: EndpointContext, for source: OpenedSource, _ policy: GatePolicy
    ) throws(IOError) -> (AdmittedTarget, any Endpoint)?

    /// Gives its source blocks that suit the target's alignment in bytes; it may be opened again.
    ///
    /// - Returns: the endpoint of the source that is open then.
    func fit(_ source: inout OpenedSource, to alignment: Int) throws(IOError) -> any Endpoint

    /// Why nothing can be written behind the replica; `nil` if that is possible.
    var reasonForNoTail: String? { get }

    /// Whether other programs could write to it for a while, because the server ended or the session
    /// timed out.
    var hasGap: Bool { get }

    /// Words that do not depend on its content, for `OpenPair.targetIdentity()`.
    func identity() throws(IOError) -> [String]

    /// The persistent change counter and the device of a host that has it; `nil` if there is none.
    ///
    /// - Parameter isFound: the counter from before the server enlarged the target.
    func persistentCounter(asFound isFound: Bool) throws(IOError) -> HostCounter?

    /// The persistent change counter of a source, from a moment after it was opened and before
    /// anything was read for the run; `nil` if there is none.
    func counterOfSource() throws(IOError) -> HostCounter?

    /// The persistent change counter of a target, if it is known that no other program has written
    /// since it was claimed; `nil` otherwise.
    func counterOfOnlyWriter() throws(IOError) -> HostCounter?
}

extension Endpoint {
    func fit(_ source: inout OpenedSource, to alignment: Int) throws(IOError) -> any Endpoint {
        source.device = source.device.fitting(alignment)
        return self
    }
    var reasonForNoTail: String? { nil }
    func persistentCounter(asFound isFound: Bool) throws(IOError) -> HostCounter? { nil }
    func counterOfSource() throws(IOError) -> HostCounter? { nil }
    func counterOfOnlyWriter() throws(IOError) -> HostCounter? { nil }
    var hasGap: Bool { false }
}

typealias HostCounter = (ChangeCounter, HostRecord)

/// A source or target that is to be opened.
struct EndpointContext {
    let location: Location
    /// The server of the location; `nil` for a device of this machine.
    let server: RemoteServer?
    let endpoints: Endpoints
}
