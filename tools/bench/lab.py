# SPDX-License-Identifier: Apache-2.0
"""Where the benchmark runs: three network namespaces, the pods, and the gateways that are compared."""
import ctypes
import fcntl
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NS = {"client": "kvs-bench-c", "gw": "kvs-bench-g", "pods": "kvs-bench-p"}
GW_ADDR, GW_PORT, ADMIN_PORT = "10.231.1.1", 8080, 9090
PODS = ["10.231.2.%d:8000" % n for n in (11, 12, 13)]
FOREIGN_MAX = 0.5  # cores that others took, above which a window is measured again
PATIENCE = 150  # seconds after which no window is measured again


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


def wakeups(pids):
    tasks = [t for p in pids for t in glob.glob("/proc/%d/task/*/status" % p)]
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", read(t), re.M).group(1)) for t in tasks)


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

    def load_begin(self, target, gw_pids, opts):
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
        return subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=lambda: self.groups.enter("client"))

    def load_end(self, p):
        out, err = p.communicate()
        if p.returncode:
            raise RuntimeError("kvbench load: " + err.strip())
        j = json.loads(out)
        j["foreign"] = max(0, j["busy_ns"] - j["own_ns"]) / 1e9 / j["seconds"] if j["seconds"] else 0
        return j

    def load_once(self, target, gw_pids, opts):
        return self.load_end(self.load_begin(target, gw_pids, opts))

    def lose(self, side, ppm):
        """So many of a million packets, in both directions, of the device of the client or the pods."""
        dev = {"client": "kvs-bench-c0", "pods": "kvs-bench-p0"}[side]
        sh(inside(side) + [self.kvbench, "loss", str(ppm), dev])

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

    def metrics(self):
        return self.lab.get("%s:%d" % (GW_ADDR, ADMIN_PORT), "/metrics")

    def metric(self, name, labels=""):
        """The sum of a metric's lines with these labels."""
        lines = re.findall(r"^kvsteer_%s(\{[^}]*\})? ([0-9.e+-]+)$" % name, self.metrics(), re.M)
        return sum(float(v) for have, v in lines if labels in have)

    def decisions(self):
        """(number, seconds) since start."""
        text = self.metrics()
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
