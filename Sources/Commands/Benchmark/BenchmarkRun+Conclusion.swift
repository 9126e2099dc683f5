// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication

extension BenchmarkRun {
    /// Prints the result and the failures; returns the exit status.
    func conclude() -> ExitStatus {
        if failures.isEmpty, let path = settings.plot {
            do throws(CommandFailure) {
                try PlotFile(path).write(BenchmarkChart(result).text)
            } catch {
                failures.append(error)
            }
        }
        RunWatcher.endAtSignals()
        for failure in failures { console.error(failure.message, advice: failure.advice) }
        let status = failures.last?.status ?? .done
        var text: String?
        if given.json {
            text = json(status)
        } else if !given.quiet, !result.rows.isEmpty {
            text = result.text
        }
        if let text, !console.result(text), status == .done { return .deviceError }
        return status
    }

    private func json(_ status: ExitStatus) -> String {
        guard result.size != nil else {
            let failure = failures.last ?? interruption
            return JSON.line(FailureRecord(failure, command: "benchmark"))
        }
        return JSON.line(
            BenchmarkRecord(
                result, status: status, wasInterrupted: control.isCancelled, failures))
    }
}
