// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

extension BenchmarkRun {
    var interruption: CommandFailure {
        CommandFailure(.interrupted, "\(result.target): benchmark: interrupted")
    }

    /// The command that makes the target equal again, in case the benchmark cannot.
    var repair: String {
        let allowed =
            (options.sizePolicy.map { ["--size-policy", $0.rawValue] } ?? [])
            + (options.overwrites ? ["--overwrite"] : [])
        let words = ["blkferry"] + allowed + [result.source, result.target]
        return "This makes it equal again: \(words.joined(separator: " "))"
    }

    /// Options of a sync after the first one; the gate may find any or no signature on the changed
    /// target, so overwriting is permitted.
    private var restoring: Replication.Options {
        var options = options
        options.overwrites = true
        return options
    }

    /// Makes the target equal to the source.
    ///
    /// - Parameter isFirst: whether nothing was written yet, so that the gate permits only what the
    ///   user permits.
    /// - Throws: if the target is not equal, or not known to be durable.
    func sync(
        isFirst: Bool = false, _ control: Replication.Control
    ) throws(CommandFailure) -> Replication.Report {
        do throws(CommandFailure) {
            if !isFirst { try checkIdentity() }
            let report: Replication.Report
            let show = { @Sendable [console] (event: Replication.Event) in
                if case .waiting(let text) = event { console.information(text) }
            }
            do throws(ReplicationError) {
                report = try Replication(
                    .synchronize, operands, options: isFirst ? options : restoring,
                    control: control, show
                ).run()
            } catch {
                throw CommandFailure(error)
            }
            let outcome = RunResult(
                report, source: "\(operands.source)", targetPath, endsWithDifferent: false)
            if let failure = outcome.errors.last { throw failure }
            for warning in report.warnings + outcome.warnings { warn(warning) }
            if !isFirst {
                isChanged = false
                result.isEqual = true
            }
            return report
        } catch {
            if !isFirst && error.status == .interrupted { throw interruption }
            throw isFirst ? error : afterwards(error)
        }
    }

    /// Turns a refusal into a device error, since something was already written.
    private func afterwards(_ failure: CommandFailure) -> CommandFailure {
        guard failure.status == .refused else { return failure }
        return CommandFailure(.deviceError, failure.message, advice: failure.advice)
    }

    /// Changes the target through the gate, drops it from the page cache, and returns the changed
    /// bytes.
    func change(_ runs: ChangedRuns, block: Int) throws(CommandFailure) -> Int {
        guard let source else { preconditionFailure("nothing to change yet") }
        try checkIdentity()
        let target: AdmittedTarget
        do throws(IOError) {
            target = try SafetyGate.admit(
                .path(targetPath), source: source, policy: restoring.policy(isDryRun: false))
        } catch {
            throw afterwards(CommandFailure(error))
        }
        do throws(IOError) {
            guard target.resizeTo == nil, target.device.geometry.size >= source.size else {
                throw IOError(
                    result.target, "change", reason: "its size has changed during the run")
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

    /// Throws unless the path still names the target; device names may be assigned to another
    /// device.
    private func checkIdentity() throws(CommandFailure) {
        do throws(Errno) {
            let now = try FileStatus(path: targetPath)
            if identity?.isSameFile(as: now) == true { return }
        } catch {
            throw CommandFailure(IOError(result.target, "benchmark", error))
        }
        throw CommandFailure(
            .deviceError, "\(result.target): benchmark: it is another device or file now")
    }

    /// Restores the target after an incomplete step, even after a cancellation.
    func restore() {
        tell("making \(result.target) equal to \(result.source) again")
        do throws(CommandFailure) {
            _ = try sync(Replication.Control())
        } catch {
            failures.append(error)
            failures.append(
                CommandFailure(
                    error.status,
                    "\(result.target): benchmark: it now differs from \(result.source)",
                    advice: repair))
        }
    }

    /// Drops both devices from the page cache, so that every step starts alike.
    func dropCaches() {
        for case .local(let selector) in [operands.source, operands.target] {
            // A cache that stays makes the comparison unfair, but the result is correct.
            guard let file = try? OwnedDescriptor.open("\(selector)", flags: O_RDONLY)
            else { continue }
            try? file.synchronizeData()
            file.dropCachedPages()
        }
    }

    func tell(_ text: String) {
        guard !console.isQuiet else { return }
        // A progress bar may be on the line.
        console.status("\(console.isTerminal ? "\r\u{1B}[K" : "")blkferry: \(printable(text))\n")
    }

    /// Warns once about the same thing.
    func warn(_ text: String) {
        guard !result.warnings.contains(text) else { return }
        result.warnings.append(text)
        console.warning(text)
    }
}
