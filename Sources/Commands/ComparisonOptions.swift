// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import Glibc
internal import SyncEngine
internal import WireProtocol

/// What `sync` and `verify` have in common.
struct ComparisonOptions: ParsableArguments {
    @Option(
        name: [.customShort("b"), .long],
        help: ArgumentHelp(
            "Unit of comparison and transfer, a multiple of 512 bytes.", valueName: "size"))
    var blockSize: ByteSize?

    @Option(
        name: [.customShort("c"), .long],
        help: ArgumentHelp(
            "Worker threads, each with a connection of its own where a server takes part "
                + "(default: two a processor, four with a server; two for a rotational disk).",
            valueName: "n"))
    var concurrency: Int?

    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp(
            "Digest that a device on a server is compared by (default: the fastest of gmac and "
                + "poly1305 on both machines).",
            valueName: "name"))
    var hashMethod: String?

    @Option(
        help: ArgumentHelp(
            "Bytes a second that go over the network at most, such as 10M.", valueName: "rate"))
    var bwlimit: ByteSize?

    @OptionGroup var credentials: Credentials

    @Option(help: "Progress on standard error: auto, bar, json or none.")
    var progress = ProgressStyle.auto

    @Flag(help: "Print the result as one JSON object.")
    var json = false

    @Flag(name: .shortAndLong, help: "Tell more.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Print errors and warnings only.")
    var quiet = false

    @Argument(help: "What is read.")
    var source: String

    @Argument(help: "What is made equal to it, or compared with it.")
    var target: String

    func validate() throws {
        if let size = blockSize?.bytes {
            guard BlockLayout.blockSizes.contains(size), size % 512 == 0 else {
                throw ValidationError(
                    "block size \(size): must be a multiple of 512 from 512 to 16 MiB")
            }
        }
        if let concurrency, !(1...256).contains(concurrency) {
            throw ValidationError("concurrency \(concurrency): must be from 1 to 256")
        }
        if let rate = bwlimit?.bytes, rate < 1024 {
            throw ValidationError("bwlimit \(rate): must be at least 1024 bytes a second")
        }
        for location in [source, target] where location.isEmpty {
            throw ValidationError("a location is empty")
        }
        let remote = try [source, target].filter { text in
            do throws(WireError) {
                if case .remote(let location) = try Location(text) {
                    guard location.selector != nil else {
                        throw WireError("\(text): it names a server, but no device of it")
                    }
                    try credentials.check(location)
                    return true
                }
                return false
            } catch {
                throw ValidationError(error.reason)
            }
        }
        guard remote.count < 2 else {
            throw ValidationError(
                "\(source), \(target): one of them has to be a device of this machine")
        }
        // `blkferry -q verify A`, or a command of another version: never a file of that name.
        for location in [source, target] where Self.commandNames.contains(location) {
            throw ValidationError("\(location): commands come first; a file is ./\(location)")
        }
    }

    private static let commandNames: Set = [
        "sync", "verify", "list", "serve", "benchmark", "refresh", "token", "help",
    ]

    /// The unit of comparison that the user wants, in bytes.
    var wantedBlock: Int { blockSize?.bytes ?? BlockLayout.defaultBlock }

    var console: Console { Console(isVerbose: verbose, isQuiet: quiet) }

    /// What the engine is asked to do as far as both commands have it in common; the user is told
    /// what the devices are like.
    ///
    /// - Parameters:
    ///   - devices: those that take part.
    ///   - warnings: what was found when they were opened.
    ///   - isRotational: one of them is.
    /// - Returns: the options of a comparison.
    /// - Throws: wrong usage, when the options do not fit the devices.
    func options(
        for devices: [any BlockDevice], warnings: [String], isRotational: Bool
    ) throws(CommandFailure) -> SyncOptions {
        for warning in warnings { console.warning(warning) }
        for device in devices { console.note(device.accessNote) }
        let layout = try layout(for: devices)
        return SyncOptions(
            layout: layout,
            concurrency: try threads(
                layout: layout, isRotational: isRotational,
                isRemote: devices.contains { $0 is any RemoteDevice }))
    }

    /// The block size asked for, raised where a device cannot transfer so little.
    ///
    /// - Parameter devices: those that take part.
    /// - Returns: the layout of all windows.
    /// - Throws: wrong usage, when no block size in bounds fits the devices.
    func layout(for devices: [any BlockDevice]) throws(CommandFailure) -> BlockLayout {
        let wanted = wantedBlock
        let block = devices.reduce(wanted) { leastCommonMultiple($0, $1.geometry.alignment) }
        guard BlockLayout.blockSizes.contains(block) else {
            throw CommandFailure(
                .usage,
                "block size \(wanted): does not fit the devices: transfers are multiples of "
                    + devices.map { "\($0.geometry.alignment) bytes on \($0.name)" }
                    .joined(separator: " and "))
        }
        if block != wanted {
            console.note(
                "blocks of \(block) bytes instead of \(wanted), to fit the devices' transfers")
        }
        return BlockLayout(block: block)
    }

    /// How many threads: as asked, or what was measured to be best.
    ///
    /// Blocking reads need several threads a processor to keep it and the disk busy
    /// (`tools/bench local`); a rotational disk only seeks more. Their buffers bound the memory.
    ///
    /// - Parameters:
    ///   - layout: the buffers' size.
    ///   - isRotational: one of the devices is.
    ///   - isRemote: one of the devices is on a server: half of the threads wait for it.
    /// - Returns: at least 1.
    /// - Throws: wrong usage, when the buffers of so many threads would be too large.
    func threads(
        layout: BlockLayout, isRotational: Bool, isRemote: Bool
    ) throws(CommandFailure) -> Int {
        if let concurrency {
            guard concurrency <= Self.largestBufferMemory / (2 * layout.window) else {
                throw CommandFailure(
                    .usage,
                    "concurrency \(concurrency): their buffers of \(Wording.bytes(2 * layout.window)) "
                        + "each would be more than \(Wording.bytes(Self.largestBufferMemory))")
            }
            return concurrency
        }
        if isRotational { return 2 }
        let processors = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        let affordable = Self.bufferMemory / (2 * layout.window)
        let wanted = isRemote ? min(4 * processors, 16) : max(4, min(2 * processors, 32))
        return max(1, min(wanted, affordable))
    }

    /// Bytes that all buffers together take at most, unless the user asks for more threads.
    private static let bufferMemory = 40 << 20

    /// Bytes that they may take if he does.
    private static let largestBufferMemory = 2 << 30
}

/// The smallest number that both divide.
func leastCommonMultiple(_ first: Int, _ second: Int) -> Int {
    var (a, b) = (first, second)
    while b != 0 { (a, b) = (b, a % b) }
    return first / a * second
}

extension BlockDevice {
    /// How the device is accessed, for `-v`.
    var accessNote: String {
        let way = (self as? ImageFile)?.isDirect == false ? "buffered (no direct I/O)" : "direct"
        return "\(name): \(Wording.exactBytes(geometry.size)), \(way) I/O, "
            + "units of \(geometry.alignment) bytes"
    }
}
