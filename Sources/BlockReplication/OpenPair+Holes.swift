// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import SyncEngine

extension OpenPair {
    /// Makes a source that is a thin volume report as holes what its pool has not mapped.
    ///
    /// If that cannot be determined, a note has the reason, and all of the volume is read.
    ///
    /// - Returns: the source's change counter from before; `nil` if no holes were found.
    func findHoles() -> ChangeCounter? {
        do throws(IOError) {
            guard let mapped = try sourceEnd.findHoles(unless: { control.isCancelled }) else {
                return nil
            }
            events(
                .note(
                    "\(source): \(mapped.byteCount) of \(sourceEnd.facts.size) bytes are mapped; "
                        + "the others are zeros and are not read"))
            return mapped.counter
        } catch {
            if !control.isCancelled {
                events(.note("\(source): all of it is read, as its mappings are unknown: \(error)"))
            }
            return nil
        }
    }
}
