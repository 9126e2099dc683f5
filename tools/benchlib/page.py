# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Writes the results of `compare` as a page of the documentation, and quotes them in README.md."""

import re
import textwrap

from . import chart, facts, local
from .pair import CASES
from .peers import DIRECTIONS

TOOLS = ("blkferry", "pdiffcopy", "rsync")
PROGRAMS = ("blkferry", "pdiffcopy", "rsync", "nbdcopy", "nbdkit", "qemu-img", "dd", "bmaptool",
            "casync", "zsync", "partclone")
QUOTE = re.compile(r"(<!-- tools/bench compare writes these lines -->\n).*?(<!-- to here -->\n)",
                   re.DOTALL)

INTRODUCTION = """\
# Benchmarks

How long blkferry and other programs take for the same work, on the same devices, in the same rounds, beside the
limits of the machine. The generator of this page is

    tools/bench compare

which runs as root, on your machine too. Nothing of the page is written by hand. *s* is wall time in seconds, the median
with the least and the greatest of {rounds} rounds in brackets. *CPU* is the seconds of processor time of both sides
together, user and system. The lines in italics are the floors: the same work without a program around it.
"""

PDIFFCOPY = """\
## pdiffcopy's benchmark

pdiffcopy came with a benchmark. It makes two files equal, changes the first 10, 20 … 100 % of the target, and times
the run that makes them equal again.

![Time of a sync at growing change](benchmarks.svg)
"""

METHOD = """\
## How it was measured

The devices are two loop devices of {size} MiB of random data. The server listens on the loopback interface of the same
machine. It is restarted for each run, before the timing begins. Times are those of the whole client process, from its
start to its end. The programs are interleaved, and another one goes first in each round. Before each run the benchmark
brings the target into the state of the case, and drops both devices from the page cache. After each run it compares
source and target in full.

- CPU seconds are those of the client's and the server's processes. The kernel's own threads, which write to the files
  behind the loop devices, are not counted.
- The floors do the work without a program around it, each by the fastest of {ways} combinations of threads, read size
  and pages: both devices read with direct I/O; the same, and GMAC or Poly1305 computed of each 64 KiB; and the source
  read, sent over connections on the loopback interface, written with direct I/O and flushed. `tools/bench-floors.c` is
  their source.
- Where nearly everything has changed, `--whole-file` is faster than comparing. The steps of pdiffcopy's benchmark
  compare nevertheless, and so do all three programs there. The column "whole copy" is with `--whole-file`.
- Two loop devices in memory stand for very fast disks. On a slow disk or network all programs are as slow as that. Then
  the bytes that are read and sent count. Bytes on the wire are what the loopback interface counted during the run, both
  ways, headers of TCP and IP included.

What the programs do, and what not:

| program | compares with the target | flushes at the end | checks the data | remarks |
|---|---|---|---|---|
| blkferry | yes | yes | on the network, by digests | |
| pdiffcopy | yes | no | no | takes a device for empty, so it works on the files behind the devices, which are in the page cache. The fastest of its defaults, {many}, and blocks of 64 KiB |
| rsync | yes | no | by a checksum of the whole | reads the target first, then the source. It is made for files whose content moves, which does not happen on a disk |
| nbdcopy | no | yes | no | server: nbdkit. The fastest of four settings |
| qemu-img | no | yes | no | `convert -n` with direct I/O |
| dd | no | yes | no | with direct I/O |
| bmaptool | no | yes | no, without a block map | made for an image with a map of the blocks in use, which random data has not: `--nobmap` |
| casync | as a seed | no | by a digest of each chunk | makes an index and a store of compressed chunks of the source, then writes all of the target from its own chunks and the store. Both is timed |
| zsync | as a seed | no | by a digest of the whole | makes a control file of the source, then a new file from the old target and the ranges that differ, which a small web server sends. Both is timed. It only pulls, works on files, and does not change the old one |
| partclone.dd | no | yes | no | with `-f 0`, as its thread for progress otherwise makes each run take whole seconds |
| partclone.ext4 | no | yes | no | copies the blocks that the file system uses, and knows only file systems. So it is only in that case |

In the case of the file system the target is zeros before each run. So unused blocks, which partclone.ext4 does not
copy, are equal.
"""


def write(result, machine, directory):
    """Writes the page and its chart, and the figures into the README.md beside the directory."""
    (directory / "benchmarks.svg").write_text(chart.drawn(result))
    (directory / "benchmarks.md").write_text(written(result, machine))
    readme = directory.resolve().parent / "README.md"
    text = readme.read_text() if readme.exists() else ""
    if QUOTE.search(text):
        readme.write_text(QUOTE.sub(lambda found: found[1] + quote(result, machine) + found[2], text))
    else:
        print(f"{readme}: no place for the figures, which are\n{quote(result, machine)}")


