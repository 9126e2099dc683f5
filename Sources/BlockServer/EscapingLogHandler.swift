// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
package import Logging

/// Escapes log events, so that a name or a path cannot forge lines of the log.
///
/// Names of files, paths and headers come from clients, names of volumes from disks. Control
/// characters become `\n` or `\u{1b}`. A value with a space, a quote or `=` is quoted, so that it
/// cannot pass for two fields.
package struct EscapingLogHandler: LogHandler {
    private var handler: any LogHandler

    package init(_ handler: any LogHandler) { self.handler = handler }

    package var logLevel: Logger.Level {
        get { handler.logLevel }
        set { handler.logLevel = newValue }
    }

    package var metadata: Logger.Metadata {
        get { handler.metadata }
        set { handler.metadata = newValue }
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { handler[metadataKey: key] }
        set { handler[metadataKey: key] = newValue }
    }

    package func log(event: LogEvent) {
        handler.log(
            event: LogEvent(
                level: event.level, message: "\(escaped(event.message.description))",
                metadata: event.metadata?.mapValues(Self.escape), source: event.source,
                file: event.file, function: event.function, line: event.line))
    }

    private static func escape(_ value: Logger.Metadata.Value) -> Logger.Metadata.Value {
        let text = escaped("\(value)")
        guard text.unicodeScalars.contains(where: { " \"=".unicodeScalars.contains($0) }) else {
            return .string(text)
        }
        return .string("\"\(text.replacing("\"", with: "\\\""))\"")
    }
}

extension Logger {
    var escaping: Logger {
        if handler is EscapingLogHandler { return self }
        var logger = self
        logger.handler = EscapingLogHandler(handler)
        return logger
    }
}
