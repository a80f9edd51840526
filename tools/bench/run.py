#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway benchmark: kvsteer beside HAProxy, nginx and no gateway at all, in one run on one machine.

Client, gateway and pods have a network namespace each (kvs-bench-c, -g, -p), joined by veth pairs; the direct
connection is routed through the gateway's namespace. Each window starts its gateway afresh; rounds are interleaved
and each begins with another candidate. docs/benchmarks.md tells what the numbers mean.
"""
import argparse
import os
import signal
import sys
import time

sys.dont_write_bytecode = True

import splice  # noqa: E402
from lab import Kvsteer, Lab, candidate, cpu_ns, rss, tree, wakeups  # noqa: E402
from results import Results, bad, markdown, num, show, us  # noqa: E402

MEASURES = ("small", "stream", "long", "memory")
SPLICE = ("first", "loss", "big", "many", "stall", "life")


def small(res, c, pids, args):
    r = c.lab.load(c.target, pids, k="small", c=64, r=args.rate, s=0.5, d=1.5 if args.quick else 3, b=1024)
    bad(res, "small", c.name, r)
    if pids and r["done"]:
        res.add("small: gateway CPU per request, µs", c.name, r["gw_ns"] / r["done"] / 1e3)
    for q in ("p50", "p99"):
        res.add("small: latency %s, µs" % q, c.name, us(r["latency"].get(q)))


def idle_rates(pids):
    """What a gateway does in a second without a request: scrapes, timers."""
    time.sleep(0.5)
    t, cpu, wakes = time.monotonic(), cpu_ns(pids), wakeups(pids)
    time.sleep(1.5)
    t = time.monotonic() - t
    return {"gw_ns": (cpu_ns(pids) - cpu) / t, "gw_wakes": (wakeups(pids) - wakes) / t}


def stream(res, c, pids, args):
    dur = 1.5 if args.quick else 3
    idle = idle_rates(pids) if pids else None
    # Two seconds in, what a beginning leaves to do is over: wake-ups are those of a steady state.
    r = c.lab.load(c.target, pids, k="stream", c=64, r=640, s=2, d=dur, b=1024, e="%d,300,250" % int(300 * (dur + 2.5)))
    bad(res, "stream", c.name, r)
    if not r["events"]:
        return
    if pids:
        res.add("stream: gateway CPU per chunk, µs", c.name, r["gw_ns"] / r["events"] / 1e3)
        for k, what in (("gw_ns", "CPU per chunk over idle, ns"), ("gw_wakes", "wake-ups per 1,000 chunks over idle")):
            extra = (r[k] - idle[k] * r["seconds"]) / r["events"]
            res.add("stream: gateway " + what, c.name, extra * (1 if k == "gw_ns" else 1000))
    others = r["foreign"] * r["seconds"] * 1e9 if r["busy_exact"] else 0
    res.add("stream: machine CPU per chunk, µs", c.name, (r["taken_ns"] - others) / r["events"] / 1e3)
    for q in ("p50", "p99"):
        res.add("stream: chunk latency %s, µs" % q, c.name, us(r["chunk"].get(q)))
    res.add("stream: time to first token p50, µs", c.name, us(r["ttft"].get("p50")))
    if isinstance(c, Kvsteer):
        splice.armed(res, c)


def long(res, c, pids, args):
    for label, size, rate in (("220 KB", 220 << 10, 80), ("1 MB", 1 << 20, 20)):
        before = c.decisions() if isinstance(c, Kvsteer) else None
        r = c.lab.load(c.target, pids, k="long", c=16, r=rate, s=0.6, d=1 if args.quick else 2, b=size)
        after = c.decisions() if before else None
        bad(res, label, c.name, r)
        if pids and r["done"]:
            res.add("%s: gateway CPU per request, µs" % label, c.name, r["gw_ns"] / r["done"] / 1e3)
        for k in ("first", "last"):
            res.add("%s: last byte written → %s byte at the pod, p50 µs" % (label, k), c.name, us(r[k].get("p50")))
        res.add("%s: latency p50, µs" % label, c.name, us(r["latency"].get("p50")))
        if after and after[0] > before[0]:
            res.add("%s: decision, mean µs" % label, c.name, (after[1] - before[1]) / (after[0] - before[0]) * 1e6)


def memory(res, c, args):
    n = 1000 if args.quick else 5000
    pids = c.start()
    time.sleep(0.5)
    pids = tree(c.proc.pid)
    res.add("memory: RSS before traffic, MB", c.name, rss(pids) / 1e6)
    t, cpu = time.monotonic(), cpu_ns(pids)
    time.sleep(2 if args.quick else 5)
    res.add("idle: CPU, % of a core", c.name, (cpu_ns(pids) - cpu) / 1e7 / (time.monotonic() - t))
    r = c.lab.load(c.target, pids, k="idle", c=n, r=2500, s=1, d=0.05, b=1024)
    bad(res, "idle connections", c.name, r)
    res.add("memory: per idle connection, KB", c.name, (r["rss"] - r["rss_base"]) / max(1, r["complete"]) / 1e3)
    c.stop()
    pids = c.start()
    r = c.lab.load(c.target, pids, k="hold", c=n, r=1250, s=1, d=0.5, b=1024, e="12,2,250")
    bad(res, "slow streams", c.name, r)
    res.add("memory: per slow stream, KB", c.name, (r["rss"] - r["rss_base"]) / max(1, r["begun"]) / 1e3)
    res.add("memory: slow streams lost", c.name, n - r["complete"])
    c.stop()


def rounds(res, cands, args, what, fn, log):
    for i in range(args.rounds):
        at = i % len(cands)
        for c in cands[at:] + cands[:at]:
            log("%s, round %d: %s" % (what, i + 1, c.name))
            try:
                fn(res, c, c.start(), args)
            except RuntimeError as e:
                res.notes.append("%s, %s: %s" % (what, c.name, e))
            finally:
                c.stop()


def once(res, c, args, what, fn, log):
    log("%s: %s" % (what, c.name))
    try:
        fn(res, c, args)
    except RuntimeError as e:
        res.notes.append("%s, %s: %s" % (what, c.name, e))
    finally:
        c.stop()


def run(lab, args, log):
    res = Results()
    cands = []
    for name in args.candidates.split(","):
        c = candidate(lab, name)
        why = c.missing()
        if why:
            res.notes.append("%s left out: %s" % (name, why))
        else:
            cands.append(c)
    if "small" in args.only:
        rounds(res, cands, args, "small", small, log)
    if "stream" in args.only:
        lab.soak_start()
        rounds(res, cands, args, "stream", stream, log)
        lab.soak_stop()
    if "long" in args.only:
        rounds(res, cands, args, "long", long, log)
    if "first" in args.only:
        rounds(res, cands, args, "first", splice.first, log)
    if "loss" in args.only:
        rounds(res, cands, args, "loss", splice.loss, log)
    if "big" in args.only:
        rounds(res, cands, args, "big", splice.big, log)
    for what, fn in (("memory", memory), ("many", splice.many), ("stall", splice.stall), ("life", splice.life)):
        for c in cands if what in args.only else ():
            if c.name != "direct":
                once(res, c, args, what, fn, log)
    for c in cands[1:] if cands and cands[0].name == "direct" else ():
        row = "stream: machine CPU per chunk, µs"
        for over, base in zip(res.values.get((row, c.name), []), res.values.get((row, "direct"), [])):
            res.add("stream: machine CPU per chunk over direct, µs", c.name, over - base)
    for what, cores in res.foreign.items():
        res.notes.append("%s: others took up to %.1f cores in %d windows" % (what, max(cores), len(cores)))
    return res, [c.name for c in cands]


def verdicts(res, names):
    """(text, measured, bound, unit) of what must be reached; rows that were not measured are left out."""
    out = []

    def must(text, have, bound, unit):
        if have is not None and bound is not None:
            out.append("%-58s %10s ≤ %-10s %s" % (text, num(have), num(bound) + " " + unit,
                                                 "yes" if have <= bound else "NO"))

    relay = next((n for n in names if n in ("kvsteer", "kvsteer-relay")), None)
    for k in (n for n in names if n.startswith("kvsteer")):
        kernel = k.partition("@")[0] not in ("kvsteer", "kvsteer-relay", "kvsteer-off")
        hap = lambda row, f=1: None if res.med(row, "haproxy") is None else res.med(row, "haproxy") * f

        row = "small: gateway CPU per request, µs"
        must(k + ": small CPU/request ≤ HAProxy's", res.med(row, k), hap(row), "µs")
        row = "stream: gateway CPU per chunk, µs"
        if kernel:
            must(k + ": daemon's CPU/chunk", res.med(row, k), 0.5, "µs")
            splice.verdicts(must, res, k, relay)
        else:
            must(k + ": relayed CPU/chunk ≤ HAProxy's", res.med(row, k), hap(row), "µs")
        row = "stream: machine CPU per chunk over direct, µs"
        what = "0.3 × HAProxy's" if kernel else "HAProxy's"
        must("%s: machine CPU/chunk over direct ≤ %s" % (k, what), res.med(row, k), hap(row, 0.3 if kernel else 1),
             "µs")
        p50, p99 = "stream: chunk latency p50, µs", "stream: chunk latency p99, µs"
        if kernel and res.med(p50, "direct") is not None:
            must(k + ": chunk p50 ≤ direct + 20 µs", res.med(p50, k), res.med(p50, "direct") + 20, "µs")
            must(k + ": chunk p99 ≤ 2 × direct's (minima)", res.low(p99, k), 2 * res.low(p99, "direct"), "µs")
        elif not kernel:
            must(k + ": chunk p99 ≤ HAProxy's (minima)", res.low(p99, k), res.low(p99, "haproxy"), "µs")
        for label, bound in (("220 KB", 200), ("1 MB", 500)):
            row = label + ": gateway CPU per request, µs"
            must("%s: %s CPU/request ≤ 1.5 × HAProxy's" % (k, label), res.med(row, k), hap(row, 1.5), "µs")
            row = label + ": last byte written → first byte at the pod, p50 µs"
            must("%s: %s last byte in → first byte at the pod" % (k, label), res.med(row, k), bound, "µs")
        must(k + ": 220 KB decision", res.med("220 KB: decision, mean µs", k), 150, "µs")
        must(k + ": RSS before traffic", res.med("memory: RSS before traffic, MB", k), 32, "MB")
        must(k + ": memory per relayed stream", res.med("memory: per slow stream, KB", k), 5, "KB")
        must(k + ": memory per idle connection", res.med("memory: per idle connection, KB", k), 1.5, "KB")
        n = res.med("memory: slow streams lost", k)
        must(k + ": slow streams lost", n, 0, "")
        must(k + ": idle CPU", res.med("idle: CPU, % of a core", k), 1, "%")
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--bin", default=".output/bin", help="where kvbench and kvsteerd are")
    p.add_argument("--only", default=",".join(MEASURES), help="of " + ",".join(MEASURES + SPLICE))
    p.add_argument("--candidates", default="direct,kvsteer,haproxy,nginx",
                   help="kvsteer relays; kvsteer-MODE runs it with --datapath MODE; kvsteer@DIR is the kvsteerd in DIR")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--rate", type=int, default=2000, help="requests a second of the small load")
    p.add_argument("--quick", action="store_true", help="shorter windows, 1,000 connections for memory")
    p.add_argument("--md", metavar="FILE", help="write the table as Markdown as well")
    args = p.parse_args()
    args.only = args.only.split(",")
    for o in args.only:
        if o not in MEASURES + SPLICE:
            p.error("no measure %s; there are %s" % (o, ", ".join(MEASURES + SPLICE)))
    if os.geteuid():
        sys.exit("kvbench: needs root, for network namespaces")
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    if not os.access(args.bin + "/kvbench", os.X_OK):
        sys.exit("kvbench: %s/kvbench is not built; run: make" % args.bin)
    signal.signal(signal.SIGTERM, lambda *a: sys.exit(143))
    began = time.monotonic()
    lab = Lab(args.bin)
    try:
        res, names = run(lab, args, lambda s: print("%5.0f s  %s" % (time.monotonic() - began, s), file=sys.stderr))
    finally:
        lab.close()
    v = verdicts(res, names)
    show(res, names, args, v)
    if args.md:
        markdown(res, names, args, args.md, v)


if __name__ == "__main__":
    main()
