// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import Glibc
import LinuxIO
import Synchronization

/// What a transport said while it worked.
final class Notes: Sendable {
    private let texts = Mutex<[String]>([])
    var all: [String] { texts.withLock { $0 } }
    func add(_ text: String) { texts.withLock { $0.append(text) } }
}

/// A wish that a test utters.
final class Flag: Sendable {
    private let value = Atomic(false)
    var isSet: Bool { value.load(ordering: .relaxed) }
    func set() { value.store(true, ordering: .relaxed) }
}

func makeTransport(
    _ base: String, notes: Notes = Notes(), cancel: Flag = Flag(),
    _ change: (inout HTTPTransport.Options) -> Void = { _ in }
) throws(IOError) -> HTTPTransport {
    var options = HTTPTransport.Options(
        base: base, log: { notes.add($0) }, isCancelled: { cancel.isSet })
    change(&options)
    return try HTTPTransport(options)
}

/// An answer with its body.
struct Answer: Equatable {
    var status: Int
    var contentType: String
    var body: [UInt8]
}

extension HTTPTransport {
    /// Sends a request and gives back all of the answer.
    func call(
        _ method: HTTPRequest.Method = .get, _ path: String = "/", type: String? = nil,
        body: [UInt8]? = nil, silence: Double = 60, isRetried: Bool = true, limit: Int = 64 << 20
    ) throws(IOError) -> Answer {
        let sink = ResponseBody(limit: limit)
        let content = body ?? []
        let result = content.withUnsafeBytes { bytes in
            Result { () throws(IOError) in
                try send(
                    HTTPRequest(
                        method, path, contentType: type, body: body == nil ? nil : bytes,
                        silence: silence, isRetried: isRetried), "ask", into: sink)
            }
        }
        let response = try result.get()
        return Answer(
            status: response.status, contentType: response.contentType, body: [UInt8](sink.bytes))
    }
}

/// Seconds that something takes.
func seconds(_ work: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try work()
    return (ContinuousClock.now - start) / .seconds(1)
}

/// Does something in another thread after a while.
func after(_ seconds: Double, _ work: @escaping @Sendable () -> Void) {
    _ = Threads.start(count: 1) { _ in
        usleep(UInt32(seconds * 1_000_000))
        work()
    }
}

/// The error that a call ends with.
func failure(_ work: () throws(IOError) -> Answer) -> IOError? {
    do {
        _ = try work()
        return nil
    } catch {
        return error
    }
}

/// Sleeps for 30 ms.
func pauseBriefly() { usleep(30_000) }
