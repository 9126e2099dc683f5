// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockServer
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import Logging
internal import SystemPackage
internal import WireProtocol

/// The rights that a server keeps after root has started it.
struct Privileges {
    /// The user that it became; `nil` for root.
    private let account: Account?
    private let kept: Capabilities
    /// Whether LVM's programs, which the server starts, get root's capabilities.
    private let mayRunLVM: Bool
    /// The exports whose needs were determined; `check` skips them.
    private var exports: [ExportSelector]

    /// The user of `--user`.
    struct Account {
        let name: String
        let user: uid_t
        let group: gid_t

        /// - Throws: wrong usage if the user does not exist or is root, or if the server does not
        ///   run as root.
        init(_ name: String) throws(CommandFailure) {
            let entry = getpwnam(name) ?? uid_t(name).flatMap { getpwuid($0) }
            func wrong(_ reason: String, _ advice: String? = nil) -> CommandFailure {
                CommandFailure(.usage, "--user \(name): \(reason)", advice: advice)
            }
            guard let entry else { throw wrong("there is no such user") }
            guard geteuid() == 0 else {
                throw wrong(
                    "only root can become another user",
                    "Leave it out, and start the server as that user.")
            }
            guard entry.pointee.pw_uid != 0 else {
                throw wrong("that is root", "Leave it out: root's server drops its capabilities.")
            }
            self.name = String(cString: entry.pointee.pw_name)
            user = entry.pointee.pw_uid
            group = entry.pointee.pw_gid
        }
    }

    /// Drops the rights that the exports do not need, for good.
    ///
    /// The caller must not have started a thread, since a thread keeps its own capabilities.
    ///
    /// - Parameters:
    ///   - offersAll: whether the server also offers every block device.
    ///   - createsImages: whether the server creates a missing image.
    ///   - files: files that the server reads again at SIGHUP.
    ///   - account: the user to become; `nil` for none.
    /// - Throws: wrong usage if that user may not use an export; the error of a system call.
    init(
        for exports: [ExportSelector], offersAll: Bool, createsImages: Bool, files: [String],
        as account: Account?
    ) throws(CommandFailure) {
        self.account = account
        self.exports = exports
        if let account {
            kept = []
            mayRunLVM = false
            for export in exports {
                guard let reason = Need.reasonForRoot(export) else { continue }
                throw CommandFailure(
                    .usage, "--user \(account.name): \(export.name): \(reason)",
                    advice: "Leave --user out for it.")
            }
            try Self.call("--user \(account.name)") { () throws(Errno) in try Self.become(account) }
            for export in exports {
                let need = Need(export, createsImages: createsImages, isRoot: false)
                if let object = need.object { throw Self.notAllowed(object, account) }
            }
            if offersAll, let object = Need.ofMachine(isRoot: false).object {
                throw Self.notAllowed(object, account)
            }
            return
        }
        let hasHelper = PrivilegedCalls.startHelper()
        var need = Need()
        try Self.call("capabilities") { () throws(Errno) in try Capabilities.suspend() }
        for export in exports { need.add(Need(export, createsImages: createsImages, isRoot: true)) }
        if offersAll { need.add(.ofMachine(isRoot: true)) }
        for file in files { need.add(Need(readable: file)) }
        if !Capabilities.mayWatch { need.capabilities.insert(.administrate) }
        if !hasHelper {
            need.capabilities.formUnion([.administrate, .traceProcesses, .readSearch])
        }
        let all = need
        kept = all.capabilities.intersection(.permitted)
        mayRunLVM = all.runsLVM
        let (kept, limiting) = (self.kept, !self.mayRunLVM)
        try Self.call("capabilities") { () throws(Errno) in
            try kept.keep(limitingPrograms: limiting)
        }
    }

