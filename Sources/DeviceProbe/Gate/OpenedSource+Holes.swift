// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import LogicalVolumes

extension OpenedSource {
    /// What a thin volume has mapped, and its change counter from before that was found out.
    package struct Mapped {
        /// Bytes.
        package let byteCount: Int
        /// It shows the writes that the map may lack.
        package let counter: ChangeCounter
    }

    /// Makes a thin volume report as holes what its pool has not mapped.
    ///
    /// - Returns: `nil` if the device is no thin volume, or is mapped completely.
    /// - Throws: if it cannot be determined; the device then reports no holes.
    package func findHoles(unless isCancelled: () -> Bool) throws(IOError) -> Mapped? {
        guard let device = device as? BlockSpecialFile,
            let volume = try ThinVolume(of: device.number)
        else { return nil }
        guard let counter = device.changeCounter() else {
            throw IOError(
                device.name, "find what is mapped",
                reason: "the kernel does not count its writes")
        }
        // A page that another program dirtied since the device was opened is not mapped yet. The
        // counter shows this write-back.
        try device.writeBackCache()
        guard let map = try volume.data(size: device.geometry.size, unless: isCancelled) else {
            return nil
        }
        device.reportHoles { map.next(from: $0) }
        return Mapped(byteCount: map.byteCount, counter: counter)
    }
}
