// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import CTestSupport
internal import Foundation
internal import Glibc

/// Lets signals end the processes that this thread forks; `Threads` blocks them.
package func unblockSignals() {
    var none = sigset_t()
    sigemptyset(&none)
    pthread_sigmask(SIG_SETMASK, &none, nil)
}

extension DeviceMapper {
    /// A client of a device mapper that answers as files in a directory tell; see
    /// `cts_mapper_ioctl`.
    package static func scripted(in directory: String) -> DeviceMapper {
        _ = FileManager.default.createFile(atPath: "\(directory)/control", contents: nil)
        var mapper = DeviceMapper(directory: directory)
        mapper.call = cts_mapper_ioctl
        return mapper
    }
}
