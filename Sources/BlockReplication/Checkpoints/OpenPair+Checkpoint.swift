// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import WireProtocol

/// Both sides as a checkpoint needs them.
extension OpenPair {
    /// A side as it was found; its change counter is from before the run has read or written
    /// anything.
    func side(_ side: Side) throws(ReplicationError) -> CheckpointSide {
        do throws(IOError) {
            switch side {
            case .source:
                return try self.side(
                    source, endpoints.source, sourceEnd.facts.size,
                    endpoints.source.counterOfSource(), sourceEnd.device)
            case .target:
                return try self.side(
                    target, endpoints.target, targetEnd.sizeBefore,
                    endpoints.target.persistentCounter(asFound: true), targetEnd.device)
            }
        } catch {
            throw ReplicationError(error)
        }
    }

    /// The target as the run leaves it; without a counter unless it is known that no other program
    /// has written.
    func sideOfOnlyWriter() throws(ReplicationError) -> CheckpointSide {
        do throws(IOError) {
            return try side(
                target, endpoints.target, targetEnd.device.geometry.size,
                endpoints.target.counterOfOnlyWriter(), targetEnd.device)
        } catch {
            throw ReplicationError(error)
        }
    }

    private func side(
        _ name: String, _ endpoint: any Endpoint, _ size: Int, _ counter: HostCounter?,
        _ device: any BlockDevice
    ) throws(IOError) -> CheckpointSide {
        let words = try endpoint.identity()
        var side = CheckpointSide(name: name, identity: words.joined(separator: " "), size: size)
        do throws(ReplicationError) {
            if let mark = try mark(of: counter), let boot = counter?.1.boot {
                side.counter = (boot, mark)
            }
        } catch {
            throw IOError(name, "read its change counter", reason: error.message)
        }
        if counter == nil {
            side.reasonForNone =
                device.isRemote && device.isImage && name == source
                ? "its server only reads it" : device.reasonForNoCounter
        }
        return side
    }
}
