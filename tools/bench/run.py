#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway benchmark: kvsteer beside HAProxy, nginx and no gateway at all, in one run on one machine.

Client, gateway and pods have a network namespace each (kvs-bench-c, -g, -p), joined by veth pairs; the direct
connection is routed through the gateway's namespace. Each window starts its gateway afresh; rounds are interleaved
and each begins with another candidate. docs/benchmarks.md tells what the numbers mean.
"""
import argparse
import ctypes
import fcntl
import glob
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

NS = {"client": "kvs-bench-c", "gw": "kvs-bench-g", "pods": "kvs-bench-p"}
GW_ADDR, GW_PORT, ADMIN_PORT = "10.231.1.1", 8080, 9090
PODS = ["10.231.2.%d:8000" % n for n in (11, 12, 13)]
FOREIGN_MAX = 0.5  # cores that others took, above which a window is measured again
PATIENCE = 150  # seconds after which no window is measured again
MEASURES = ("small", "stream", "long", "memory")


def sh(cmd, check=True):
    r = subprocess.run(cmd, shell=isinstance(cmd, str), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if check and r.returncode:
        raise RuntimeError("%s: %s" % (cmd, r.stderr.strip() or "exit %d" % r.returncode))
    return r.stdout


def read(path):
    with open(path) as f:
        return f.read()


def read_if(path):
    try:
        return read(path)
    except OSError:
        return ""


def inside(ns):
    """Enters the network namespace alone: `ip netns exec` would hide the control groups and bpffs below /sys."""
    return ["nsenter", "--net=/run/netns/" + NS[ns]]


# A bpffs of its own for whoever pins programs: nothing stays behind, and a gateway of this machine is not met.
APART = ["unshare", "--mount", "sh", "-c", 'mount -t bpf bpf /sys/fs/bpf 2>/dev/null; exec "$@"', "sh"]


class Groups:
    """Control groups of our own: else autogroup gives each login session an equal share, idle class or not."""

    def __init__(self):
        self.root, self.made = None, {}
        if os.path.exists("/sys/fs/cgroup/cpu/cpu.shares"):
            self.root = "/sys/fs/cgroup/cpu"
        elif os.path.exists("/sys/fs/cgroup/cgroup.subtree_control"):
            if "cpu" in read("/sys/fs/cgroup/cgroup.subtree_control").split():
                self.root = "/sys/fs/cgroup"
        for name in ("client", "pods", "gw", "soak") if self.root else ():
            d = "%s/kvs-bench-%s" % (self.root, name)
            try:
                os.makedirs(d, exist_ok=True)
                if name == "soak" and os.path.exists(d + "/cpu.idle"):
                    with open(d + "/cpu.idle", "w") as f:
                        f.write("1")
                self.made[name] = d
            except OSError:
                self.root = None
                break

    def enter(self, name):
        if name in self.made:
            with open(self.made[name] + "/cgroup.procs", "w") as f:
                f.write(str(os.getpid()))

    def remove(self):
        for d in self.made.values():
            for _ in range(20):
                try:
                    os.rmdir(d)
                    break
                except OSError:
                    time.sleep(0.05)


def tree(pid):
    """A process and all below it."""
    pids = [pid]
    for p in pids:
        for f in glob.glob("/proc/%d/task/*/children" % p):
            try:
                pids += [int(c) for c in read(f).split()]
            except OSError:
                pass
    return pids


def cpu_ns(pids):
    total = 0
    for p in pids:
        for f in glob.glob("/proc/%d/task/*/schedstat" % p):
            try:
                total += int(read(f).split()[0])
            except OSError:
                pass
    return total


def rss(pids):
    key = "Pss:" if len(pids) > 1 else "Rss:"
    return sum(int(re.search("^" + key + r"\s+(\d+)", read("/proc/%d/smaps_rollup" % p), re.M).group(1)) * 1024
               for p in pids)


class Lab:
    """Namespaces, pods and the soaker; knows how to run things in their place."""

    def __init__(self, bin_dir):
        # Before anything of an earlier run is removed: an idle namespace may be another run's.
        self.lock = open("/run/kvs-bench.lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit("kvbench: another benchmark runs on this machine") from None
        busy = [ns for ns in NS.values() if os.path.exists("/run/netns/" + ns) and sh("ip netns pids " + ns).split()]
        if busy:
            raise SystemExit("kvbench: processes run in %s: another benchmark?" % ", ".join(busy))
        self.kvbench = os.path.abspath(bin_dir + "/kvbench")
        self.dir = tempfile.mkdtemp(prefix="kvs-bench-")
        self.procs, self.soak = [], None
        self.patience = time.monotonic() + PATIENCE
        self.groups = Groups()
        # Works for whoever sends: not foreign.
        self.softirqs = [int(p.split("/")[2]) for p in glob.glob("/proc/[0-9]*/comm")
                         if read_if(p).startswith("ksoftirqd")]
        for ns in NS.values():
            if os.path.exists("/run/netns/" + ns):
                sh("ip netns del " + ns)
        for ns in NS.values():
            sh("ip netns add " + ns)
            sh("ip -n %s link set lo up" % ns)
            sh("ip netns exec %s sysctl -qw net.core.somaxconn=4096 net.ipv4.tcp_max_syn_backlog=8192 "
               "net.ipv4.ip_local_port_range='10000 65000'" % ns)
        c, g, p = NS["client"], NS["gw"], NS["pods"]
        sh("ip -n %s link add kvs-bench-c0 type veth peer name kvs-bench-g0 netns %s" % (c, g))
        sh("ip -n %s link add kvs-bench-g1 type veth peer name kvs-bench-p0 netns %s" % (g, p))
        for ns, dev, addr in ((c, "kvs-bench-c0", "10.231.1.2"), (g, "kvs-bench-g0", GW_ADDR),
                              (g, "kvs-bench-g1", "10.231.2.1"),
                              *((p, "kvs-bench-p0", a.split(":")[0]) for a in PODS)):
            sh("ip -n %s addr add %s/24 dev %s" % (ns, addr, dev))
            sh("ip -n %s link set %s up" % (ns, dev))
        sh("ip netns exec %s sysctl -qw net.ipv4.ip_forward=1" % g)
        sh("ip -n %s route add 10.231.2.0/24 via %s" % (c, GW_ADDR))
        sh("ip -n %s route add 10.231.1.0/24 via 10.231.2.1" % p)
        self.pods = self.spawn("pods", "pods", [self.kvbench, "pods"] + PODS)
        self.wait_port(PODS[0])

    def spawn(self, group, ns, cmd, log=None):
        def enter():
            self.groups.enter(group)
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: nothing stays if we are killed

        out = open(log, "w") if log else subprocess.DEVNULL
        p = subprocess.Popen((inside(ns) if ns else []) + cmd, stdin=subprocess.DEVNULL,
                             stdout=out, stderr=out, preexec_fn=enter)
        self.procs.append(p)
        return p

    def end(self, p):
        p.terminate()
        try:
            p.wait(3)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(p.pid)):
                os.kill(pid, signal.SIGKILL)
            p.wait()
        self.procs.remove(p)

    def get(self, addr, path, ns="client"):
        r = subprocess.run(inside(ns) + [self.kvbench, "get", addr, path], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, text=True)
        return r.stdout if r.returncode == 0 else ""

    def wait_port(self, addr):
        for _ in range(100):
            if '"m"' in self.get(addr, "/v1/models"):
                return
            time.sleep(0.05)
        raise RuntimeError("%s does not list the model: not ready" % addr)

    def soak_start(self):
        if not self.soak:
            path = self.dir + "/soak"
            self.soak = self.spawn("soak", None, [self.kvbench, "soak", path])
            for _ in range(100):  # in the idle class a busy machine lets it wait
                time.sleep(0.1)
                if os.path.exists(path) and os.path.getsize(path):
                    return
            raise RuntimeError("the soaker does not get to run: the machine is busy")

    def soak_stop(self):
        if self.soak:
            self.end(self.soak)
            self.soak = None

    def calm(self):
        """Waits, a few seconds at most, until others leave the CPUs alone (where that can be seen exactly)."""
        acct = "/sys/fs/cgroup/cpuacct/cpuacct.usage"
        if not os.path.exists(acct):
            return
        mine = [p.pid for p in self.procs]
        for _ in range(20):
            if time.monotonic() > self.patience:
                return
            t, busy, own = time.monotonic(), int(read(acct)), cpu_ns(mine)
            time.sleep(0.3)
            foreign = int(read(acct)) - busy - (cpu_ns(mine) - own)
            if foreign / 1e9 / (time.monotonic() - t) < FOREIGN_MAX / 2:
                return

    def load(self, target, gw_pids, **opts):
        """One window. Measured again (twice at most, and while time is left) if others took more than half a core."""
        best = None
        for _ in range(3):
            self.calm()
            r = self.load_once(target, gw_pids, opts)
            if best is None or r["foreign"] < best["foreign"]:
                best = r
            if r["foreign"] <= FOREIGN_MAX or opts["k"] in ("hold", "idle") or time.monotonic() > self.patience:
                break
        return best

    seed = 0

    def load_once(self, target, gw_pids, opts):
        own = [self.pods.pid] + self.softirqs + ([self.soak.pid] if self.soak else [])
        Lab.seed += 1
        cmd = inside("client") + [self.kvbench, "load", "-t", target, "-S", str(Lab.seed),
               "-o", ",".join(map(str, own))]
        if gw_pids:
            cmd += ["-g", ",".join(map(str, gw_pids))]
        if self.soak:
            cmd += ["-i", self.dir + "/soak"]
        for k, v in opts.items():
            cmd += ["-" + k, str(v)]
        r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           preexec_fn=lambda: self.groups.enter("client"))
        if r.returncode:
            raise RuntimeError("kvbench load: " + r.stderr.strip())
        j = json.loads(r.stdout)
        j["foreign"] = max(0, j["busy_ns"] - j["own_ns"]) / 1e9 / j["seconds"] if j["seconds"] else 0
        return j

    def close(self):
        for p in list(self.procs):
            self.end(p)
        for ns in NS.values():
            sh("ip netns del " + ns, check=False)
        self.groups.remove()
        shutil.rmtree(self.dir, ignore_errors=True)


class Direct:
    name, target = "direct", ",".join(PODS)

    def __init__(self, lab):
        self.lab = lab

    def missing(self):
        return None

    def start(self):
        return []

    def stop(self):
        pass


class Gateway:
    target = "%s:%d" % (GW_ADDR, GW_PORT)

    def __init__(self, lab):
        self.lab, self.proc = lab, None
        self.dir = "%s/%s" % (lab.dir, self.name)
        os.makedirs(self.dir)
        os.chmod(lab.dir, 0o755)  # nginx's workers are nobody

    def missing(self):
        return None if shutil.which(self.program) else "%s is not installed" % self.program

    def start(self):
        log = self.dir + "/log"
        self.proc = self.lab.spawn("gw", "gw", APART + self.command(), log)
        try:
            self.lab.wait_port(self.target)
        except RuntimeError:
            sys.stderr.write(read(log)[-2000:])
            raise
        return tree(self.proc.pid)

    def stop(self):
        if self.proc:
            self.lab.end(self.proc)
            self.proc = None


class HAProxy(Gateway):
    name = program = "haproxy"

    def command(self):
        with open(self.dir + "/cfg", "w") as f:
            f.write("""global
  maxconn 8000
  nbthread 2
