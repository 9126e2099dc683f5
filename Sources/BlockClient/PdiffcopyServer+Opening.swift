// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import DeviceProbe
package import Digests
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// How a file of a pdiffcopy server becomes a source or a target.
///
/// The gate that a server of ours would have is here: what can be known of the file is read.
extension PdiffcopyServer {
    /// What the user wants of a comparison.
    package struct Wishes: Sendable {
        /// Bytes of a block.
        package var block: Int
        /// `nil` for that of pdiffcopy.
        package var digest: DigestMethod?
        /// Processes of the server that hash; `nil` for as many as it likes.
        package var concurrency: Int?

        package init(block: Int, digest: DigestMethod?, concurrency: Int?) {
            self.block = block
            self.digest = digest
            self.concurrency = concurrency
        }
    }

    /// A file to read, and what is known of it.
    package struct Source: Sendable {
        package var device: PdiffcopyDevice
        package var facts: SourceFacts
        package var warnings: [String]
    }

    /// A file that may be written to.
    package struct Target: Sendable {
        /// In a dry run it has the size that the file would get.
        package var device: PdiffcopyDevice
        /// Bytes; 0 for a file that is not there.
        package var sizeBefore: Int
        /// Bytes that it has to be resized to; `nil` when its size stays.
        package var resizeTo: Int?
        /// Whether it is not there yet; resizing it creates it.
        package var wasCreated: Bool
        package var warnings: [String]
    }

    /// Opens the file for reading.
    ///
    /// - Throws: where it is missing, is a device or empty; errors of the network.
    package func source(_ wishes: Wishes) throws(ProbeError) -> Source {
        do throws(IOError) {
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
                self, size: size, block: wishes.block, method: wishes.digest,
                concurrency: wishes.concurrency)
            return Source(
                device: device,
                facts: SourceFacts(
                    name: name, size: size, content: try content(size: size), logicalSector: nil,
                    identity: nil),
                warnings: warnings(isTarget: false))
        } catch {
            throw .failed(error)
        }
    }

    /// Judges the file as a target; nothing is written, and none is created.
    ///
    /// - Parameters:
    ///   - source: what it is to become a replica of.
    ///   - policy: what the user has allowed.
    ///   - wishes: how.
    /// - Returns: the file.
    /// - Throws: a refusal; errors of the network.
    package func target(
        for source: SourceFacts, policy: GatePolicy, _ wishes: Wishes
    ) throws(ProbeError) -> Target {
        let size: Int?
        let content: Content
        do throws(IOError) {
            size = try self.size()
            content = try self.content(size: size ?? 0)
            if size == 0, try holdsBytes() { throw asDevice }
        } catch {
            throw .failed(error)
        }
        if size ?? 0 == 0 { try refuseKernelFile() }
        var resizeTo: Int? = source.size
        var warnings = warnings(isTarget: true)
        if let size {
            let verdict = try SafetyGate.judge(
                image: name, size: size, content: content, source: source, policy: policy)
            resizeTo = verdict.resizeTo
            warnings += verdict.warnings
        }
        do throws(IOError) {
            return Target(
                device: try PdiffcopyDevice(
                    self, size: size ?? 0, seenAs: policy.isDryRun ? resizeTo : nil,
                    block: wishes.block, method: wishes.digest, concurrency: wishes.concurrency),
                sizeBefore: size ?? 0, resizeTo: resizeTo, wasCreated: size == nil,
                warnings: warnings)
        } catch {
            throw .failed(error)
        }
    }

    /// What cannot be read of a device.
    private var asDevice: IOError {
        IOError(
            name, "open", reason: "pdiffcopy takes it for empty: it is a device, or no image",
            advice: "blkferry serve offers devices.")
    }

    /// A file among the device files is a mistyped device, and would fill the memory.
    private func refuseKernelFile() throws(ProbeError) {
        let place = FilePath(path).lexicallyNormalized()
        guard ["/dev", "/proc", "/sys"].contains(where: { place.starts(with: FilePath($0)) }) else {
            return
        }
        throw .refused(
            Refusal(
                .wrongKind, name, "a pdiffcopy server has no devices, only files",
                advice: "blkferry serve offers devices."))
    }

    /// What is on the file, as far as its ends tell.
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
        var warnings = ["\(name): a pdiffcopy server: it locks nothing and lets everybody in"]
        if isTarget {
            warnings.append("\(name): it does not flush: what it writes may be lost with its power")
        }
        if hasToken { warnings.append("\(name): it takes no token, and is not sent the one given") }
        return warnings
    }
}
