# SPDX-License-Identifier: Apache-2.0
"""What the splice has to keep to beside the load of streams: losses, long answers, readers that stop, many streams, and
that nothing is left behind. Most of the loads go through the other candidates as well."""
import glob
import re
import time

from lab import NS, Kvsteer, read, read_if, rss, sh, tree
from results import bad, us

CONN_KEY, CONN_VALUE = 36, 72  # kvs_conns: a hash by both ends of a connection
RETAIN = 120  # seconds for which a closed connection is remembered, KVS_RETAIN_SEC
BIG = 16384  # pieces of 64 KB: 1 GB


def maps(pid):
    """The BPF maps that a process has open: id → type, key_size, value_size, max_entries, memlock."""
    found = {}
    for f in glob.glob("/proc/%d/fdinfo/*" % pid):
        d = dict(re.findall(r"^(\w+):\s*(\d+)$", read_if(f), re.M))
        if "map_id" in d:
            found[d["map_id"]] = {k: int(v) for k, v in d.items()}
    return found.values()


def conns_bytes(pid):
    """Memory of the map of connections; what it takes grows with its entries."""
    return sum(m["memlock"] for m in maps(pid) if (m["key_size"], m["value_size"]) == (CONN_KEY, CONN_VALUE))


def splice_bytes(pid):
    """Memory of the largest array: the splices."""
    arrays = [m for m in maps(pid) if m["map_type"] == 2 and 256 <= m["value_size"] <= 512]
    return max((m["memlock"] / m["max_entries"] for m in arrays), default=0)


