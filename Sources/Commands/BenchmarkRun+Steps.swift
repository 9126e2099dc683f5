// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SyncEngine
internal import SystemPackage

extension BenchmarkRun {
    /// A step is over since somebody wanted so.
    var interruption: CommandFailure {
        CommandFailure(.interrupted, "\(given.target): benchmark: interrupted")
    }

    /// What makes the target equal again, should the benchmark not get to it.
    var repair: String {
        let allowed =
            (options.sizePolicy.map { ["--size-policy", $0.rawValue] } ?? [])
            + (options.overwrites ? ["--overwrite"] : [])
        let words = ["blkferry"] + allowed + [given.source, given.target]
        return "This makes it equal again: \(words.joined(separator: " "))"
    }

    /// How it syncs once the target is a replica: what the benchmark has made of it looks like
    /// nothing, or like anything.
    private var restoring: Replication.Options {
        var options = options
        options.overwrites = true
        return options
    }

    /// Makes the target equal to the source.
    ///
    /// - Parameters:
    ///   - isFirst: nothing has been written yet, and the gate allows no more than the user does.
    ///   - control: of the sync.
    /// - Returns: what it came to.
    /// - Throws: why it is not equal, or not known to be on the medium.
    func sync(
        isFirst: Bool = false, _ control: RunControl
    ) throws(CommandFailure) -> BenchmarkSync {
        do throws(CommandFailure) {
            if !isFirst { try checkIdentity() }
            let sync = try BenchmarkSync(
                sourcePath, targetPath, isFirst ? options : restoring, control)
            for warning in sync.warnings { warn(warning) }
            if !isFirst {
                isChanged = false
                result.isEqual = true
            }
            return sync
        } catch {
            // Which sync it was does not matter to the user.
            if !isFirst && error.status == .interrupted { throw interruption }
            throw isFirst ? error : afterwards(error)
        }
    }

    /// A refusal is no refusal once something was written.
    private func afterwards(_ failure: CommandFailure) -> CommandFailure {
        guard failure.status == .refused else { return failure }
        return CommandFailure(.deviceError, failure.message, advice: failure.advice)
    }

    /// Changes the target through the gate, and leaves nothing of it open or in the page cache.
    ///
    /// - Parameters:
    ///   - runs: what to change.
    ///   - block: bytes.
    /// - Returns: bytes that were changed.
    /// - Throws: an error of the device, why the gate does not admit it any more, or the interruption.
    func change(_ runs: ChangedRuns, block: Int) throws(CommandFailure) -> Int {
        guard let source else { preconditionFailure("nothing to change yet") }
        try checkIdentity()
        let target: AdmittedTarget
        do throws(ProbeError) {
            target = try SafetyGate.admit(
                targetPath, source: source, policy: restoring.policy(isDryRun: false))
        } catch {
            throw afterwards(CommandFailure(error))
        }
        do throws(IOError) {
            guard target.resizeTo == nil, target.device.geometry.size >= source.size else {
                throw IOError(given.target, "change", reason: "its size has changed meanwhile")
            }
            isChanged = true
            result.isEqual = false
            let changed = try invert(runs, of: target.device, block: block) { control.isCancelled }
            for relative in target.relatives {
                BlockSpecialFile.writeBackCache(of: relative, dropping: true)
            }
            if !control.isCancelled { return changed }
        } catch {
            throw CommandFailure(error)
        }
        throw interruption
    }

    /// Names of devices are given anew; what was a replica a moment ago must still be meant.
    private func checkIdentity() throws(CommandFailure) {
        do throws(Errno) {
            let now = try FileStatus(path: targetPath)
            let isSame = identity.map {
                (now.fileSystem, now.inode, now.device) == ($0.fileSystem, $0.inode, $0.device)
            }
            if isSame == true { return }
        } catch {
            throw CommandFailure(IOError(given.target, "benchmark", error))
        }
        throw CommandFailure(
            .deviceError, "\(given.target): benchmark: it is another device or file now")
    }

    /// Undoes the change of a step that did not get to its end; a wish to end does not stop it.
    func restore() {
        tell("making \(given.target) equal to \(given.source) again")
        do throws(CommandFailure) {
            _ = try sync(RunControl())
        } catch {
            failures.append(error)
            failures.append(
                CommandFailure(
                    error.status,
                    "\(given.target): benchmark: it now differs from \(given.source)",
                    advice: repair))
        }
    }

    /// Has the page cache give back what it holds of the two, so that everybody starts alike.
    func dropCaches() {
        for text in [sourcePath, targetPath] where !given.isRemote(text) {
            // A cache that stays costs a fair comparison, not the result.
            guard let file = try? OwnedDescriptor.open(text, flags: O_RDONLY) else { continue }
            try? file.synchronizeData()
            file.dropCachedPages()
        }
    }

    /// Says what is under way.
    func tell(_ text: String) {
        guard !console.isQuiet else { return }
        // A bar may stand on the line.
        console.status("\(console.isTerminal ? "\r\u{1B}[K" : "")blkferry: \(printable(text))\n")
    }

    /// Warns, of the same thing once.
    func warn(_ text: String) {
        guard !result.warnings.contains(text) else { return }
        result.warnings.append(text)
        console.warning(text)
    }
}
