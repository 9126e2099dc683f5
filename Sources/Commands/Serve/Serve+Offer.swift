// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockServer
internal import Glibc
internal import LinuxIO
internal import Logging
internal import WireProtocol

/// What a server offers, and to whom; read at its start and again at SIGHUP.
extension Serve {
    /// The exports, and the credentials of clients and server.
    struct Offer {
        var exports: [ExportSelector] = []
        /// `nil` admits every client.
        var tokens: [TokenEntry]?
        var identity: ServerIdentity?
    }

    /// - Parameter account: the user of `--user`; this user or root owns the token file.
    func offer(
        _ oneTime: String?, as account: Privileges.Account?
    ) throws(CommandFailure) -> Offer {
        var offer = Offer()
        let owner = account?.user ?? geteuid()
        let secrets = try tokenFile.map { path throws(CommandFailure) in
            (text: try readCredential(path, .token, of: owner), path: path)
        }
        do throws(WireError) {
            for selector in selectors + only {
                offer.exports.append(try ExportSelector(selector))
            }
            if let exportsFile { offer.exports += try read(exportsFile) }
            if let secrets {
                offer.tokens = try tokens(
                    inFile: secrets.text, named: secrets.path, users: Self.number(ofUser:))
            }
        } catch {
            throw CommandFailure(.usage, error.reason)
        }
        if let oneTime {
            offer.tokens = (offer.tokens ?? []) + [TokenEntry(name: "one-time", token: oneTime)]
        }
        return offer
    }

    /// Returns the id of a user of this machine; `nil` for an unknown name.
    private static func number(ofUser name: String) -> UInt32? {
        getpwnam(name).map(\.pointee.pw_uid)
    }

    /// Reads the files again, and returns the result in words; after an error the old state stays.
    func reload(
        _ server: BlockServer, _ oneTime: String?, _ made: ServerIdentity?,
        _ privileges: inout Privileges?, _ logger: Logger
    ) -> String {
        do throws(CommandFailure) {
            let offer = try offer(oneTime, as: nil)
            // Clients pin the key that was made at the start.
            let identity = tls.isSelfSigned ? made : try tls.identity(for: [])
            try privileges?.check(offer.exports)
            do throws(IOError) {
                try server.replace(
                    exports: offer.exports, tokens: offer.tokens, identity: identity)
            } catch {
                throw CommandFailure(error)
            }
            warn(of: offer.exports, logger)
            logger.info("reloaded", metadata: ["exports": "\(numberInLog(offer.exports))"])
            return "exports: \(numberInLog(offer.exports))"
        } catch {
            logger.error("not reloaded: \(error.message)")
            return "not reloaded: \(error.message)"
        }
    }

    /// The number of exports for the log; `all` counts every block device of `--export-all`.
    func numberInLog(_ exports: [ExportSelector]) -> String {
        guard exportAll else { return "\(exports.count)" }
        return exports.isEmpty ? "all" : "all+\(exports.count)"
    }

    private func read(_ path: String) throws(WireError) -> [ExportSelector] {
        guard let text = readSmallFile(path) else {
            throw WireError("\(path): read: \(currentErrno())")
        }
        return try WireProtocol.exports(inFile: text, named: path)
    }
}
