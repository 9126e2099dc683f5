// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

extension DeviceMapper {
    /// Reads a device's table or status; throws also if the device does not have exactly one
    /// target.
    func target(
        _ question: Question, of device: String
    ) throws(IOError) -> MapperTable.Target {
        let targets: [MapperTable.Target]
        do throws(IOError) { targets = try answer(question, of: device).targets } catch {
            throw .noChangeMap(device, error.description, advice: error.advice)
        }
        guard targets.count == 1 else {
            throw .noChangeMap(device, "it has \(targets.count) targets, not one")
        }
        return targets[0]
    }

    /// Reads how many bytes a thin volume with a device mapper name has mapped; `nil` if unknown,
    /// such as for an inactive one.
    ///
    /// Source: `thin_status` in drivers/md/dm-thin.c: sectors of the mapped chunks, and the last
    /// mapped sector.
    func mappedBytes(of volume: String) -> Int? {
        guard let target = try? target(.status, of: volume),
            target.type == "thin", let sectors = target.words.first.flatMap({ Int($0) }),
            (0...Int.max / 512).contains(sectors)
        else { return nil }
        return sectors * 512
    }
}
