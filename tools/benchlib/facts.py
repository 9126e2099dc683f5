# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""What the figures depend on: processor, kernel, what is below the devices, programs."""

import os
import platform
import re
import subprocess
from pathlib import Path

# Instructions by which digests and comparisons are chosen, of x86-64 and of arm64.
FLAGS = ("pclmulqdq", "aes", "avx2", "vaes", "vpclmulqdq", "avx512f", "avx512bw", "avx512vl",
         "avx512ifma", "sha_ni", "asimd", "pmull", "sha2", "sha512", "sve")


def first_line(*command, contains=""):
    """The first line that a command prints, with a certain text in it; or nothing."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return ""
    lines = [line for line in (done.stdout or done.stderr).splitlines() if contains in line]
    return (lines or [""])[0]


def cpuinfo(*names):
    """The first value of one of the names in /proc/cpuinfo; or nothing."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def backing(directory):
    """The kind of file system that has a directory, and the disk below it."""
    path, found = os.path.realpath(directory), ("", "", "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")
        if os.path.commonpath([path, point]) == point and len(point) >= len(found[0]):
            found = (point, *rest.split()[:2])
    _, kind, disk = found
    place = f" on {disk}" if disk.startswith("/dev/") else ""
    return f"loop devices over files in {kind}{place}"


def description(binary, directory):
    """The machine and the versions of the programs."""
    flags = cpuinfo("flags", "Features").split()
    system = dict(line.strip().split("=", 1) for line in open("/etc/os-release") if "=" in line)
    return {
        "cpu": cpuinfo("model name") or platform.machine(), "processors": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(), "system": system.get("PRETTY_NAME", "").strip('"'),
        "backing": backing(directory),
        "blkferry": first_line(binary, "--version"), "dd": first_line("dd", "--version"),
        "qemu-img": first_line("qemu-img", "--version"), "rsync": first_line("rsync", "--version"),
        "nbdcopy": first_line("nbdcopy", "--version"),
        "nbdkit": first_line("nbdkit", "--version"), "ssh": first_line("ssh", "-V"),
        "openssl": first_line("openssl", "version"),
        "bmaptool": first_line("bmaptool", "--version"),
        "casync": first_line("casync", "--version"), "zsync": first_line("zsync", "-V"),
        "partclone": first_line("partclone.dd", "-v"), "pdiffcopy": pdiffcopy(),
    }


def pdiffcopy():
    """Its version, if tools/pdiffcopy has installed it."""
    pip = Path(__file__).resolve().parents[2] / ".build/pdiffcopy/bin/pip"
    return first_line(pip, "list", "--format=freeze", contains="pdiffcopy==")


def version(text):
    """The number in a line that a program printed about itself."""
    found = re.search(r"\d+(\.\d+)+|(?<= )\d+$", text)
    return found[0] if found else text or "missing"


def print_header(facts):
    print(f"Processor: {facts['cpu']}, {facts['processors']} of them: {' '.join(facts['flags'])}\n"
          f"Kernel: {facts['kernel']}\n"
          f"Devices: {facts['backing']}")
