# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""What the hardware allows: both devices read, read and hashed, and a copy read, moved and written.

tools/bench-floors.c does each in many ways, and the fastest counts.
"""

import itertools
import statistics
from dataclasses import dataclass

from . import machine

KIB = 1 << 10
WAYS = tuple(itertools.product(
    (1, 2, 4, 8, 16), (128 * KIB, 256 * KIB, 512 * KIB, 1024 * KIB, 2048 * KIB, 4096 * KIB),
    ("small", "huge")))


@dataclass
class Floor:
    """A mode of the program in its fastest way here."""

    mode: str
    command: list
    way: dict
    tried: list

    @property
    def name(self):
        return {"read": "read", "move": "read + move + write"}.get(self.mode, f"read + {self.mode}")

    @property
    def case(self):
        """The state that it starts from; reading needs none."""
        return "all" if self.mode == "move" else None


def found(place, modes, pair):
    """The floors of these modes, without GMAC on a processor that has no instructions for it."""
    floors = []
    for mode in modes:
        try:
            floors.append(fastest(place, mode, pair))
        except machine.Failure as failure:
            if mode != "gmac":
                raise
            print(f"Left out: floor, read + {mode}: {failure}")
    return floors


def fastest(place, mode, pair):
    """The floor of a mode of bench-floors: `read`, `gmac`, `poly1305` or `move`."""
    tried = []
    for threads, size, pages in WAYS:
        command = [place.floors, mode, str(threads), str(size), pages,
                   pair.source.path, pair.target.path]
        tried.append({"threads": threads, "readSize": size, "pages": pages, "command": command,
                      "seconds": median(place.run(command) for _ in range(3))})
    # The best of many is mostly the luckiest, so the leaders run again, in turn.
    leaders = sorted(tried, key=lambda entry: entry["seconds"])[:6]
    again = [[place.run(entry["command"]) for entry in leaders] for _ in range(11)]
    for entry, runs in zip(leaders, zip(*again)):
        entry["seconds"] = median(runs)
    best = min(leaders, key=lambda entry: entry["seconds"])
    floor = Floor(mode, best["command"], best, tried)
    print(f"Floor, {floor.name}: {best['threads']} threads with {best['readSize'] // KIB} KiB in "
          f"{best['pages']} pages are the fastest of {len(tried)} ways")
    for entry in tried:
        del entry["command"]
    return floor


def median(runs):
    return statistics.median(run.seconds for run in runs)
