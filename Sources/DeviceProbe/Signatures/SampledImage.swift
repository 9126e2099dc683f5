// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import CLinuxBlock
internal import Glibc
package import LinuxIO
package import SystemPackage

/// An image with some known bytes; all other bytes are zeros.
///
/// This is enough to find the signatures of a device that can only be read over a network. The
/// image is a sparse file in memory.
package struct SampledImage: ~Copyable {
    /// Bytes.
    private let size: Int
    private let file: OwnedDescriptor

    /// - Parameter size: in bytes.
    package init(size: Int) throws(Errno) {
        let file = OwnedDescriptor(
            owning: try retryingInterrupts { clb_memory_file("blkferry-sample") })
        let descriptor = file.rawValue
        _ = try retryingInterrupts { ftruncate(descriptor, off_t(size)) }
        self.size = size
        self.file = file
    }

    /// The ranges of a device that hold nearly all signatures.
    ///
    /// libblkid also looks elsewhere, but ZFS and VMFS have other places within these ranges.
    package static func samples(ofSize size: Int) -> [ByteRange] {
        let length = 1 << 20
        let head = ByteRange(0, to: min(length, size))
        let tail = ByteRange(max(head.end, size - length), to: size)
        return [head, tail].filter { !$0.isEmpty }
    }

    /// Fills in known bytes.
    package func fill(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(Errno) {
        var done = 0
        while done < bytes.count {
            done += try file.writeOnce(
                UnsafeRawBufferPointer(rebasing: bytes[done...]), at: offset + done)
        }
    }

    package func content() throws(Errno) -> Content { try prober(nil).content() }

    /// The content without file formats, since images within images could nest without end.
    func guestContent() throws(Errno) -> Content {
        try prober(nil).content(findingFormats: false)
    }

    /// - Parameter sector: bytes of a logical sector of the device; `nil` for an image.
    func prober(_ sector: Int?) throws(Errno) -> Prober {
        let path = "/proc/self/fd/\(file.rawValue)"
        let identity = DeviceIdentity.image(FileIdentity(try file.status()), path: path)
        return try Prober(path: path, identity: identity, size: size, logicalSector: sector)
    }
}

extension SafetyGate {
    /// Applies the rules about content and size to an image that another program writes elsewhere.
    ///
    /// Its uses there cannot be known. The image must get the returned size in bytes, if any.
    package static func check(
        image name: String, size: Int, content: Content, source: SourceFacts, policy: GatePolicy
    ) throws(IOError) -> (resizeTo: Int?, warnings: [String]) {
        let target = TargetFacts(
            name: name, kind: .image, size: size, logicalSector: nil, content: content)
        let verdict = try TargetRules(source: source, policy: policy).apply(to: target)
        guard verdict.erased.isEmpty else {
            throw .refusal(
                .signature, name,
                "\(content) would stay behind the source's end, and its server removes nothing",
                advice: "Remove it there: wipefs --all")
        }
        return (verdict.resizeTo, verdict.warnings)
    }
}
