# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The scenarios: scripts of Tests/Lab, which run as root in the machine, and their results."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from . import vm
from .kernel import ROOT
from .process import Failure, program

DIRECTORY = ROOT / "Tests/Lab"
# About how long a scenario takes without `# seconds: N` in its head.
SECONDS = 30


@dataclass
class Scenario:
    """A script; its head says what it shows, and may list its needs.

    `# when: named` is in the head of one that takes long. A disk is a size, or BUS:SIZE for one on a
    bus that only the emulated machine has.
    """

    path: Path
    title: str
    disks: tuple
    seconds: int
    programs: tuple
    # Programs of this machine, besides those that every scenario has.
    host: tuple
    # Takes so long that it runs only when it is named, or with --all.
    only_named: bool

    @property
    def name(self):
        return self.path.stem

    @property
    def needs_emulation(self):
        return any(":" in disk for disk in self.disks)

    @property
    def limit(self):
        """The timeout in seconds; generous, since others run at the same time, on few processors."""
        return max(400, 8 * self.seconds)


def read(path):
    text = path.read_text()

    def value(key):
        found = re.search(rf"^# {key}: (.*)$", text, re.MULTILINE)
        return found and found[1].strip()

    disks = value("disks")
    return Scenario(path, value("shows") or "", tuple(disks.split()) if disks else vm.DISKS,
                    int(value("seconds") or SECONDS), tuple((value("programs") or "").split()),
                    tuple((value("host") or "").split()), value("when") == "named")


def every():
    return [read(path) for path in sorted(DIRECTORY.glob("*.sh"))]


def named(names):
    paths = {name: DIRECTORY / f"{name}.sh" for name in names}
    for name, path in paths.items():
        if not path.is_file():
            raise Failure(f"{name}: no such scenario; tools/lab list has them")
    return [read(path) for path in paths.values()]


def run(machine, scenario, programs, keep):
    """Runs it, prints a line, keeps its console when it failed; returns whether it passed."""
    own = {name: programs[name] for name in ("blkferry", *scenario.programs)}
    own |= {Path(name).name: program(name) for name in scenario.host}
    start = time.monotonic()
    console, is_over = machine.run(own, scenario.path, scenario.disks, scenario.limit)
    took = time.monotonic() - start
    passed = is_over and re.search(r"^LAB passed$", console, re.MULTILINE) is not None
    lines = [f"{'passed' if passed else 'FAILED'}  {scenario.name:24} {took:6.1f} s  "
             + scenario.title]
    kept = keep / f"{scenario.name}.console"
    if passed:
        kept.unlink(missing_ok=True)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        kept.write_text(console)
        reason = re.findall(r"^LAB failed.*$", console, re.MULTILINE)
        if not is_over:
            reason = [f"not over after {scenario.limit} s"]
        # The first one is that of the scenario; others follow from it.
        lines.append("        " + (reason[0] if reason else "ended without a result")
                     + f"; its console is in {kept}")
        lines += [f"        | {line}" for line in console.splitlines()[-40:]]
    # In one write, since others run at the same time.
    print("\n".join(lines), flush=True)
    return passed
