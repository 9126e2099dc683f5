// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
package import WireProtocol

/// The source and the target of a run, of which one at least is a device of this machine.
package struct Operands: Sendable {
    package var source: Location
    package var target: Location

    /// Throws `invalid` with the first fault.
    package init(
        _ source: Result<Location, WireError>, _ target: Result<Location, WireError>
    ) throws(ReplicationError) {
        do throws(WireError) {
            self.source = try Self.checked(source, mayBeStream: true)
            self.target = try Self.checked(target)
            if self.source.remote != nil, self.target.remote != nil {
                throw WireError(
                    "\(self.source), \(self.target): one of them has to be a device of this machine"
                )
            }
        } catch {
            throw ReplicationError(.invalid, error.reason)
        }
    }

    package init(_ source: String, _ target: String) throws(ReplicationError) {
        try self.init(Location.parsed(source), Location.parsed(target))
    }

    /// A source alone; throws `invalid` with its fault.
    package static func source(
        _ parsed: Result<Location, WireError>
    ) throws(ReplicationError) -> Location {
        do throws(WireError) { return try checked(parsed) } catch {
            throw ReplicationError(.invalid, error.reason)
        }
    }

    private static func checked(
        _ parsed: Result<Location, WireError>, mayBeStream: Bool = false
    ) throws(WireError) -> Location {
        let location = try parsed.get()
        switch location {
        case .local(.path("")): throw WireError("a location is empty")
        case .local(.path("-")) where !mayBeStream:
            throw WireError(
                "-: only the source of a sync or verify can be standard input: name a device or an "
                    + "image; ./- is the file of that name")
        case .remote(let server) where server.selector == nil:
            throw WireError("\(location): it names a server, but no device of it")
        case .local, .remote: return location
        }
    }
}
