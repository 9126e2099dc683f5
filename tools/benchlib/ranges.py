# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""A web server for zsync, which asks for several ranges of a file at once (RFC 9110, section 14).

    python3 ranges.py ADDRESS PORT DIRECTORY
"""

import os
import re
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BOUNDARY = "between-ranges"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory = "."

    def do_GET(self):
        try:
            file = open(os.path.join(self.directory, os.path.basename(self.path)), "rb")
        except OSError:
            return self.send_error(HTTPStatus.NOT_FOUND)
        with file:
            size = os.fstat(file.fileno()).st_size
            found = re.findall(r"(\d+)-(\d+)", self.headers.get("Range", ""))
            ranges = [(int(start), min(int(end) + 1, size)) for start, end in found]
            self.send(file, size, ranges)

    def send(self, file, size, ranges):
        heads = [f"bytes {start}-{end - 1}/{size}" for start, end in ranges]
        tail = b""
        if len(ranges) < 2:
            self.send_response(HTTPStatus.PARTIAL_CONTENT if ranges else HTTPStatus.OK)
            for head in heads:
                self.send_header("Content-Range", head)
            parts = [(b"", *(ranges or [(0, size)])[0])]
        else:
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Content-Type", f"multipart/byteranges; boundary={BOUNDARY}")
            parts = [(f"\r\n--{BOUNDARY}\r\nContent-Range: {head}\r\n\r\n".encode(), *range_)
                     for head, range_ in zip(heads, ranges)]
            tail = f"\r\n--{BOUNDARY}--\r\n".encode()
        length = sum(len(head) + end - start for head, start, end in parts) + len(tail)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        for head, start, end in parts:
            self.wfile.write(head)
            while start < end:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)
        self.wfile.write(tail)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    Handler.directory = sys.argv[3]
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