defaults
  mode http
  option http-no-delay
  option abortonclose
  http-reuse safe
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-request 20s
frontend f
  bind %s backlog 4096
  default_backend b
backend b
  balance roundrobin
""" % self.target + "".join("  server s%d %s\n" % (i, p) for i, p in enumerate(PODS)))
        return ["haproxy", "-db", "-f", self.dir + "/cfg"]


class Nginx(Gateway):
    name = program = "nginx"

    def command(self):
        tmp = "".join(" %s_temp_path %s/%s;" % (k, self.dir, k)
                      for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(self.dir + "/conf", "w") as f:
            f.write("""daemon off;
worker_processes 2;
worker_rlimit_nofile 20000;
pid %s/pid;
events { worker_connections 12000; }
http {
  access_log off;
 %s
  upstream pods {
%s
    keepalive 64;
  }
  server {
    listen %s backlog=4096;
    client_max_body_size 64m;
    client_body_buffer_size 256k;
    keepalive_requests 1000000;
    keepalive_timeout 120s;
    location / {
      proxy_pass http://pods;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
    }
  }
}
""" % (self.dir, tmp, "\n".join("    server %s max_fails=0;" % p for p in PODS), self.target))
        return ["nginx", "-c", self.dir + "/conf", "-e", self.dir + "/log.error"]


class Kvsteer(Gateway):
    program = "kvsteerd"

    def __init__(self, lab, name):
        kind, _, where = name.partition("@")
        self.name = kind + ("@" + where.strip("/").replace("/", "_") if where else "")
        self.datapath = kind.partition("-")[2] or "relay"
        self.path = (os.path.abspath(where) if where else os.path.dirname(lab.kvbench)) + "/kvsteerd"
        super().__init__(lab)

    def missing(self):
        return None if os.access(self.path, os.X_OK) else "%s is not built" % os.path.relpath(self.path)

    def command(self):
        cmd = [self.path, "--listen", self.target, "--datapath", self.datapath, "--workers", "2", "--control",
               self.dir + "/control", "--set", "log.level=warn", "--set", "admin.address=%s:%d" % (GW_ADDR, ADMIN_PORT)]
        for p in PODS:
            cmd += ["--pod", p]
        return cmd

    def decisions(self):
        """(number, seconds) since start."""
        text = self.lab.get("%s:%d" % (GW_ADDR, ADMIN_PORT), "/metrics")
        found = [re.findall(r"^kvsteer_decision_seconds_%s(?:\{[^}]*\})? ([0-9.e+-]+)" % k, text, re.M)
                 for k in ("count", "sum")]
        return tuple(sum(map(float, f)) for f in found) if all(found) else None


def candidate(lab, name):
    kinds = {"direct": Direct, "haproxy": HAProxy, "nginx": Nginx}
    if name in kinds:
        return kinds[name](lab)
    if re.match("kvsteer[-@]|kvsteer$", name):
        return Kvsteer(lab, name)
    sys.exit("kvbench: no candidate %s; there are direct, kvsteer[-MODE][@DIR], haproxy, nginx" % name)


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


def small(res, c, pids, args):
    r = c.lab.load(c.target, pids, k="small", c=64, r=args.rate, s=0.5, d=1.5 if args.quick else 3, b=1024)
    bad(res, "small", c.name, r)
    if pids and r["done"]:
        res.add("small: gateway CPU per request, µs", c.name, r["gw_ns"] / r["done"] / 1e3)
    for q in ("p50", "p99"):
        res.add("small: latency %s, µs" % q, c.name, us(r["latency"].get(q)))


def stream(res, c, pids, args):
    dur = 1.5 if args.quick else 3
    r = c.lab.load(c.target, pids, k="stream", c=64, r=640, s=0.5, d=dur, b=1024,
                   e="%d,300,250" % int(300 * (dur + 1)))
    bad(res, "stream", c.name, r)
    if not r["events"]:
        return
    if pids:
        res.add("stream: gateway CPU per chunk, µs", c.name, r["gw_ns"] / r["events"] / 1e3)
    others = r["foreign"] * r["seconds"] * 1e9 if r["busy_exact"] else 0
    res.add("stream: machine CPU per chunk, µs", c.name, (r["taken_ns"] - others) / r["events"] / 1e3)
    for q in ("p50", "p99"):
        res.add("stream: chunk latency %s, µs" % q, c.name, us(r["chunk"].get(q)))


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
    if "memory" in args.only:
        for c in cands:
            if c.name == "direct":
                continue
            log("memory: " + c.name)
            try:
                memory(res, c, args)
            except RuntimeError as e:
                res.notes.append("memory, %s: %s" % (c.name, e))
            finally:
                c.stop()
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

    for k in (n for n in names if n.startswith("kvsteer")):
        kernel = k.partition("@")[0] not in ("kvsteer", "kvsteer-relay", "kvsteer-off")
        hap = lambda row, f=1: None if res.med(row, "haproxy") is None else res.med(row, "haproxy") * f

        row = "small: gateway CPU per request, µs"
        must(k + ": small CPU/request ≤ HAProxy's", res.med(row, k), hap(row), "µs")
        row = "stream: gateway CPU per chunk, µs"
        if kernel:
            must(k + ": user-space CPU/chunk ≈ 0", res.med(row, k), 0.3, "µs")
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


def show(res, names, args):
    head, body, w = table(res, names)
    print(machine())
    print("median (min–max) of %d rounds; memory and idle once" % args.rounds)
    for r in [head] + body:
        print("  ".join(v.ljust(w[i]) if i == 0 else v.rjust(w[i]) for i, v in enumerate(r)))
    print()
    for line in verdicts(res, names):
        print(line)
    for n in res.notes:
        print("note: " + n)


def markdown(res, names, args, path):
    head, body, _ = table(res, names)
    with open(path, "w") as f:
        f.write("%s. Median (min–max) of %d rounds; memory and idle once.\n\n" % (machine(), args.rounds))
        for r in [head, ["---"] + ["---:"] * len(names)] + body:
            f.write("| " + " | ".join(r) + " |\n")
        v = verdicts(res, names)
        if v:
            f.write("\nWhat must be reached, and whether it was:\n\n```\n" + "\n".join(v) + "\n```\n")
        for n in res.notes:
            f.write("\n* " + n)
        if res.notes:
            f.write("\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--bin", default=".output/bin", help="where kvbench and kvsteerd are")
    p.add_argument("--only", default=",".join(MEASURES), help="of small,stream,long,memory")
    p.add_argument("--candidates", default="direct,kvsteer,haproxy,nginx",
                   help="kvsteer relays; kvsteer-MODE runs it with --datapath MODE; kvsteer@DIR is the kvsteerd in DIR")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--rate", type=int, default=2000, help="requests a second of the small load")
    p.add_argument("--quick", action="store_true", help="shorter windows, 1,000 connections for memory")
    p.add_argument("--md", metavar="FILE", help="write the table as Markdown as well")
    args = p.parse_args()
    args.only = args.only.split(",")
    for o in args.only:
        if o not in MEASURES:
            p.error("no measure %s; there are %s" % (o, ", ".join(MEASURES)))
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
    show(res, names, args)
    if args.md:
        markdown(res, names, args, args.md)


if __name__ == "__main__":
    main()
