// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import Logging

/// Standard error as a stream of systemd's journal, where each line may have a priority.
enum Journal {
    /// Whether standard error is the stream of JOURNAL_STREAM (systemd.exec(5)).
    static let isStandardError: Bool = {
        var status = stat()
        guard let stream = getenv("JOURNAL_STREAM"), fstat(STDERR_FILENO, &status) == 0 else {
            return false
        }
        return String(cString: stream) == "\(status.st_dev):\(status.st_ino)"
    }()

    /// What goes before a line (sd-daemon(3)); empty where standard error is no stream of the
    /// journal.
    static func prefix(of level: Logger.Level) -> String {
        guard isStandardError else { return "" }
        return switch level {
        case .trace, .debug: "<7>"
        case .info: "<6>"
        case .notice: "<5>"
        case .warning: "<4>"
        case .error: "<3>"
        case .critical: "<2>"
        }
    }
}

/// Writes log events into the journal, which adds the time.
struct JournalLogHandler: LogHandler {
    let label: String
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let fields = metadata.merging(event.metadata ?? [:]) { $1 }
            .sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value) " }.joined()
        Console().log(event.level, ["\(label): \(fields)[\(event.source)] \(event.message)"])
    }
}
