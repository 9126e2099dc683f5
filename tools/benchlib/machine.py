# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The place of the measurements: files, loop devices and processes, and the figures of a run."""

import contextlib
import fcntl
import mmap
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20
BLKFLSBUF = 0x1261  # linux/fs.h
TOOLS = Path(__file__).resolve().parents[1]
GHASH = TOOLS.parent / "Sources/CGhash"


class Failure(Exception):
    """An error that ends the benchmark with one line."""


@dataclass
class Figures:
    """What one run took."""

    seconds: float  # of the whole process, from its start to its end
    cpu: float  # seconds, user and system, of all processes of both sides
    peak: int  # resident bytes of the largest process
    server_peak: int = 0
    wire: int = 0  # bytes on the loopback interface


def parse_size(text):
    """Reads a size such as 64M or 1G, a multiple of 1 MiB."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", text, re.IGNORECASE)
    size = int(match[1]) << (10 * " KMGT".index(match[2].upper() or " ")) if match else 0
    if size <= 0 or size % CHUNK != 0:
        raise ValueError(text)
    return size


def make(*command):
    """Runs a command that makes a file; raises a failure if the command fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Failure(f"{command[0]}: {' '.join(last)}")


class Workplace:
    """A directory and loop devices that are removed at the end, and the programs in C."""

    def __init__(self, parent):
        self.parent = parent
        # What is done at the end, the last first.
        self.steps = contextlib.ExitStack()

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="blkferry-bench.", dir=self.parent))
        try:
            self.helper = self.build("bench-helper")
            # The same GHASH as in blkferry.
            instructions = ["-march=armv8-a+crypto"] if platform.machine() == "aarch64" else []
            self.floors = self.build("bench-floors", "-Wno-unknown-pragmas", "-pthread",
                                     *instructions, f"-I{GHASH}/include", GHASH / "CGhash.c",
                                     "-lcrypto")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.steps.close()
        shutil.rmtree(self.directory)

    def build(self, name, *arguments):
        program = str(self.directory / name)
        subprocess.run(["cc", "-O2", "-o", program, TOOLS / f"{name}.c", *arguments], check=True)
        return program

    def need(self, size):
        """Ends the benchmark when so many bytes do not fit."""
        free = shutil.disk_usage(self.directory).free
        if free < size:
            raise Failure(f"{self.parent}: {free >> 20} MiB free, {size >> 20} needed; "
                          "choose another --directory")

    def loop(self, name, size):
        """Makes a loop device over a new file; returns its path."""
        file = self.directory / name
        with open(file, "wb") as stream:
            stream.truncate(size)
        path = subprocess.run(["losetup", "--find", "--show", file], check=True,
                              capture_output=True, text=True).stdout.strip()
        self.steps.callback(subprocess.run, ["losetup", "--detach", path])
        return path

    def run(self, command, statuses=(0,), limit=None):
        """Runs a command; returns its figures.

        After `limit` seconds it is killed, which is a failure.
        """
        with Run(self, command) as run:
            return run.figures(statuses, limit)


class Run:
    """A command that is being measured; at the end all its processes are gone."""

    def __init__(self, place, command):
        self.command = command
        # A process group of its own, so that the command's own children can be ended too.
        self.process = subprocess.Popen([place.helper, "run", *command], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        kill_group(self.process)

    def figures(self, statuses=(0,), limit=None):
        """Waits for the end; returns the figures."""
        try:
            output, errors = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired as expiry:
            raise Failure(f"{' '.join(self.command)}: not done after {limit} s") from expiry
        figures = output.split()
        if self.process.returncode != 0 or int(figures[3]) not in statuses:
            raise Failure(f"{' '.join(self.command)}: status {' '.join(figures[3:])} "
                          f"{errors.strip()}")
        return Figures(float(figures[0]), float(figures[1]), int(figures[2]) * 1024)


def kill_group(process):
    """Ends all that is left of a process started with a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()


class Device:
    """A device or image, read and written past the page cache."""

    def __init__(self, path, size, flags=os.O_DIRECT):
        self.path = path
        self.size = size
        self.descriptor = os.open(path, os.O_RDWR | flags)
        self.buffer = mmap.mmap(-1, CHUNK)  # page-aligned, as O_DIRECT wants it

    def close(self):
        os.close(self.descriptor)

    def read(self, offset, length):
        with memoryview(self.buffer) as view, view[:length] as part:
            if os.preadv(self.descriptor, [part], offset) != length:
                raise Failure(f"{self.path}: short read at {offset}")
            return bytes(part)

    def write(self, offset, data):
        self.buffer[:len(data)] = data
        with memoryview(self.buffer) as view, view[:len(data)] as part:
            if os.pwritev(self.descriptor, [part], offset) != len(data):
                raise Failure(f"{self.path}: short write at {offset}")

    def flush(self):
        """Writes back the device's pages and drops them from the page cache."""
        os.fsync(self.descriptor)
        fcntl.ioctl(self.descriptor, BLKFLSBUF)


def first_difference(one, other):
    """The offset of the first chunk that differs, or None."""
    for offset in range(0, one.size, CHUNK):
        if one.read(offset, CHUNK) != other.read(offset, CHUNK):
            return offset
    return None


def summary(runs):
    """Median, least and greatest of the seconds, medians of CPU and wire, greatest peaks."""
    seconds = [run.seconds for run in runs]
    return {
        "median": statistics.median(seconds), "min": min(seconds), "max": max(seconds),
        "cpu": statistics.median(run.cpu for run in runs),
        "wire": statistics.median(run.wire for run in runs),
        "peakMemory": max(run.peak for run in runs),
        "serverPeakMemory": max(run.server_peak for run in runs),
        "seconds": seconds, "cpuSeconds": [run.cpu for run in runs],
    }


def goal(text, figure, limit):
    """The line of one speed target, met or missed; a figure of None is missing."""
    shown = "missing" if figure is None else f"{figure:.3f}"
    return {"text": f"{text}: {shown}, limit {limit:.3f}", "figure": figure, "limit": limit,
            "reached": figure is not None and figure <= limit}


def goal_at_least(text, figure, least):
    """The same for a figure that is better when it is greater."""
    shown = "missing" if figure is None else f"{figure:.3f}"
    return {"text": f"{text}: {shown}, at least {least:.3f}", "figure": figure, "least": least,
            "reached": figure is not None and figure >= least}


def print_table(title, entries, columns):
    """Prints a line for each entry: its times, and columns, which are functions by name."""
    width = max(14, *map(len, entries))
    heads = "".join(f" {name:>10}" for name in columns)
    print(f"\n{title}\n  {'':{width}} {'median s':>9} {'min':>8} {'max':>8} {'CPU s':>8}{heads}")
    for name, entry in entries.items():
        cells = "".join(f" {function(name, entry):>10}" for function in columns.values())
        print(f"  {name:{width}} {entry['median']:9.3f} {entry['min']:8.3f} {entry['max']:8.3f} "
              f"{entry['cpu']:8.3f}{cells}")


def mebibytes(key):
    return lambda _, entry: f"{entry[key] / 2**20:.1f}"
