// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import LinuxIO
internal import WireProtocol

/// `blkferry digest`: writes the hash tree of a device to a file.
struct Digest: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write the hash tree of SOURCE to a file, and print its root hash.",
        discussion: """
            The file is a hash tree of dm-verity, which veritysetup verifies, too. blkferry verify \
            --digest compares a device with it.
            """)

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("The file; one of an earlier run is replaced.", valueName: "file"),
        completion: .file())
    var output: String

    @Option(
        name: [.customShort("c"), .long],
        help: ArgumentHelp(
            "Worker threads (default: two a processor, four with a server; two for a rotational "
                + "disk).", valueName: "n"))
    var concurrency: Int?

    @OptionGroup var credentials: Credentials

    @Option(help: "Progress on standard error: auto, bar, json or none.")
    var progress = ProgressStyle.auto

    @Flag(help: "Print the result as one JSON object.")
    var json = false

    @Flag(name: .shortAndLong, help: "Tell more.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Print errors and warnings only.")
    var quiet = false

    @Argument(help: "What is read.", completion: .file(), transform: Location.parsed)
    var source: Result<Location, WireError>

    private var options: Replication.Options {
        var options = Replication.Options()
        options.concurrency = concurrency
        return options
    }

    private var location: Location {
        get throws(ReplicationError) { try Operands.source(source) }
    }

    func validate() throws {
        let location: Location
        do throws(ReplicationError) {
            try options.check()
            location = try self.location
        } catch {
            throw ValidationError(error.message)
        }
        if output.isEmpty { throw ValidationError("--output: a file is missing") }
        if output == "-" {
            throw ValidationError(
                "--output -: the file is complete only at the end; name one, such as ./-")
        }
        if output.hasSuffix("/") { throw ValidationError("--output \(output): is a directory") }
        guard let remote = location.remote else { return }
        do throws(WireError) { try credentials.check(remote) } catch {
            throw ValidationError(error.reason)
        }
    }

    func run() throws {
        let console = Console(isVerbose: verbose, isQuiet: quiet)
        do throws(CommandFailure) {
            let report = try digest(console)
            let isPrinted = console.result(
                json ? JSON.line(Record(report, try name, output)) : report.digests.text)
            throw CommandFailure(isPrinted ? .done : .deviceError, "")
        } catch {
            // The file is complete, and a result that could not be printed has its message.
            if error.message.isEmpty { throw CommandEnd(status: error.status) }
            console.error(error.message, advice: error.advice)
            if json { console.result(JSON.line(FailureRecord(error, command: "digest"))) }
            throw CommandEnd(status: error.status)
        }
    }
}

extension Digest {
    private var name: String {
        get throws(CommandFailure) {
            do throws(ReplicationError) { return "\(try location)" } catch {
                throw CommandFailure(error)
            }
        }
    }

    private func digest(_ console: Console) throws(CommandFailure) -> DigestRun.Report {
        defer { RunWatcher.endAtSignals() }
        var options = options
        options.access = try credentials.access()
        let location: Location
        do throws(ReplicationError) { location = try self.location } catch {
            throw CommandFailure(error)
        }
        credentials.warn(of: options.access.token, to: [location.remote].compactMap { $0 }, console)
        let control = Replication.Control()
        let display = ProgressDisplay(progress, console)
        let (access, output) = (options, output)
        do throws(ReplicationError) {
            // On a thread of its own, so that a signal ends the program even while a device does
            // not answer.
            let run = try Threads.apart {
                Result { () throws(ReplicationError) in
                    try DigestRun(location, output: output, options: access, control: control) {
                        console.show($0)
                    }
                }
            }.get()
            for warning in run.warnings { console.warning(warning) }
            return try RunWatcher.watch(
                control, display, target: output, console,
                messages: .init(
                    second: "\(output): write: interrupted twice before it had finished",
                    advice: "Remove \(output).draft.*, and run it again.")
            ) {
                Result { () throws(ReplicationError) in try run.run() }
            }.get()
        } catch {
            throw CommandFailure(error)
        }
    }

    /// The result for `--json`; see docs/json.md.
    private struct Record: Encodable {
        var command = "digest"
        var source: String
        var output: String
        var size: Int
        var rootHash: String
        var tailHash: String?
        var uuid: String
        var outputSize: Int
        var seconds: Double
        var exitStatus: Int32 = 0

        init(_ report: DigestRun.Report, _ source: String, _ output: String) {
            self.source = source
            self.output = output
            size = report.size
            let parts = report.digests.text.split(separator: ":").map(String.init)
            rootHash = parts[0]
            tailHash = parts.count > 1 ? parts[1] : nil
            uuid = report.uuid
            outputSize = report.fileSize
            seconds = report.seconds
        }
    }
}
