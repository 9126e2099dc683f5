// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport

/// A proxy for HTTP and, with CONNECT, for HTTPS; it resolves every name to this machine.
///
/// It is killed when the test forgets it.
final class WebProxy {
    let port: Int
    private let scratch: ScratchDirectory
    private let process: RunningProgram

    /// Writes what it receives from clients to a file, and the port to standard output.
    ///
    /// Without tokens a server answers only to names of this machine, so the proxy sets `Host` to one.
    private static let script = """
        import re, socket, socketserver, sys, threading

        log = open(sys.argv[1], "ab", buffering=0)

        def pump(source, sink):
            try:
                while data := source.recv(1 << 16):
                    if sink.up: log.write(data)
                    sink.socket.sendall(data)
            except OSError:
                pass
            for end in (source, sink.socket):
                try: end.shutdown(socket.SHUT_RDWR)
                except OSError: pass

        class Sink:
            def __init__(self, socket, up): self.socket, self.up = socket, up

        class Handler(socketserver.BaseRequestHandler):
            def head(self):
                head = b""
                while not head.endswith(b"\\r\\n\\r\\n"):
                    byte = self.request.recv(1)
                    if not byte: return None
                    head += byte
                log.write(head)
                return head

            def handle(self):
                head = self.head()
                if head is None: return
                method, target, version = head.split(b"\\r\\n")[0].split(b" ")
                if sys.argv[2] != "200":
                    status = sys.argv[2].encode()
                    self.request.sendall(
                        b"HTTP/1.1 " + status + b" No\\r\\nContent-Length: 0\\r\\n\\r\\n")
                    return
                port = int(re.search(rb":([0-9]+)(/|$)", target).group(1))
                server = socket.create_connection(("127.0.0.1", port))
                if method == b"CONNECT":
                    self.request.sendall(b"HTTP/1.1 200 Connected\\r\\n\\r\\n")
                    back = threading.Thread(
                        target=pump, args=(server, Sink(self.request, False)))
                    back.start()
                    pump(self.request, Sink(server, True))
                    back.join()
                    return
                # One request a connection, so that no head is taken for a body.
                path = re.sub(rb"^http://[^/]*", b"", target)
                lines = [
                    line for line in head.split(b"\\r\\n")[1:-2]
                    if not line.lower().startswith((b"host:", b"connection:", b"proxy-"))
                ]
                lines += [b"Host: 127.0.0.1", b"Connection: close"]
                server.sendall(
                    b"%s %s %s\\r\\n" % (method, path, version) + b"\\r\\n".join(lines)
                    + b"\\r\\n\\r\\n")
                back = threading.Thread(target=pump, args=(server, Sink(self.request, False)))
                back.start()
                pump(self.request, Sink(server, True))
                back.join()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

        with Server(("127.0.0.1", 0), Handler) as server:
            print(server.server_address[1], flush=True)
            server.serve_forever()
        """

    /// Starts it and waits until it listens.
    ///
    /// - Parameter status: what it answers to everything; with 200 it forwards.
    /// - Throws: when it does not come to listen.
    init(status: Int = 200) throws {
        scratch = try ScratchDirectory()
        process = try RunningProgram([
            "python3", "-c", Self.script, scratch.file("received"), "\(status)",
        ])
        var line = ""
        while process.isRunning, !line.hasSuffix("\n") {
            usleep(5_000)
            line = try process.outputSoFar()
        }
        guard let port = Int(line.dropLast()) else {
            throw NotListening(errors: try process.errorsSoFar())
        }
        self.port = port
    }

    var url: String { "http://127.0.0.1:\(port)" }

    /// All that clients have sent it.
    func received() throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: scratch.file("received")))
    }

    /// Whether clients have sent it a text in clear.
    func hasReceived(_ text: String) throws -> Bool {
        try received().range(of: Data(text.utf8)) != nil
    }
}
