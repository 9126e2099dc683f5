// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeltaFile
internal import DeviceProbe
internal import LinuxIO
internal import WireProtocol

extension DigestFile: BaseDigests {
    var size: Int { shape.size }
    var block: Int { VerityShape.block }
    var identity: String { digests.text }
}

extension DeltaCreation {
    /// Writes the delta from a base of which there is only a file of `blkferry digest`.
    func write(
        _ source: Selector, as name: String, fromDigests path: String, isSound: () -> Bool
    ) throws(IOError) -> Report {
        let start = ContinuousClock.now
        try checkOutput(besides: source)
        let digests = try DigestFile(path, pin: options.pinnedDigests) { control.isCancelled }
        let new = try openSource(source, as: name)
        for warning in new.warnings { events(.warning(warning)) }
        let counter = new.device.changeCounter()
        let (sink, directory) = try openOutput()
        let maker = DigestDeltaMaker(
            result: new.device, name: name, base: digests, directory: directory,
            isCancelled: { [control] in control.isCancelled })
        let made = try maker.write(to: sink) { () throws(IOError) in
            try new.device.checkIdentity()
            if !isSound() { throw changed(name) }
        }
        var report = Report(made, new.warnings, start)
        noteChange(of: new, since: counter, as: name, &report)
        return report
    }

    func noteChange(
        of new: OpenedSource, since counter: ChangeCounter?, as name: String, _ report: inout Report
    ) {
        guard new.device.changeCounter() != counter else { return }
        report.closingWarnings.append(
            "\(name): changed while it was read: the delta may lead to a mixture of old and new")
    }
}
