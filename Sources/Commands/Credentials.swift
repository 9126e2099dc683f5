// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// What a client shows a server.
struct Credentials: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "File with the token that the server wants (or BLKFERRY_TOKEN).", valueName: "path"))
    var tokenFile: String?

    private static let variable = "BLKFERRY_TOKEN"

    /// The token of the file, else that of the environment, else none.
    ///
    /// - Throws: wrong usage, for a file that others can read or that holds no token; the message
    ///   never has the token in it.
    func token() throws(CommandFailure) -> String? {
        do throws(WireError) {
            if let tokenFile {
                clb_forbid_core_dumps()
                return try WireProtocol.token(inFile: try readSecret(tokenFile), named: tokenFile)
            }
            guard let raw = getenv(Self.variable) else { return nil }
            clb_forbid_core_dumps()
            let token = String(cString: raw)
            // Who looks into /proc/PID/environ later does not find it.
            explicit_bzero(raw, strlen(raw))
            unsetenv(Self.variable)
            do throws(WireError) { try TokenEntry.check(token) } catch {
                throw WireError("\(Self.variable): \(error.reason)")
            }
            return token
        } catch {
            throw CommandFailure(.usage, error.reason)
        }
    }
}

/// Reads a file of secrets.
///
/// - Parameter path: the file's path.
/// - Returns: its text.
/// - Throws: where it cannot be read, is not a regular file, belongs to somebody else than root or
///   the one who runs this, or may be read or changed by others.
func readSecret(_ path: String) throws(WireError) -> String {
    var status = stat()
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw WireError("\(path): open: \(currentErrno())") }
    defer { close(file) }
    guard fstat(file, &status) == 0 else {
        throw WireError("\(path): get status: \(currentErrno())")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
        throw WireError("\(path): not a regular file")
    }
    guard status.st_uid == 0 || status.st_uid == geteuid() else {
        throw WireError("\(path): it belongs to somebody else")
    }
    guard status.st_mode & (S_IRWXG | S_IRWXO) == 0 else {
        throw WireError("\(path): others can read or change it: chmod 600 it")
    }
    guard let text = readSmallFile("/proc/self/fd/\(file)") else {
        throw WireError("\(path): read: \(currentErrno())")
    }
    return text
}
