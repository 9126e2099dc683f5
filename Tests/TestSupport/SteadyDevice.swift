// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// A device that no other program can reach, unless it says otherwise.
///
/// For test doubles that are no wrappers. A wrapper asks its base.
package protocol SteadyDevice: BlockDevice {}

extension SteadyDevice {
    package func checkIdentity() throws(IOError) {}
    package func hasForeignWrites() -> Bool { false }
    package func hadOtherWriters() -> Bool { false }
    package func changeCounter() -> ChangeCounter? { nil }
    package func persistentChangeCounter() -> ChangeCounter? { nil }
    package var reasonForNoCounter: String? { nil }
}
