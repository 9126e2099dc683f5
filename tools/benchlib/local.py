# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Two loop devices on one machine, in six cases, several rounds, interleaved.

Four cases are those of random data. In the fifth every second block of the source is zeros, and
the target is full of other data; only blkferry and dd run there. In the sixth the source is an
ext4 file system, a third full, and the target zeros; only there partclone.ext4 does the same job
as the others.

The floor is both devices read with O_DIRECT and nothing else, by the number of threads, the read
size and the kind of memory (pages of 4 KiB or 2 MiB) that turn out fastest here. Before every run
the benchmark brings the target into the case's state and drops both devices from the page cache.
After it, it compares source and target. Neither is timed. The backing files are in memory, so that
the times are those of the program and not of a disk; --directory puts them elsewhere. rsync and
casync do not flush their writes; the others do. casync makes an index and a store of chunks first.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import facts, floors, machine
from .pair import CASES, DIRECTORY, Pair, rotated  # noqa: F401

ZEROS = "every second 4 KiB zeros"
EXT4 = "ext4, a third full, onto zeros"
NEEDED = ("floor", "blkferry", "dd", "qemu-img")  # for the speed targets
TITLES = {**CASES, "zeros": ZEROS, "ext4": EXT4}


@dataclass
class Tool:
    """A program, the cases in which it does the same job as blkferry, and what it leaves behind."""

    command: list
    cases: tuple = tuple(CASES)
    leaves: Path | None = None

    def run(self, place):
        try:
            return place.run(self.command)
        finally:
            if self.leaves:
                shutil.rmtree(self.leaves, ignore_errors=True)


def programs(place, binary, source, target):
    """The programs, by name."""
    store = place.directory / "chunks.castr"
    index = place.directory / "chunks.caibx"
    # With -f 0, as its thread for progress otherwise makes each run take whole seconds.
    partclone = ["-f", "0", "-s", source, "-O", target, "-L", f"{place.directory}/partclone.log"]
    tools = {
        "blkferry": Tool([binary, "sync", "--quiet", source, target],
                         (*CASES, "zeros", "ext4")),
        "dd": Tool(["dd", f"if={source}", f"of={target}", "iflag=direct", "oflag=direct", "bs=1M",
                    "conv=fdatasync", "status=none"], (*CASES, "zeros", "ext4")),
        "qemu-img": Tool(["qemu-img", "convert", "-n", "-W", "-t", "none", "-T", "none", "-f",
                          "raw", "-O", "raw", source, target], (*CASES, "ext4")),
        "rsync": Tool(["rsync", "-I", "--inplace", "--no-whole-file", "--copy-devices",
                       "--write-devices", source, target]),
        "bmaptool": Tool(["bmaptool", "-q", "copy", "--nobmap", source, target], ("all",)),
        "partclone.dd": Tool(["partclone.dd", *partclone], ("all",)),
        "partclone.ext4": Tool(["partclone.ext4", "-b", *partclone], ("ext4",)),
        "casync": Tool(["sh", "-c", f"casync make --store={store} {index} {source} >/dev/null && "
                        f"casync extract --store={store} {index} {target}"], leaves=store),
    }
    missing = {}
    for name in list(tools):
        program = "casync" if name == "casync" else tools[name].command[0]
        if not shutil.which(program):
            missing[name] = f"no {program}"
        elif name == "rsync" and not facts.first_line("rsync", "--help", contains="--copy-devices"):
            missing[name] = "this version knows no --copy-devices"
    for name, reason in missing.items():
        print(f"Left out: {name}: {reason}")
        del tools[name]
    return tools, missing


def measure(options, place):
    facts.print_header(facts.description(options.binary, options.directory))
    place.need(4 * options.size + (64 << 20))
    with Pair(place, options.size) as pair:
        print(f"{options.size >> 20} MiB each, {options.rounds} rounds")
        result = cases(options, place, pair, floors.fastest(place, "read", pair))
    result["goals"] = goals(result["cases"])
    return result