    /// Checks that the remaining rights are enough for exports that were added at SIGHUP.
    ///
    /// - Throws: wrong usage that names the missing right.
    mutating func check(_ new: [ExportSelector]) throws(CommandFailure) {
        for export in new where !exports.contains(export) {
            let need = Need(export, createsImages: false, isRoot: account == nil)
            if let account {
                let reason = Need.reasonForRoot(export)
                if let reason { throw CommandFailure(.usage, "\(export.name): \(reason)") }
                if let object = need.object { throw Self.notAllowed(object, account) }
                continue
            }
            let lacking = need.capabilities.subtracting(kept).subtracting(.lease)
            let what = lacking.isEmpty ? "to run LVM as root" : lacking.text
            guard lacking.isEmpty, mayRunLVM || !need.runsLVM else {
                throw CommandFailure(
                    .usage,
                    "\(need.object ?? export.name): the server has dropped the right that it needs "
                        + "(\(what)): restart the server")
            }
        }
        exports = new
    }

    /// For the log.
    var metadata: Logger.Metadata {
        [
            "user": "\(account?.name ?? "root")", "capabilities": "\(kept.text)",
            "programs": "\(mayRunLVM ? "all" : kept.text)",
            "helper": "\(PrivilegedCalls.hasHelper)",
        ]
    }

    private static func notAllowed(_ object: String, _ account: Account) -> CommandFailure {
        CommandFailure(
            .usage, "--user \(account.name): \(object): that user may not use it",
            advice: "Give it the right, by group or setfacl, or leave --user out.")
    }

    private static func call(
        _ object: String, _ body: () throws(Errno) -> Void
    ) throws(CommandFailure) {
        do throws(Errno) { try body() } catch {
            throw CommandFailure(IOError(object, "drop privileges", error))
        }
    }

    /// Sets the supplementary groups, the group and the user, in this order: another user than root
    /// may not set groups.
    private static func become(_ account: Account) throws(Errno) {
        _ = clb_limit_capabilities(0)
        _ = try retryingInterrupts { initgroups(account.name, account.group) }
        _ = try retryingInterrupts { setgid(account.group) }
        _ = try retryingInterrupts { setuid(account.user) }
        try Capabilities().keep(limitingPrograms: false)
        // A change of the user id resets this attribute (prctl(2), PR_SET_DUMPABLE).
        clb_forbid_core_dumps()
    }
}

extension ListeningSocket {
    /// Binds the server's address while the process still has root's rights.
    static func make(
        _ address: BlockServer.Options.Address, isOpen: Bool, for account: Privileges.Account?
    ) throws(CommandFailure) -> ListeningSocket {
        do throws(IOError) {
            return try ListeningSocket(
                address, isOpen: isOpen, owner: account.map { ($0.user, $0.group) })
        } catch {
            throw CommandFailure(error)
        }
    }
}

extension Serve {
    /// Drops the rights of root that the exports do not need.
    ///
    /// - Parameters:
    ///   - options: gets the runtime directory of `account`.
    ///   - account: the user to become; `nil` for none.
    /// - Returns: the remaining rights; `nil` if root did not start the server, which changes
    ///   nothing.
    /// - Throws: wrong usage if that user may not use an export; the error of a system call.
    func dropPrivileges(
        _ options: inout BlockServer.Options, as account: Privileges.Account?
    ) throws(CommandFailure) -> Privileges? {
        guard geteuid() == 0 else { return nil }
        if let account { options.runtimeDirectory = directory(of: account, options.logger) }
        let privileges = try Privileges(
            for: options.exports, offersAll: exportAll, createsImages: options.createsImages,
            files: [exportsFile, tokenFile, tls.certificate, tls.key, tls.clientAuthorities]
                .compactMap { $0 },
            as: account)
        options.logger.debug("privileges", metadata: privileges.metadata)
        return privileges
    }

    /// Creates the runtime directory of a user other than root, which cannot write to root's
    /// /run/blkferry; `nil` if the directory cannot be created.
    private func directory(of account: Privileges.Account, _ logger: Logger) -> String? {
        let path = "/run/blkferry-\(account.user)"
        var status = stat()
        if mkdir(path, 0o700) == 0 { lchown(path, account.user, account.group) }
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR,
            status.st_uid == account.user
        else {
            logger.warning(
                "after a restart, runs that are not finished compare everything again",
                metadata: ["directory": "\(path)", "reason": "it cannot be made"])
            return nil
        }
        return path
    }
}
