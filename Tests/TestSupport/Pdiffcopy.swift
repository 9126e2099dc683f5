// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Foundation
internal import Glibc
internal import LinuxIO

/// The real pdiffcopy, which `tools/pdiffcopy` installs.
package enum Pdiffcopy {
    /// The program; `tools/test` sees to it that it is there.
    package static let program =
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent(".build/pdiffcopy/bin/pdiffcopy").path

    fileprivate static let python =
        URL(fileURLWithPath: program).deletingLastPathComponent().appendingPathComponent("python3")
        .path

    /// Runs its client to the end.
    package static func client(_ arguments: [String]) throws -> ProgramResult {
        try RunningProgram([program] + arguments).wait()
    }

    /// Its server on a loopback port, ended when the test forgets it.
    ///
    /// It serves every path of this machine.
    package final class Server {
        private let process: RunningProgram
        private let reservation: OwnedDescriptor
        package let port: Int

        /// Starts it and waits until it answers.
        ///
        /// - Throws: when it does not come to listen.
        package init() throws {
            // It takes 0 for its default port.
            let reservation = try Loopback.reservePort()
            port = try Loopback.port(of: reservation)
            self.reservation = reservation
            process = try RunningProgram([
                Pdiffcopy.python, "-c", Self.hearing, Pdiffcopy.program,
                "--listen=127.0.0.1:\(port)", "--concurrency=2",
            ])
            for _ in 0..<1000 {
                if try process.errorsSoFar().contains("Listening at") { return }
                guard process.isRunning else { break }
                usleep(20_000)
            }
            throw NotListening(errors: try process.errorsSoFar())
        }

        /// Starts what is named with no signal blocked; libdispatch's threads, which may run a test,
        /// block nearly all.
        private static let hearing = """
            import os, signal, sys
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execv(sys.argv[1], sys.argv[1:])
            """

        /// Ends it, whatever it is doing.
        package func stop() throws {
            process.signal(SIGQUIT)
            _ = try process.wait()
        }

        // Its workers end when it has. Other signals may be blocked, as they were in the thread that
        // started it.
        deinit {
            process.signal(SIGKILL)
            _ = try? process.wait()
        }

        /// The URL of a file.
        package func url(_ path: String) -> String { "http://127.0.0.1:\(port)\(path)" }

        package func log() throws -> String { try process.errorsSoFar() }
    }
}
