// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension InventoryEntry {
    /// Removes the signatures that belong to an assembled array.
    ///
    /// A member of a mirror with its superblock at the end shows the mirror's file system, but
    /// `UUID=` means the mirror. Only signatures that the array shows as well are removed:
    /// otherwise the file system beside the superblock is not the array's.
    ///
    /// - Parameter holders: the devices that are made of this one.
    mutating func leaveOut(whatIsOn holders: [InventoryEntry]) {
        let shown = holders.flatMap { $0.content?.found ?? [] }
        content = content?.filter { signature in
            signature.usage == .raid || !shown.contains { $0.isCopy(of: signature) }
        }
    }
}
