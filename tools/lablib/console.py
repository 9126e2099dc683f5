# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""An emulated machine whose serial console a program reads, and types on."""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

from .process import Failure, program

ADDRESS = "10.0.2.15"  # that qemu's DHCP server gives the machine
SILENT = 10 ** 18  # nanoseconds that a disk takes which does not answer


class Machine:
    """A running qemu, whose serial console is also appended to the file `record`."""

    def __init__(self, directory, record, *words, graphical=False, network="", rom="romfile="):
        self.monitor = Path(directory) / "monitor"
        self.monitor.unlink(missing_ok=True)
        self.console = ""
        self.record = record
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            [str(program("qemu-system-x86_64")), "-accel", "tcg,thread=multi", "-cpu", "Nehalem",
             "-smp", "2", "-m", "1024", "-nodefaults", "-no-reboot", "-display", "none",
             *(["-vga", "std"] if graphical else []),
             "-serial", "stdio", "-qmp", f"unix:{self.monitor},server=on,wait=off",
             "-netdev", f"user,id=n,hostfwd=tcp:{ADDRESS}:8080-:8080{network}",
             "-device", f"virtio-net-pci,netdev=n,{rom}", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with open(self.record, "ab", buffering=0) as record:
            while data := os.read(self.process.stdout.fileno(), 65536):
                record.write(data)
                self.console += data.decode(errors="replace").replace("\r", "")

    def wait(self, pattern, seconds, start=0):
        """Waits for text on the console; returns the match of the whole text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            over = self.process.poll() is not None
            if found := re.compile(pattern, re.DOTALL).search(self.console, start):
                return found
            if over:
                break
            time.sleep(0.1)
        raise Failure(f"not on the console within {seconds} s: {pattern}")

    def type(self, text, pattern, seconds=60):
        """Types a line, and waits for an answer to it."""
        start = len(self.console)
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        return self.wait(pattern, seconds, start)

    @contextlib.contextmanager
    def _monitor(self, seconds=60):
        """qemu's monitor, as a stream of JSON lines."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(self.monitor))
            stream = connection.makefile("rw")
            stream.readline()
            self._ask(stream, "qmp_capabilities")
            yield stream

    @staticmethod
    def _ask(stream, what, **arguments):
        stream.write(json.dumps({"execute": what, "arguments": arguments}) + "\n")
        stream.flush()
        stream.readline()

    def screenshot(self, path):
        with self._monitor() as stream:
            self._ask(stream, "screendump", filename=str(path), format="png")

    def reboots(self, text):
        """Types a line that has to reboot the machine. qemu itself then waits for a silent disk."""
        with self._monitor() as stream:
            self.type(text, "")
            try:
                while "SHUTDOWN" not in stream.readline():
                    pass
            except TimeoutError:
                raise Failure("no reboot") from None

    def is_off(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"not off within {seconds} s") from None

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def drive(name, path, device):
    return ["-drive", f"file={path},format=raw,if=none,id={name},cache=unsafe", "-device",
            device.format(drive=name)]


def silent_disk(name, device):
    """A disk whose first read takes forever. With a geometry qemu itself does not read it."""
    device += ",cyls=128,heads=16,secs=63"
    return ["-blockdev", f"null-co,node-name={name},size={64 << 20},latency-ns={SILENT}", "-device",
            device.format(drive=name)]
