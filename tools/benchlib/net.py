# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Two loop devices over the loopback interface, in four cases, several rounds, interleaved.

blkferry, pdiffcopy, nbdcopy from nbdkit, and rsync from its daemon, each as pull (from the server)
and as push (to it). The floor is both devices read with O_DIRECT and hashed with Poly1305, 64 KiB
at a time, and nothing else, by the fastest of many ways. For pdiffcopy and nbdcopy too the benchmark
tries several settings first and uses the fastest. Then the bytes on the wire, what a delay costs,
and peak memory. Each run has a new server, which is ready when the timing begins. Before every run
the benchmark brings the target into the case's state and drops both devices from the page cache.
After it, it compares source and target.

Then, as a part of its own (`--only secure`): what TLS costs blkferry, beside plain HTTP in the same
rounds, and whole copies over ssh by blkferry and by rsync. Each run has a new sshd as well, with keys
and settings of its own; the cipher is ssh's default. Several settings of both are tried first. The
time includes the login.

pdiffcopy cannot copy devices, so it works on the files behind them. nbdcopy makes whole copies only.
pdiffcopy and rsync do not flush their writes. --directory is as for `local`.
"""

from . import machine, secure, servers, wire
from .pair import CASES, DIRECTORY, Pair, fastest_floor, rotated, title  # noqa: F401
from .peers import DIRECTIONS, contestants

LIMIT = 600  # seconds for one run
TRIES = 2  # of each way, to find the fastest; no more than there are rounds


class Benchmark:
    """The contestants, their times, and the failures."""

    def __init__(self, options, place, pair, contestants, missing):
        self.options = options
        self.place = place
        self.pair = pair
        self.contestants = contestants
        self.missing = missing

    def run(self, contestant, way, case):
        """One run; returns seconds, the client's peak KiB, the server's peak bytes."""
        def client():
            port = servers.free_port()
            with contestant.server_class(
                    self.place, way.server(port), port, contestant.is_ready) as server:
                figures = self.place.run(way.client(port, case), limit=LIMIT)
                return (*figures, server.peak_memory())

        return self.pair.timed(contestant.name, case, client)

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
                    seconds[way.label] = min(figures[0], seconds.get(way.label, figures[0]))
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

    def rounds(self, cases, floor=None):
        """All runs, as case, then name, then runs."""
        runs = {case: {} for case in cases}
        everybody = [*([None] if floor else []), *self.contestants]
        for number in range(self.options.rounds):
            for case in cases:
                for one in rotated(everybody, number):
                    if one is None:
                        figures = self.pair.timed(
                            "floor", None, lambda: (*self.place.run(floor), 0))
                        runs[case].setdefault("floor", []).append(figures)
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
    place.need(2 * options.size + wire.space(options.size) + (64 << 20))
    with Pair(place, options.size) as pair:
        return measure_pair(options, place, pair)


def measure_pair(options, place, pair):
    print(f"Two loop devices of {options.size >> 20} MiB on files in {options.directory}, "
          f"{options.rounds} rounds, servers on {servers.HOST}")
    result = {"missing": {}, "goals": []}
    for part, (maker, measurer) in PARTS.items():
        if options.only in (None, part):
            found, missing = maker(options.binary, place, pair)
            benchmark = Benchmark(options, place, pair, found, missing)
            figures = measurer(benchmark)
            result["goals"] += figures.pop("goals")
            result["missing"].update(benchmark.missing)
            result.update(figures)
    print_missing(result["missing"])
    return result


def measure_plain(benchmark):
    floor, tried = fastest_floor(benchmark.place, "hash", benchmark.pair)
    benchmark.choose_all()
    runs = benchmark.rounds(CASES, floor)
    result = {"floorSearch": tried, "commands": {"floor": floor, **benchmark.commands()},
              "cases": {}}
    order = ["floor", *(one.name for one in benchmark.contestants)]
    for case, by_name in runs.items():
        result["cases"][case] = {name: summary(by_name[name]) for name in order
                                 if name in by_name}
        print_table("whole copy, all changed" if case == "all" else CASES[case],
                    result["cases"][case])
    result["wire"] = wire.measure_wire(benchmark)
    result["delay"] = wire.measure_delay(benchmark)
    result["memory"] = wire.measure_memory(benchmark)
    result["goals"] = goals(result["cases"]) + wire.goals(result, benchmark.pair.size)
    return result


def summary(runs):
    return {**machine.summary(runs), "serverPeakMemory": max(run[2] for run in runs)}


def print_table(title, figures):
    floor = figures["floor"]["median"]
    print(f"\n{title}\n  {'':14} {'median s':>9} {'min':>8} {'max':>8} {'to floor':>9} "
          f"{'client MiB':>11} {'server MiB':>11}")
    for name, entry in figures.items():
        print(f"  {name:14} {entry['median']:9.3f} {entry['min']:8.3f} {entry['max']:8.3f} "
              f"{entry['median'] / floor:9.2f} {entry['peakMemory'] / 2**20:11.1f} "
              f"{entry['serverPeakMemory'] / 2**20:11.1f}")


def print_missing(missing):
    if missing:
        print("\nMissing")
    for name, reason in missing.items():
        print(f"  {name}: {reason}")


def goals(cases):
    """The speed targets of the cases, met or missed."""
    found = []

    def ratio(text, case, one, other, limit):
        figures = [cases[case].get(name) for name in (one, other)]
        figure = figures[0]["median"] / figures[1]["median"] if all(figures) else None
        found.append(machine.goal(text, figure, limit))

    for direction in DIRECTIONS:
        ferry = f"blkferry {direction}"
        ratio(f"{ferry}, identical, ratio to the floor", "identical", ferry, "floor", 1.3)
        for case, times in (("identical", 4), ("random1", 8), ("first10", 4)):
            ratio(f"{ferry}, {CASES[case]}, part of pdiffcopy's time, {times} times as fast", case,
                  ferry, f"pdiffcopy {direction}", 1 / times)
        ratio(f"{ferry}, whole copy, ratio to nbdcopy's time", "all", ferry,
              f"nbdcopy {direction}", 1)
    return found


# The contestants, and how each is measured.
PARTS = {"plain": (contestants, measure_plain), "secure": (secure.contestants, secure.measure)}
