# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Two loop devices over the loopback interface, in four cases, several rounds, interleaved.

blkferry with the digest that both sides agree on and with the other one, pdiffcopy, nbdcopy from
nbdkit, rsync from its daemon, and zsync, each as pull (from the server) and as push (to it). The
floors are both devices read with O_DIRECT and hashed 64 KiB at a time, by each of the two digests,
and beside whole copies the source read, sent over the loopback interface, and written with a flush
at the end, each by the fastest of many ways. For pdiffcopy and nbdcopy too the benchmark tries
several settings first and uses the fastest. Then the bytes on the wire, what a delay costs, and
peak memory. Each run has a new server, which is ready when the timing begins. Before every run the
benchmark brings the target into the case's state and drops both devices from the page cache. After
it, it compares source and target. CPU seconds are those of client and server together, without the
kernel's own threads.

Then, as a part of its own (`--only secure`): what TLS costs blkferry, beside plain HTTP in the
same rounds, and whole copies over ssh by blkferry and by rsync. Each run has a new sshd as well,
with keys and settings of its own; the cipher is ssh's default. Several settings of both are tried
first. The time includes the login.

pdiffcopy cannot copy devices, so it works on the files behind them, and so does zsync, which only
pulls and writes a new file. nbdcopy makes whole copies only. pdiffcopy, rsync and zsync do not
flush their writes. --directory is as for `local`.
"""

from pathlib import Path

from . import facts, floors, machine, peers, secure, servers, wire
from .pair import CASES, DIRECTORY, Pair, rotated, title  # noqa: F401
from .peers import DIRECTIONS

LIMIT = 600  # seconds for one run
TRIES = 2  # of each way, to find the fastest; no more than there are rounds
WIRE = Path("/sys/class/net/lo/statistics/rx_bytes")


class Benchmark:
    """The contestants, their times, and the failures."""

    def __init__(self, options, place, pair, contestants, missing):
        self.options = options
        self.place = place
        self.pair = pair
        self.contestants = contestants
        self.missing = missing

    def run(self, contestant, way, case):
        """The figures of one run, of both sides."""
        def client():
            port = servers.free_port()
            with contestant.server_class(
                    self.place, way.server(port), port, contestant.is_ready) as server:
                before = int(WIRE.read_text())
                figures = self.place.run(way.client(port, case), limit=LIMIT)
                figures.wire = int(WIRE.read_text()) - before
                figures.server_peak = server.peak_memory()
                figures.cpu += server.cpu()
                return figures

        return self.pair.timed(contestant.name, case, client, contestant.output)

    def attempt(self, contestant, way, case):
        """The same, but after a failure it returns the reason and makes the pair equal again."""
        try:
            return self.run(contestant, way, case)
        except machine.Failure as failure:
            self.pair.restore()
            return str(failure)

    def leave_out(self, contestant, case, reason):
        name = f"{contestant.name}, {title(case)}"
        self.missing[name] = reason
        print(f"Left out: {name}: {reason}")

    def choose(self, contestant, case):
        """Finds the fastest way for a case; ignores a way that fails, as with an old version."""
        if len(contestant.ways) == 1:
            contestant.chosen[case] = contestant.ways[0]
            return
        seconds, reason = {}, ""
        for _ in range(min(TRIES, self.options.rounds)):
            for way in contestant.ways:
                figures = self.attempt(contestant, way, case)
                if isinstance(figures, str):
                    reason = figures
                else:
                    seconds[way.label] = min(
                        figures.seconds, seconds.get(way.label, figures.seconds))
        if not seconds:
            self.leave_out(contestant, case, reason)
            return
        contestant.chosen[case] = min(
            contestant.ways, key=lambda way: seconds.get(way.label, float("inf")))
        print(f"{contestant.name}, {title(case)}: {contestant.chosen[case].label} is the fastest "
              f"of {len(contestant.ways)} ways")

    def choose_all(self):
        for contestant in self.contestants:
            for case in contestant.cases:
                self.choose(contestant, case)

    def rounds(self, cases, floors=()):
        """All runs, as case, then name, then runs; a floor that copies has a case of its own."""
        runs = {case: {} for case in cases}
        for number in range(self.options.rounds):
            for case in cases:
                for one in rotated([*floors, *self.contestants], number):
                    if one in floors:
                        if one.case in (None, case):
                            runs[case].setdefault(one.name, []).append(self.pair.timed(
                                one.name, one.case, lambda: self.place.run(one.command)))
                    elif case in one.chosen:
                        figures = self.attempt(one, one.chosen[case], case)
                        if isinstance(figures, str):
                            self.leave_out(one, case, figures)
                            del one.chosen[case]
                            runs[case].pop(one.name, None)
                        else:
                            runs[case].setdefault(one.name, []).append(figures)
        return runs

    def commands(self):
        """What was run, by name and case, with PORT for the port."""
        return {one.name: {case: {"way": way.label, "server": way.server("PORT"),
                                  "client": way.client("PORT", case)}
                           for case, way in one.chosen.items()} for one in self.contestants}


def measure(options, place):
    facts.print_header(facts.description(options.binary, options.directory))
    place.need(3 * options.size + wire.space(options.size) + (64 << 20))
    with Pair(place, options.size) as pair:
        print(f"{options.size >> 20} MiB each, {options.rounds} rounds, servers on {servers.HOST}")
        result = {"missing": {}, "goals": []}
        for part, measurer in PARTS.items():
            if options.only in (None, part):
                figures = measurer(options, place, pair)
                result["goals"] += figures.pop("goals")
                result["missing"].update(figures.pop("missing"))
                result.update(figures)
    print_missing(result["missing"])
    return result


def measure_plain(options, place, pair):
    digests = peers.negotiated(options.binary, place, pair)
    found = floors.found(place, ("gmac", "poly1305", "move"), pair)
    benchmark = started(options, place, pair, digests)
    result = cases(benchmark, digests, found)
    result["wire"] = wire.measure_wire(benchmark)
    result["delay"] = wire.measure_delay(benchmark)
    result["memory"] = wire.measure_memory(benchmark)
    result["goals"] = goals(result) + wire.goals(result, pair.size)
    result["missing"] = benchmark.missing
    return result


def measure_secure(options, place, pair):
    benchmark = Benchmark(options, place, pair, *secure.contestants(options.binary, place, pair))
    return {**secure.measure(benchmark), "missing": benchmark.missing}


def started(options, place, pair, digests):
    """The benchmark of the four cases, with the settings of each contestant chosen."""
    benchmark = Benchmark(
        options, place, pair, *peers.contestants(options.binary, place, pair, digests[1]))
    benchmark.choose_all()
    return benchmark


def cases(benchmark, digests, found):
    """The four cases."""
    runs = benchmark.rounds(CASES, found)
    result = {"digest": digests[0], "otherDigest": digests[1],
              "floorSearch": {floor.name: floor.tried for floor in found},
              "commands": benchmark.commands(), "cases": {}}
    order = [one.name for one in (*found, *benchmark.contestants)]
    for case, by_name in runs.items():
        figures = {name: machine.summary(by_name[name]) for name in order if name in by_name}
        result["cases"][case] = figures
        print_table("whole copy, all changed" if case == "all" else CASES[case], figures,
                    floor_name(result, case))
    return result


def floor_name(result, case):
    """The floor of a case: a whole copy needs no digest."""
    if case == "all":
        return "read + move + write"
    return f"read + {'gmac' if result['digest'] == 'gmac' else 'poly1305'}"


def print_table(title, figures, floor):
    least = figures[floor]["median"]
    machine.print_table(title, figures, {
        "to floor": lambda _, entry: f"{entry['median'] / least:.2f}",
        "client MiB": machine.mebibytes("peakMemory"),
        "server MiB": machine.mebibytes("serverPeakMemory")})


def print_missing(missing):
    if missing:
        print("\nMissing")
    for name, reason in missing.items():
        print(f"  {name}: {reason}")


def goals(result):
    """The speed targets of the cases, met or missed."""
    found = []

    def ratio(text, case, one, other, limit, key="median"):
        figures = [result["cases"][case].get(name) for name in (one, other)]
        figure = figures[0][key] / figures[1][key] if all(figures) else None
        found.append(machine.goal(text, figure, limit))

    for direction in DIRECTIONS:
        ferry, nbdcopy = f"blkferry {direction}", f"nbdcopy {direction}"
        ratio(f"{ferry}, identical, ratio to the floor", "identical", ferry,
              floor_name(result, "identical"), 1.3)
        ratio(f"{ferry}, whole copy, ratio to the floor", "all", ferry, floor_name(result, "all"),
              1.4)
        for case, times in (("identical", 4), ("random1", 10), ("first10", 4)):
            ratio(f"{ferry}, {CASES[case]}, part of pdiffcopy's time, {times} times as fast", case,
                  ferry, f"pdiffcopy {direction}", 1 / times)
        ratio(f"{ferry}, whole copy, ratio to nbdcopy's time", "all", ferry, nbdcopy, 1)
        ratio(f"{ferry}, whole copy, ratio to nbdcopy's CPU seconds", "all", ferry, nbdcopy, 1,
              "cpu")
    return found


PARTS = {"plain": measure_plain, "secure": measure_secure}
