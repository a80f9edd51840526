# SPDX-License-Identifier: Apache-2.0
"""What came out of a run, and how it is written."""
import os
import platform
import re
import statistics
import time

from lab import FOREIGN_MAX, read


class Results:
    """Values of all rounds by (measure row, candidate)."""

    def __init__(self):
        self.rows, self.values, self.notes, self.foreign = [], {}, [], {}

    def add(self, row, name, value):
        if row not in self.rows:
            self.rows.append(row)
        if value is not None:
            self.values.setdefault((row, name), []).append(value)

    def med(self, row, name):
        v = self.values.get((row, name))
        return statistics.median(v) if v else None

    def low(self, row, name):
        v = self.values.get((row, name))
        return min(v) if v else None


def bad(res, what, name, r):
    """A load counts as carried if 97 % of what was due was done, with at most 0.5 % errors."""
    if r["errors"] > 0.005 * r["issued"] or r["complete"] < 0.97 * r["issued"]:
        res.notes.append("%s, %s: not carried: %d of %d done, %d errors%s" % (
            what, name, r["complete"], r["issued"], r["errors"],
            " (status %d)" % r["bad_status"] if r["bad_status"] else ""))
    if r["foreign"] > FOREIGN_MAX:
        res.foreign.setdefault(what, []).append(r["foreign"])


def us(ns):
    return None if ns is None else ns / 1e3


def num(v):
    return "%.0f" % v if abs(v) >= 1000 else "%.1f" % v if abs(v) >= 10 else "%.2f" % v


def cell(v):
    if not v:
        return "–"
    if len(v) == 1:
        return num(v[0])
    return "%s (%s–%s)" % (num(statistics.median(v)), num(min(v)), num(max(v)))


def machine():
    cpu = re.search(r"^model name\s*:\s*(.*)$", read("/proc/cpuinfo"), re.M)
    mem = int(re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo")).group(1)) / 1e6
    return "%s, Linux %s, %d CPUs (%s), %.0f GB" % (time.strftime("%Y-%m-%d %H:%M"), platform.release().split("-")[0],
                                                    os.cpu_count(), cpu.group(1) if cpu else platform.machine(), mem)


def table(res, names):
    head = [""] + names
    body = [[row] + [cell(res.values.get((row, n))) for n in names] for row in res.rows]
    w = [max(len(r[i]) for r in [head] + body) for i in range(len(head))]
    return head, body, w


def show(res, names, args, verdicts):
    head, body, w = table(res, names)
    print(machine())
    print("median (min–max) of %d rounds; memory and idle once" % args.rounds)
    for r in [head] + body:
        print("  ".join(v.ljust(w[i]) if i == 0 else v.rjust(w[i]) for i, v in enumerate(r)))
    print()
    for line in verdicts:
        print(line)
    for n in res.notes:
        print("note: " + n)


def markdown(res, names, args, path, v):
    head, body, _ = table(res, names)
    with open(path, "w") as f:
        f.write("%s. Median (min–max) of %d rounds; memory and idle once.\n\n" % (machine(), args.rounds))
        for r in [head, ["---"] + ["---:"] * len(names)] + body:
            f.write("| " + " | ".join(r) + " |\n")
        if v:
            f.write("\nWhat must be reached, and whether it was:\n\n```\n" + "\n".join(v) + "\n```\n")
        for n in res.notes:
            f.write("\n* " + n)
        if res.notes:
            f.write("\n")
