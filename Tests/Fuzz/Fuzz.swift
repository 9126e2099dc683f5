// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import FuzzTargets
internal import Glibc

#if FUZZER
    private let target: FuzzTarget = {
        let name = getenv("FUZZ_TARGET").map { String(cString: $0) } ?? ""
        guard let target = FuzzTarget(rawValue: name) else {
            fatalError("FUZZ_TARGET=\(name): unknown")
        }
        return target
    }()

    /// What libFuzzer calls with each input.
    @_cdecl("LLVMFuzzerTestOneInput")
    public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
        target.run(UnsafeRawBufferPointer(start: bytes, count: count))
        return 0
    }
#else
    /// Without libFuzzer: `fuzz` prints the targets, `fuzz TARGET FILE...` runs files as inputs.
    @main struct Replay {
        static func main() {
            let arguments = CommandLine.arguments.dropFirst()
            guard let name = arguments.first else {
                for target in FuzzTarget.allCases { print(target.rawValue) }
                return
            }
            guard let target = FuzzTarget(rawValue: name) else { exit(64) }
            for path in arguments.dropFirst() {
                guard let bytes = contents(of: path) else {
                    perror(path)
                    exit(1)
                }
                bytes.withUnsafeBytes { target.run($0) }
                print("\(path): \(bytes.count) bytes, no crash")
            }
        }
    }

    private func contents(of path: String) -> [UInt8]? {
        guard let file = fopen(path, "re") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            guard count > 0 else { return bytes }
            bytes += chunk[..<count]
        }
    }
#endif