def sockets_bytes(ns):
    """What the sockets of a namespace hold: received, queued to send, reserved, and the backlog."""
    out = sh("ip netns exec %s ss -tamnH" % NS[ns])
    return sum(sum(map(int, m)) for m in re.findall(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),o\d+,bl(\d+)", out))


def spliced(c):
    return isinstance(c, Kvsteer) and c.datapath not in ("relay", "off")


def armed(res, c):
    """Of the window's answers, all of which may be spliced: were they, and what did it take."""
    may, arms = c.metric("splice_pairs_total", 'result="ok"'), c.metric("splice_arm_seconds_total")
    if spliced(c) and may:
        res.add("stream: eligible answers not spliced, %", c.name,
                100 - 100 * c.metric("splice_rows_total", 'row="activated"') / may)
        res.add("stream: arming, µs per answer", c.name, arms * 1e6 / may)


def first(res, c, pids, args):
    """The first event of a short stream, when nothing else goes on that would keep a relay awake and its caches warm."""
    r = c.lab.load(c.target, pids, k="short", c=64, r=50, s=0.5, d=1.5 if args.quick else 3, b=1024, e="2,300,250")
    bad(res, "first token", c.name, r)
    for q in ("p50", "p90"):
        res.add("time to first token %s, µs" % q, c.name, us(r["ttft"].get(q)))


def loss(res, c, pids, args):
    for side in ("client", "pods"):
        c.lab.lose(side, 10000)
        try:
            r = c.lab.load(c.target, pids, k="stream", c=64, r=640, s=0.5, d=1.5 if args.quick else 3, b=1024,
                           e="%d,300,250" % (1050 if not args.quick else 600))
        finally:
            c.lab.lose(side, 0)
        what = "1 %% loss, %s's side" % side.rstrip("s")
        bad(res, what, c.name, r)
        for q in ("p50", "p99"):
            res.add("%s: chunk latency %s, ms" % (what, q), c.name, us(r["chunk"].get(q)) / 1e3)


def big(res, c, pids, args):
    for kind, label in (("length", "Content-Length"), ("chunked", "chunked")):
        r = c.lab.load(c.target, pids, k=kind, c=1, r=100, s=0, d=0.01, b=1024,
                       e="%d,1,65536" % (BIG // 8 if args.quick else BIG))
        bad(res, label, c.name, r)
        if r["latency"].get("p50"):
            res.add("1 GB, %s: GB/s" % label, c.name, r["body_bytes"] / r["latency"]["p50"])


def stall(res, c, args):
    """A reader that stops: from flowing streams to the end of the stop."""
    stop = 5 if args.quick else 30
    pids = c.start()
    p = c.lab.load_begin(c.target, pids, dict(k="stall", c=64, r=640, s=2, d=stop, b=1024,
                                              e="%d,100,250" % (100 * (stop + 3))))
    try:
        time.sleep(1.5)
        before = rss(pids), sockets_bytes("gw")
        time.sleep(stop)
        after = rss(pids), sockets_bytes("gw")
    finally:
        r = c.lab.load_end(p)
    bad(res, "stall", c.name, r)
    res.add("64 readers stop for %d s: RSS grown, KB" % stop, c.name, (after[0] - before[0]) / 1e3)
    res.add("64 readers stop for %d s: sockets' memory grown, KB" % stop, c.name, (after[1] - before[1]) / 1e3)
    res.add("64 readers stop for %d s: streams lost" % stop, c.name, 64 - r["complete"])


def many(res, c, args):
    n = 1000 if args.quick else 5000
    pids = c.start()
    idle = conns_bytes(pids[0])
    p = c.lab.load_begin(c.target, pids, dict(k="hold", c=n, r=1250, s=1, d=0.5, b=1024, e="14,2,250"))
    active, held = 0, 0
    try:
        time.sleep(n / 1250 + 0.5)
        for _ in range(3 if spliced(c) else 0):
            active = max(active, c.metric("splices", 'state="active"'))
            held = max(held, conns_bytes(pids[0]) - idle)
            time.sleep(0.3)
    finally:
        r = c.lab.load_end(p)
    bad(res, "many streams", c.name, r)
    res.add("%d slow streams: lost" % n, c.name, n - r["complete"])
    if spliced(c):
        res.add("%d slow streams: not spliced" % n, c.name, n - active)
        res.add("%d slow streams: memory of maps each, bytes" % n, c.name, splice_bytes(pids[0]) + held / n)


def life(res, c, args):
    """Short streams, a connection each; then their time is waited for."""
    if not spliced(c):
        return
    n = 1000 if args.quick else 10000
    pids = c.start()
    empty = conns_bytes(pids[0])
    r = c.lab.load_once(c.target, pids, dict(k="churn", c=256, r=1000, s=0, d=n / 1000, b=1024, e="3,300,250"))
    bad(res, "short connections", c.name, r)
    most = conns_bytes(pids[0]) - empty
    time.sleep(RETAIN + 10)
    # What is left belongs to connections that are kept open to pods: as many as there are sockets.
    each = most / max(1, c.metric("splice_connections_total", 'result="ok"'))
    left = (conns_bytes(pids[0]) - empty) / each
    kept = len(sh("ip netns exec %s ss -tnH state established dst 10.231.2.0/24" % NS["gw"]).splitlines())
    res.add("%d connections: answers not spliced" % n, c.name,
            r["complete"] - c.metric("splice_rows_total", 'row="activated"'))
    res.add("%d connections: entries left that no socket has" % n, c.name, max(0, left - kept))
    res.add("%d connections: splices left" % n, c.name, c.metric("splices"))


def verdicts(must, res, k, relay):
    """Of candidate <k>, which splices; <relay>: the same daemon relaying, or None."""
    med = lambda row, n=k, f=1: None if n is None or res.med(row, n) is None else res.med(row, n) * f
    must(k + ": CPU per chunk over the idle daemon", med("stream: gateway CPU per chunk over idle, ns"), 100, "ns")
    must(k + ": wake-ups per 1,000 chunks over it", med("stream: gateway wake-ups per 1,000 chunks over idle"), 1, "")
    row = "stream: machine CPU per chunk over direct, µs"
    must(k + ": machine CPU/chunk over direct ≤ relay's", med(row), med(row, relay), "µs")
    must(k + ": eligible answers not spliced", med("stream: eligible answers not spliced, %"), 5, "%")
    must(k + ": arming", med("stream: arming, µs per answer"), 10, "µs")
    row = "time to first token p50, µs"
    must(k + ": time to first token ≤ relay's", med(row), med(row, relay), "µs")
    for side in ("client", "pod"):
        row = "1 %% loss, %s's side: chunk latency p99, ms" % side
        must("%s: 1 %% loss, %s's side, p99 ≤ relay's" % (k, side), med(row), med(row, relay), "ms")
    row = "1 GB, Content-Length: GB/s"
    must(k + ": 1 GB: 0.9 × direct ≤ Content-Length", med(row, "direct", 0.9), med(row), "GB/s")
    row = "1 GB, chunked: GB/s"
    must(k + ": 1 GB: 0.9 × relay ≤ chunked", med(row, relay, 0.9), med(row), "GB/s")
    for row in res.rows:
        bound = next((b for end, b in (("slow streams: not spliced", 0), ("memory of maps each, bytes", 1000),
                                       ("RSS grown, KB", 64), ("sockets' memory grown, KB", 64), ("streams lost", 0),
                                       ("entries left that no socket has", 0), ("splices left", 0))
                      if row.endswith(end)), None)
        must("%s: %s" % (k, row), med(row), bound, "") if bound is not None else None