def cases(options, place, pair, floor):
    """All cases; the pair holds a file system at the end."""
    tools, missing = programs(place, options.binary, pair.source.path, pair.target.path)
    result = {"floorSearch": floor.tried, "missing": missing, "cases": {},
              "commands": {name: tool.command for name, tool in tools.items()}}

    def rounds(case, prepare):
        """The runs of a case; `prepare` gives the function that times one."""
        chosen = {name: tool for name, tool in tools.items() if case in tool.cases}
        runs = {name: [] for name in ("floor", *chosen)}
        for number in range(options.rounds):
            for name in rotated(list(runs), number):
                try:
                    if name == "floor":
                        figures = pair.timed(name, None, lambda: place.run(floor.command))
                    else:
                        figures = prepare(name, lambda: chosen[name].run(place))
                    runs[name].append(figures)
                except machine.Failure as failure:
                    if name in NEEDED:
                        raise
                    print(f"Left out: {name}, {TITLES[case]}: {failure}")
                    missing[f"{name}, {TITLES[case]}"] = str(failure)
                    del runs[name]
                    pair.restore()
        result["cases"][case] = {name: machine.summary(list_) for name, list_ in runs.items()}
        print_table(TITLES[case], result["cases"][case])

    for case in CASES:
        rounds(case, lambda name, run: pair.timed(name, case, run))
    pair.zero_every_second_block()
    # "all" fills the target: the inverse of zeros is data.
    rounds("zeros", lambda name, run: pair.timed(name, "all", run))
    make_file_system(place, pair)
    rounds("ext4", lambda name, run: onto_zeros(pair, name, run))
    return result


def make_file_system(place, pair):
    """Makes the source an ext4 file system, a third full of random data, its free blocks zeros."""
    pair.fill_with_zeros(pair.source)
    files = place.directory / "files"
    files.mkdir()
    try:
        for number in range(8):
            subprocess.run(["dd", "if=/dev/urandom", f"of={files}/{number}", "bs=64K",
                            f"count={pair.size // 3 // 8 >> 16}", "status=none"], check=True)
        machine.make("mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
                     "-d", str(files), pair.source.path)
    finally:
        shutil.rmtree(files)


def onto_zeros(pair, name, run):
    """Times a run onto zeros, so that unused blocks are equal if they are not copied."""
    pair.fill_with_zeros(pair.target)
    figures = pair.timed(name, None, run)
    pair.check(f"{name}, {EXT4}")
    return figures


def print_table(title, figures):
    floor = figures["floor"]["median"]
    machine.print_table(title, figures, {
        "to floor": lambda _, entry: f"{entry['median'] / floor:.2f}",
        "peak MiB": machine.mebibytes("peakMemory")})


def goals(cases):
    """The speed targets, met or missed."""
    def median(case, tool):
        return cases[case][tool]["median"]

    found = []

    def goal(text, figure, limit):
        found.append(machine.goal(text, figure, limit))

    for case, limit in (("identical", 1.25), ("random1", 1.6)):
        goal(f"{CASES[case]}, ratio to the floor",
             median(case, "blkferry") / median(case, "floor"), limit)
    goal("all changed, seconds, no slower than the faster of dd and qemu-img",
         median("all", "blkferry"), min(median("all", "dd"), median("all", "qemu-img")))
    goal(f"{ZEROS}, seconds, no slower than twice dd",
         median("zeros", "blkferry"), 2 * median("zeros", "dd"))
    for case in CASES:
        if "rsync" in cases[case]:
            goal(f"{CASES[case]}, seconds, no slower than rsync", median(case, "blkferry"),
                 median(case, "rsync"))
    peak = max(cases[case]["blkferry"]["peakMemory"] for case in CASES) / 2**20
    goal("peak memory in all cases, MiB", peak, 64)
    return found
