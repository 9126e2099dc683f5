# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""A relay on the loopback interface that cuts connections."""

import socket
import struct
import threading

from .world import HOST

CHUNK = 1 << 14


class Relay:
    """Relays to a port, and cuts connections after some bytes of them, until it has cut enough.

    A cut is a reset in one half of the cases, and a plain end in the other.
    """

    def __init__(self, port, random, cuts):
        self.target = port
        self.random = random
        self.left = cuts
        self.lock = threading.Lock()
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((HOST, self.target), timeout=30)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self.lock:
                budget = None
                if self.left > 0:
                    budget = [self.random.choice([0, 300, 5000, 100_000, 1 << 20])]
                reset = self.random.random() < 0.5
                self.sockets += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(one, other, budget, reset),
                                 daemon=True).start()

    def pump(self, one, other, budget, reset):
        try:
            while data := one.recv(CHUNK):
                if budget is not None:
                    budget[0] -= len(data)
                    if budget[0] < 0:
                        with self.lock:
                            self.left -= 1
                        if reset:
                            for end in (one, other):
                                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                               struct.pack("ii", 1, 0))
                        break
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for one in self.sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
