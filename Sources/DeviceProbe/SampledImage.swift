// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
package import SystemPackage

/// An image of which some bytes are known, and the rest is taken for zeros: enough to tell what is
/// on a device that can only be read over a network.
///
/// It is a sparse file in memory.
package struct SampledImage: ~Copyable {
    /// Bytes.
    private let size: Int
    private let file: OwnedDescriptor

    /// Makes one of zeros.
    ///
    /// - Parameter size: bytes.
    /// - Throws: what memfd_create(2) and ftruncate(2) say.
    package init(size: Int) throws(Errno) {
        let file = OwnedDescriptor(
            owning: try retryingInterrupts { clb_memory_file("blkferry-sample") })
        let descriptor = file.rawValue
        _ = try retryingInterrupts { ftruncate(descriptor, off_t(size)) }
        self.size = size
        self.file = file
    }

    /// What has to be known of a device: the places of nearly all signatures.
    ///
    /// Of those that libblkid looks for beyond, ZFS and VMFS have others within.
    package static func samples(ofSize size: Int) -> [ByteRange] {
        let length = 1 << 20
        let head = ByteRange(0, to: min(length, size))
        let tail = ByteRange(max(head.end, size - length), to: size)
        return [head, tail].filter { !$0.isEmpty }
    }

    /// Makes bytes known.
    ///
    /// - Parameters:
    ///   - bytes: what is there.
    ///   - offset: where, within the image.
    /// - Throws: what pwrite(2) says.
    package func fill(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(Errno) {
        var done = 0
        while done < bytes.count {
            done += try file.writeOnce(
                UnsafeRawBufferPointer(rebasing: bytes[done...]), at: offset + done)
        }
    }

    /// What is on it.
    ///
    /// - Throws: what open(2) says.
    package func content() throws(Errno) -> Content {
        let path = "/proc/self/fd/\(file.rawValue)"
        let identity = DeviceIdentity.image(FileIdentity(try file.status()), path: path)
        return try Prober(path: path, identity: identity, size: size, logicalSector: nil).content()
    }
}

extension SafetyGate {
    /// Applies the rules about content and size to an image that another program writes, on another
    /// machine.
    ///
    /// Who uses it there cannot be known.
    ///
    /// - Parameters:
    ///   - name: what the user calls the image.
    ///   - size: bytes.
    ///   - content: what is on it.
    ///   - source: what it is to become a replica of.
    ///   - policy: what the user has allowed.
    /// - Returns: the size that it has to get, in bytes, where that is another, and warnings.
    /// - Throws: the first rule's refusal.
    package static func judge(
        image name: String, size: Int, content: Content, source: SourceFacts, policy: GatePolicy
    ) throws(ProbeError) -> (resizeTo: Int?, warnings: [String]) {
        let target = TargetFacts(
            name: name, kind: .image, size: size, logicalSector: nil, content: content)
        do throws(Refusal) {
            let verdict = try TargetRules(source: source, policy: policy).apply(to: target)
            return (verdict.resizeTo, verdict.warnings)
        } catch {
            throw .refused(error)
        }
    }
}
