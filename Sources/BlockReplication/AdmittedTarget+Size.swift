// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import SyncEngine

/// A target that a run extended and then did not write to.
extension AdmittedTarget {
    /// Restores the size that an image had before the run; a logical volume keeps its new size.
    ///
    /// - Returns: a warning if the target stays larger than before the run.
    func giveSizeBack() -> String? {
        let now = device.geometry.size
        guard !wasCreated, sizeBefore < now else { return nil }
        let kept = "\(device.name): it was extended from \(sizeBefore) to \(now) bytes and stays so"
        guard device.isImage else { return kept }
        do throws(IOError) {
            // Another program may have extended it further.
            try device.checkIdentity()
            try device.resize(to: sizeBefore)
            try device.flush()
            return nil
        } catch {
            return "\(kept): \(error.reason)"
        }
    }
}

extension OpenPair {
    /// Restores the size of an image that a failed run extended, if the run wrote nothing.
    ///
    /// If the run wrote something, the next run continues with it, also behind the old end.
    ///
    /// - Parameters:
    ///   - result: of the run.
    ///   - isRefused: whether the run was refused after the target was opened.
    /// - Returns: a warning if the target stays larger than before the run.
    func sizeWarning(after result: SyncReport, isRefused: Bool) -> String? {
        let tally = result.tally
        let hasFailed =
            isRefused || result.failure != nil || result.flushError != nil || result.wasInterrupted
            || tally.writeErrorCount > 0
        guard action.writes, hasFailed else { return nil }
        let now = targetEnd.device.geometry.size
        guard !targetEnd.wasCreated, targetEnd.sizeBefore < now else { return nil }
        // A lost server cannot resize the image, and a cut would remove bytes of other programs.
        let isUntouched =
            tally.extents == 0 && tally.writeErrorCount == 0 && result.flushError == nil
            && result.failure?.isNetwork != true && !result.targetChanged && !hasLostTarget
        if isUntouched { return targetEnd.giveSizeBack() }
        return
            "\(target): it was extended from \(targetEnd.sizeBefore) to \(now) bytes and stays so"
    }
}
