// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import TestSupport
import Testing

@Suite struct SubstitutedDeviceTests {
    @Test func `a device that shows other bytes tells of other programs as its base does`() {
        let device = SubstitutedDevice(BusyDevice(), Patch([1], at: 0), as: [2])
        #expect(device.hasForeignWrites() && device.hadOtherWriters())
        #expect(device.changeCounter() == ChangeCounter([1]))
        #expect(device.persistentChangeCounter() == ChangeCounter([2]))
        #expect(device.reasonForNoCounter == "it is busy")
        #expect(throws: IOError.self) { try device.checkIdentity() }
    }

    @Test func `a device that shows other bytes of an image is no image itself`() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("image", size: 8192)
        let image: any BlockDevice = try ImageFile(path: path, name: path, access: .read)
        #expect(image.isImage && image.fileStatus?.kind == .regular)
        let wrapper: any BlockDevice = SubstitutedDevice(image, Patch([1], at: 0), as: [2])
        #expect(!wrapper.isImage && wrapper.fileStatus == nil)
        #expect(wrapper.isDirect && wrapper.isFlushable && !wrapper.isRemote)
    }
}

/// A device to which other programs have done everything.
private final class BusyDevice: BlockDevice {
    let name = "busy"
    let geometry = Geometry(size: 4096, logicalSector: 512, alignment: 512)

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {}
    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {}
    func zero(_ range: ByteRange) throws(IOError) {}
    func flush() throws(IOError) {}
    func checkIdentity() throws(IOError) { throw IOError(name, "check", reason: "it is gone") }
    func hasForeignWrites() -> Bool { true }
    func hadOtherWriters() -> Bool { true }
    func changeCounter() -> ChangeCounter? { ChangeCounter([1]) }
    func persistentChangeCounter() -> ChangeCounter? { ChangeCounter([2]) }
    var reasonForNoCounter: String? { "it is busy" }
}
