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
    """A running qemu, whose serial console is also appended to the file `record`.

    `words` are options of qemu. Devices in `first` get PCI slots in front of the network card's.
    """

    def __init__(self, directory, record, *words, first=(), graphical=False, network="",
                 rom="romfile="):
        self.monitor = Path(directory) / "monitor"
        self.monitor.unlink(missing_ok=True)
        self.console = ""
        self.record = record
        self.begin = time.monotonic()
        self._age, self._seen, self._seen_delays = 0.0, self.begin, {}
        self.process = subprocess.Popen(
            [str(program("qemu-system-x86_64")), "-accel", "tcg,thread=multi", "-cpu", "Nehalem",
             "-smp", "2", "-m", "1024", "-nodefaults", "-no-reboot", "-display", "none",
             *(["-vga", "std"] if graphical else []),
             "-serial", "stdio", "-qmp", f"unix:{self.monitor},server=on,wait=off",
             *first, "-netdev", f"user,id=n,hostfwd=tcp:{ADDRESS}:8080-:8080{network}",
             "-device", f"virtio-net-pci,netdev=n,{rom}", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with open(self.record, "ab", buffering=0) as record:
            while data := os.read(self.process.stdout.fileno(), 65536):
                record.write(data)
                self.console += data.decode(errors="replace").replace("\r", "")

    def _delays(self):
        """For each thread of qemu, the seconds for which it was ready to run while other programs ran.

        Source: Documentation/scheduler/sched-stats.rst of the kernel; nothing where it does not say.
        """
        delays = {}
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # a thread may end
                delays[path] = int(path.read_text().split()[1]) / 1e9
        return delays

    def age(self):
        """Seconds since power-on, without those for which the load of this host kept qemu waiting.

        Since the last call that is the wait of the thread that has waited longest. `wait` calls often,
        so it need not be the same thread all the time. A tenth of the time always passes, so that every
        wait ends.
        """
        now, delays = time.monotonic(), self._delays()
        passed = now - self._seen
        longest = max((delay - self._seen_delays.get(path, 0) for path, delay in delays.items()),
                      default=0)
        self._age += max(passed - longest, passed / 10)
        self._seen, self._seen_delays = now, delays
        return self._age

    def wait(self, pattern, seconds, start=0):
        """Waits for text on the console, `seconds` by `age`; returns the match of the whole text."""
        end = self.age() + seconds
        while self.age() < end:
            over = self.process.poll() is not None
            if found := re.compile(pattern, re.DOTALL).search(self.console, start):
                return found
            if over:
                break
            time.sleep(0.1)
        raise Failure(f"not on the console within {seconds} s: {pattern}")

    def last_lines(self, count):
        """The end of what the console has shown, without what moves the cursor."""
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b.", "", self.console).splitlines()
        return lines[-count:]

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
        # Events may come in between.
        while "return" not in (answer := json.loads(stream.readline())):
            if "error" in answer:
                raise Failure(f"qemu: {what}: {answer['error']['desc']}")
        return answer["return"]

    def monitor_line(self, line):
        """A line for qemu's monitor for people, whose words are those of the command line."""
        with self._monitor() as stream:
            answer = self._ask(stream, "human-monitor-command", **{"command-line": line}).strip()
        if answer not in ("", "OK"):
            raise Failure(f"qemu: {line}: {answer}")

    def plug_in(self, words):
        """Adds a disk to the running machine; the words are those of `drive` or `silent_disk`."""
        self.monitor_line(f"drive_add {'-n ' if words[0] == '-blockdev' else ''}0 {words[1]}")
        self.monitor_line(f"device_add {words[3]}")

    def silence(self, name):
        """From the second read or write on, the disk `name` of `drive` does not answer."""
        self.monitor_line(f"block_set_io_throttle {name} 1 0 0 0 0 0")

    def screenshot(self, path):
        with self._monitor() as stream:
            self._ask(stream, "screendump", filename=str(path), format="png")

    def reboots(self, text):
        """Types a line that has to reboot the machine. qemu itself then waits for a silent disk."""
        with self._monitor(300) as stream:
            self.type(text, "")
            try:
                while "SHUTDOWN" not in stream.readline():
                    pass
            except TimeoutError:
                raise Failure("no reboot") from None

    def is_off(self, seconds):
        end = self.age() + seconds
        while self.process.poll() is None:
            if self.age() > end:
                raise Failure(f"not off within {seconds} s")
            time.sleep(0.1)

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
    node = f"driver=null-co,node-name={name},size={64 << 20},latency-ns={SILENT}"
    return ["-blockdev", node, "-device", device.format(drive=name)]
