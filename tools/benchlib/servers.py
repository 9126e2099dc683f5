# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Servers on the loopback interface that are stopped at the end, and the relay in front of them."""

import http.client
import os
import re
import signal
import socket
import subprocess
import tempfile
import time

from . import machine

HOST = "127.0.0.1"
START_LIMIT = 30  # seconds
STOP_LIMIT = 20


def free_port():
    with socket.create_server((HOST, 0)) as listener:
        return listener.getsockname()[1]


def listens(port):
    """Whether a server accepts connections there."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            # Loopback connects a socket to itself when it happens to get that port.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False


def answers(port):
    """Whether a server answers a request there: gunicorn listens before it can answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
        return True
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def peak_memory(process):
    with open(f"/proc/{process}/status") as status:
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def cpu_seconds(process):
    """Those of a process, and of the children that it has waited for, to 10 ms."""
    # Its CPU clock; MAKE_PROCESS_CPUCLOCK and CPUCLOCK_SCHED in the kernel's posix-timers.h.
    own = time.clock_gettime((~process << 3) | 2)
    with open(f"/proc/{process}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


class Server:
    """A server that runs until the end of the `with`, ready for clients from its start."""

    def __init__(self, place, command, port, is_ready=listens):
        self.command = command
        self.port = port
        self.is_ready = is_ready
        self.words = tempfile.TemporaryFile(dir=place.directory)
        self.process = subprocess.Popen(
            [place.helper, "hold", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self.words, start_new_session=True)

    def __enter__(self):
        try:
            end = time.monotonic() + START_LIMIT
            while not self.is_ready(self.port):
                if self.process.poll() is not None:
                    raise self.failure(f"ended with status {self.process.returncode}")
                if time.monotonic() > end:
                    raise self.failure(f"not ready after {START_LIMIT} s")
                time.sleep(0.02)
            self.cpu_before = self.cpu_total()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Asks it to end, then kills it; returns its standard output.

        It must not print more than a pipe holds.
        """
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
        output = b""
        if not self.process.stdout.closed:
            # Children that it has left behind may still hold the pipe.
            os.set_blocking(self.process.stdout.fileno(), False)
            output = self.process.stdout.read() or b""
            machine.kill_group(self.process)
            self.words.close()
        return output.decode(errors="replace")

    def failure(self, what):
        self.words.seek(0)
        words = self.words.read().decode(errors="replace").strip().splitlines()
        return machine.Failure(f"{' '.join(self.command)}: {what}: {' / '.join(words[-3:])}")

    def of_processes(self, figure):
        """A figure of each of its processes."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.getpgid(int(entry)) == self.process.pid:
                    found.append(figure(int(entry)))
            except OSError:
                pass  # It has ended in the meantime.
        return found

    def peak_memory(self):
        """The peak resident bytes of its largest process."""
        return max(self.of_processes(peak_memory), default=0)

    def cpu_total(self):
        return sum(self.of_processes(cpu_seconds))

    def cpu(self):
        """The CPU seconds since it was ready."""
        return self.cpu_total() - self.cpu_before


class Relay(Server):
    """Relays to a server, counts the bytes, and may delay them."""

    def __init__(self, place, target_port, delay):
        port = free_port()
        super().__init__(place, [place.helper, "relay", str(port), str(target_port), str(delay)],
                         port)

    def totals(self):
        """Ends it; returns the bytes to the server, those from it, and the connections."""
        figures = self.stop().split()
        if len(figures) != 3:
            raise machine.Failure("the relay ended without its totals")
        # One connection only checked whether the server listens.
        return int(figures[0]), int(figures[1]), int(figures[2]) - 1
