// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import DeviceProbe
package import Digests
package import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// Opens a file of a pdiffcopy server as a source or a target.
///
/// pdiffcopy has no gate, so the client reads the file's ends and runs the gate itself.
extension PdiffcopyServer {
    /// Opens the file for reading; throws if it does not exist, is a device or is empty.
    ///
    /// - Parameters:
    ///   - block: bytes.
    ///   - digest: `nil` for pdiffcopy's default.
    ///   - concurrency: hashing processes on the server; `nil` for the server's default.
    package func source(
        block: Int, digest: DigestMethod? = nil, concurrency: Int? = nil
    ) throws(IOError) -> OpenedSource {
        guard let size = try size() else {
            throw IOError(name, "open", .noSuchFileOrDirectory)
        }
        if size == 0 {
            throw try holdsBytes()
                ? asDevice
                : IOError(
                    name, "open",
                    reason: "its size is 0: it is empty, has no medium or is not attached")
        }
        let device = try PdiffcopyDevice(
            self, size: size, block: block, method: digest, concurrency: concurrency)
        return OpenedSource(
            device: device,
            facts: SourceFacts(
                name: name, size: size, content: try content(size: size), logicalSector: nil,
                identity: nil),
            warnings: warnings(isTarget: false))
    }

    /// Runs the gate on the file as a target, without writing to it or creating it.
    ///
    /// In a dry run the device has the size that the file would get.
    package func target(
        for source: SourceFacts, policy: GatePolicy, block: Int, digest: DigestMethod? = nil,
        concurrency: Int? = nil
    ) throws(IOError) -> AdmittedTarget {
        let size = try self.size()
        let content = try self.content(size: size ?? 0)
        if size == 0, try holdsBytes() { throw asDevice }
        if size ?? 0 == 0 { try refuseKernelFile() }
        var resizeTo: Int? = source.size
        var warnings = warnings(isTarget: true)
        if let size {
            let verdict = try SafetyGate.check(
                image: name, size: size, content: content, source: source, policy: policy)
            resizeTo = verdict.resizeTo
            warnings += verdict.warnings
        }
        return AdmittedTarget(
            device: try PdiffcopyDevice(
                self, size: size ?? 0, seenAs: policy.isDryRun ? resizeTo : nil,
                block: block, method: digest, concurrency: concurrency),
            kind: .image, sizeBefore: size ?? 0, resizeTo: resizeTo,
            wasCreated: size == nil, warnings: warnings)
    }

    /// The error for a device, whose size pdiffcopy reports as 0.
    private var asDevice: IOError {
        IOError(
            name, "open",
            reason: "pdiffcopy reports a size of 0: it is a device, or not an image",
            advice: "blkferry serve offers devices.")
    }

    /// Refuses a missing file below /dev, /proc or /sys; it is likely a mistyped device, and a file
    /// there would fill the server's memory.
    private func refuseKernelFile() throws(IOError) {
        let place = FilePath(path).lexicallyNormalized()
        guard ["/dev", "/proc", "/sys"].contains(where: { place.starts(with: FilePath($0)) }) else {
            return
        }
        throw .refusal(
            .wrongKind, name, "a pdiffcopy server has no devices, only files",
            advice: "blkferry serve offers devices.")
    }

    /// Reads the ends of the file, and probes them for signatures.
    private func content(size: Int) throws(IOError) -> Content {
        let body = ResponseBody(limit: Limits.payload)
        do {
            let image = try SampledImage(size: size)
            for range in SampledImage.samples(ofSize: size) {
                try read(range, into: body)
                try image.fill(body.bytes, at: range.offset)
            }
            return try image.content()
        } catch let error as IOError {
            throw error
        } catch let error as Errno {
            throw IOError(name, "probe", error)
        } catch {
            throw IOError(name, "probe", reason: "\(error)")
        }
    }

    private func warnings(isTarget: Bool) -> [String] {
        var warnings = ["\(name): a pdiffcopy server: it locks nothing and checks no rights"]
        if isTarget {
            warnings.append(
                "\(name): it does not flush: a power failure may lose what it has written")
        }
        if hasToken {
            warnings.append("\(name): it takes no token, so the given token is not sent")
        }
        return warnings
    }
}
