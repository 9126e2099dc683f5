// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import Synchronization

extension StreamSource {
    /// Computes the digest of a window that a thread has loaded.
    func keepDigest(of index: Int) throws(IOError) {
        var hasher = try hasher()
        let (slot, windowSize) = state.withLock { ($0.slots[index], $0.windowSize) }
        guard let slot, !slot.range.isEmpty else { return }
        let digest = try digest(of: slot.memory, slot.range, &hasher)
        let place = slot.range.offset / windowSize * digest.count
        state.withLock { state in
            // Windows end in any order.
            let missing = place + digest.count - state.digests.count
            if missing > 0 { state.digests += [UInt8](repeating: 0, count: missing) }
            state.digests.replaceSubrange(place..<place + digest.count, with: digest)
        }
    }

    private func hasher() throws(IOError) -> BlockHasher { try BlockHasher(method, key: key) }

    private func digest(
        of memory: UnsafeMutableRawBufferPointer, _ range: ByteRange, _ hasher: inout BlockHasher
    ) throws(IOError) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: method.byteCount)
        var failure: IOError?
        digest.withUnsafeMutableBytes { digest in
            do throws(IOError) {
                try hasher.digest(
                    of: UnsafeRawBufferPointer(slice(memory, 0, range.length)), into: digest)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return digest
    }

    /// Reads a target again, and compares it with the digests of what was loaded.
    ///
    /// Differences are whole windows.
    func check(
        _ target: any BlockDevice, threads: Int, _ control: RunControl
    ) -> (SyncReport.Verification, IOError?) {
        let (digests, windowSize, length) = state.withLock {
            ($0.digests, $0.windowSize, $0.position)
        }
        let found = Mutex(
            (
                result: SyncReport.Verification(
                    compared: 0, read: 0, different: 0, firstDifferences: []),
                ranges: LowestRanges(limit: 64), next: 0, failure: IOError?.none
            ))
        Threads.start(count: threads) { _ in
            do throws(IOError) {
                var hasher = try self.hasher()
                let buffer = AlignedBuffer(count: max(1, windowSize))
                while let range = found.withLock({ found -> ByteRange? in
                    guard found.failure == nil, !control.isCancelled, found.next < length else {
                        return nil
                    }
                    let range = ByteRange(found.next, to: min(found.next + windowSize, length))
                    found.next = range.end
                    return range
                }) {
                    let bytes = slice(buffer.bytes, 0, range.length)
                    try target.read(into: bytes, at: range.offset)
                    let digest = try self.digest(of: bytes, range, &hasher)
                    let place = range.offset / windowSize * digest.count
                    let isSame = digest.elementsEqual(digests[place..<place + digest.count])
                    found.withLock { found in
                        found.result.compared += range.length
                        found.result.read += range.length
                        guard !isSame else { return }
                        found.result.different += range.length
                        found.ranges.insert(range)
                    }
                    control.advance(done: range.length, different: isSame ? 0 : range.length)
                }
            } catch {
                found.withLock { if $0.failure == nil { $0.failure = error } }
            }
        }.wait()
        return found.withLock { found in
            var result = found.result
            result.firstDifferences = found.ranges.ranges
            return (result, found.failure)
        }
    }
}