def written(result, machine):
    """The page as Markdown."""
    one, both = result["local"], result["net"]
    many = f"`--concurrency={2 * machine['processors']}`"
    parts = [
        INTRODUCTION.format(rounds=result["rounds"]), conditions(machine, both),
        "## One machine\n", *cases_tables(one["cases"], local.TITLES, ""),
        "## Two machines\n",
        f"`blkferry` uses {both['digest']}, on which both sides agreed; the row below is the other "
        "digest.\n",
        *(part for direction in DIRECTIONS for part in (
            f"{direction.capitalize()}:\n", *cases_tables(
                both["cases"], {**CASES, "all": "whole copy"}, direction))),
        PDIFFCOPY,
        *(steps_table(direction, result["steps"]) for direction in DIRECTIONS),
        METHOD.format(size=result["size"] >> 20, many=many, ways=len(one["floorSearch"])),
        commands(result["commands"]),
    ]
    if result["missing"]:
        parts.append("## Missing\n\n" + "".join(
            f"- {name}: {reason}\n" for name, reason in result["missing"].items()))
    return "\n".join(parts)


def kernel(machine):
    """The kernel's version, without what a distributor adds to it."""
    return re.match(r"[\d.]*\d|", machine["kernel"])[0]


def conditions(machine, both):
    versions = ", ".join(f"{name} {facts.version(machine[name])}" for name in PROGRAMS)
    rows = [("processor", f"{machine['cpu']}, {machine['processors']} of them"),
            ("its instructions", " ".join(machine["flags"])),
            ("memory", f"{machine['memory'] / 2**30:.0f} GiB"),
            ("system", f"{machine['system']}, Linux {kernel(machine)}, "
                       f"libcrypto {facts.version(machine['openssl'])}"),
            ("devices", machine["backing"]),
            ("digest", f"{both['digest']}, on which client and server agreed"),
            ("programs", versions)]
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def times(entry):
    """The cells of wall and CPU seconds."""
    if not entry:
        return ["", ""]
    return [f"{entry['median']:.2f} ({entry['min']:.2f}-{entry['max']:.2f})", f"{entry['cpu']:.2f}"]


def table(heads, rows):
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def is_floor(name):
    return name == "floor" or name.startswith("read")


def cases_tables(cases, titles, direction):
    """Tables of programs by cases, with at most four cases each."""
    for start in range(0, len(titles), 4):
        chosen = list(titles)[start:start + 4]
        names = sorted(dict.fromkeys(name for case in chosen for name in cases[case]),
                       key=lambda name: not is_floor(name))
        heads = ["", *(head for case in chosen for head in (f"{titles[case]}, s", "CPU"))]
        rows = []
        for name in names:
            # The floors have no direction.
            if direction and name.split()[-1] in DIRECTIONS and not name.endswith(direction):
                continue
            label = name.removesuffix(f" {direction}")
            if is_floor(name):
                label = f"*{label.replace('floor', 'read')}*"
            entries = [cases[case].get(name) for case in chosen]
            rows.append([label, *(cell for entry in entries for cell in times(entry))])
        yield table(heads, rows)


def steps_table(direction, steps):
    heads = ["changed", *(head for tool in TOOLS for head in (f"{tool}, s", "CPU")),
             *(f"{tool} / blkferry" for tool in TOOLS[1:]),
             *(f"{'wire, MiB: ' if tool == TOOLS[0] else ''}{tool}" for tool in TOOLS)]
    rows = []
    for case, figures in steps.items():
        ferry, *others = entries = [figures.get(f"{tool} {direction}") for tool in TOOLS]
        rows.append([
            f"{case.removeprefix('first')} %",
            *(cell for entry in entries for cell in times(entry)),
            *(f"{other['median'] / ferry['median']:.1f}" if ferry and other else "-"
              for other in others),
            *(f"{entry['wire'] / 2**20:.1f}" if entry else "-" for entry in entries)])
    return f"{direction.capitalize()}:\n\n" + table(heads, rows)


def commands(lines):
    """The command lines of one machine, and of server and client."""
    parts = ["## Commands\n\nThe command, or those on the server and on the client, by program and "
             "direction. Whole copies\nover the network are with `--whole-file`.\n"]
    parts += [f"{name}:\n\n" + "".join(f"    {line}\n" for line in both)
              for name, both in lines.items()]
    return "\n".join(parts)


def quote(result, machine):
    """The sentences for README.md."""
    one, both = result["local"]["cases"], result["net"]["cases"]

    def taken(case, name):
        return f"{case[name]['median']:.3g}"

    def others(case, *names):
        return ", ".join(f"{name.split()[0]} {taken(case, name)}" for name in names if name in case)

    case, pull, whole = one["random1"], both["random1"], both["all"]
    size = result["size"]
    amount = f"{size >> 30} GiB" if size >> 30 else f"{size >> 20} MiB"
    words = (
        f"Medians of {result['rounds']} rounds on {machine['processors']} processors "
        f"({machine['cpu']}), Linux {kernel(machine)}. With two loop devices of {amount} in "
        f"memory and 1\xa0% of the blocks changed, a local sync took {taken(case, 'blkferry')} s "
        f"({others(case, 'dd', 'qemu-img', 'rsync', 'casync')}). "
        f"A pull over the loopback interface took {taken(pull, 'blkferry pull')} s "
        f"({others(pull, 'pdiffcopy pull', 'rsync pull', 'zsync pull')}), "
        f"and a whole copy {taken(whole, 'blkferry pull')} s "
        f"({others(whole, 'nbdcopy pull', 'rsync pull')}; reading, moving and writing alone "
        f"{taken(whole, 'read + move + write')}).")
    return textwrap.fill(words, 118, break_on_hyphens=False).replace("\xa0", " ") + "\n"
