# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests are made of: a network namespace of their own, the built programs, scripted pods, a client
that shows every byte.

A test file ends with lib.main(globals()): each function test_* is one case, its name the expectation. Cases print
`ok NAME`, `not ok NAME - why` or `skip NAME - why`, one line each; the exit status is 1 if one failed.

A case runs over loopback, where everything is relayed. With @lib.wire("tc") it runs with client and pods in namespaces of
their own and the kernel as carrier; with several carriers named, once with each.
"""
import contextlib
import ctypes
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("KVS_BIN", os.path.join(TOP, ".output/bin"))


class Skip(Exception):
    pass


class Fail(Exception):
    pass


def need(cond, why):
    if not cond:
        raise Fail(why)


def until(f, what, timeout=5.0, step=0.005):
    """f()'s first true value, within <timeout> seconds."""
    end = time.time() + timeout
    while True:
        v = f()
        if v:
            return v
        if time.time() > end:
            raise Fail("not within %g s: %s" % (timeout, what))
        time.sleep(step)


def run(*argv):
    r = subprocess.run(argv, capture_output=True, text=True)
    need(r.returncode == 0, "%s: %s%s" % (" ".join(argv), r.stdout, r.stderr))
    return r.stdout


# --- the world: re-executed in namespaces whose loopback and mounts are ours alone ---

def enter_namespace():
    if os.environ.get("KVS_E2E_NS"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    if os.geteuid() != 0:
        print("skip %s - needs root for a network namespace" % os.path.basename(sys.argv[0]))
        sys.exit(77)
    os.environ["KVS_E2E_NS"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable] + sys.argv)


CLONE_NEWNET = 0x40000000


def setns(fd):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """A network namespace. Its name lies in a /run/netns of our own, so it ends with this process."""

    def __init__(self, name):
        self.name = name
        run("ip", "netns", "add", name)
        self.fd = os.open("/run/netns/" + name, os.O_RDONLY)
        self.ip("link", "set", "lo", "up")

    def ip(self, *args):
        return run("ip", "-n", self.name, *args)

    @contextlib.contextmanager
    def inside(self):
        """This thread is in it; sockets that it makes stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        setns(self.fd)
        try:
            yield
        finally:
            setns(home)
            os.close(home)


class Wire:
    """A client and two hosts of pods, joined to us, the gateway's host, by veth pairs; and a bpffs that only we see.

        kvs-c 10.97.0.2 ── c0 10.97.0.1 (here) p1 10.97.1.1 ── kvs-p1 10.97.1.3 .5 .7 .9
                                               p2 10.97.2.1 ── kvs-p2 10.97.2.2 .4 .6 .8
    and the same with fd97:N::.
    """

    def __init__(self):
        run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
        os.makedirs("/run/netns", exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        self.client = self.join("kvs-c", "c0", 0, [2])
        self.pods = [self.join("kvs-p2", "p2", 2, [2, 4, 6, 8]), self.join("kvs-p1", "p1", 1, [3, 5, 7, 9])]

    def join(self, name, dev, net, hosts):
        ns = Namespace(name)
        self.plug(ns, dev, net, hosts)
        return ns

    def plug(self, ns, dev, net, hosts):
        run("ip", "link", "add", dev, "type", "veth", "peer", "name", "e0", "netns", ns.name)
        for h in hosts:
            ns.ip("addr", "add", "10.97.%d.%d/24" % (net, h), "dev", "e0")
            ns.ip("addr", "add", "fd97:%d::%d/64" % (net, h), "dev", "e0", "nodad")
        run("ip", "addr", "add", "10.97.%d.1/24" % net, "dev", dev)
        run("ip", "addr", "add", "fd97:%d::1/64" % net, "dev", dev, "nodad")
        ns.ip("link", "set", "e0", "up")
        run("ip", "link", "set", dev, "up")
        ns.ip("route", "add", "default", "via", "10.97.%d.1" % net)
        ns.ip("route", "add", "default", "via", "fd97:%d::1" % net)


class Here:
    """Loopback: no namespace to enter."""
    inside = staticmethod(contextlib.nullcontext)


the_wire = []


def wire(*carriers, family=4):
    """Run the case with client and pods behind wires, with each of these as datapath.mode."""
    def mark(f):
        f.carriers, f.family = carriers, family
        return f
    return mark


def also(carrier):
    """Run the case over loopback, and once more behind wires."""
    return wire(None, carrier)


class Proc:
    """A program under test; its output is kept for the report of a failure."""

    def __init__(self, argv, name):
        self.log = tempfile.NamedTemporaryFile(prefix="kvs-%s-" % name, suffix=".log")
        self.p = subprocess.Popen(argv, stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.pid = self.p.pid

    def output(self):
        with open(self.log.name, errors="replace") as f:
            return f.read()

    def alive(self):
        return self.p.poll() is None

    def rss(self):
        with open("/proc/%d/statm" % self.pid) as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def stop(self, sig=signal.SIGKILL, timeout=10):
        if self.alive():
            self.p.send_signal(sig)
            try:
                self.p.wait(timeout)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        return self.p.returncode


class World:
    """Everything that one case has started; ended with it."""

    def __init__(self, carrier=None, family=4):
        self.procs, self.pods, self.conns, self.next_port = [], [], [], 21000
        self.dir = tempfile.TemporaryDirectory(prefix="kvs-e2e-")
        self.carrier, self.family, self.net, self.client = carrier, family, None, Here
        self.odd = set()  # counts that this case expects to be more than 0, of those that never should
        if carrier:
            if not the_wire:
                the_wire.append(Wire())
            self.net, self.client = the_wire[0], the_wire[0].client

    def port(self):
        self.next_port += 1
        return self.next_port

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def close(self):
        for p in reversed(self.procs):
            p.stop()
        for c in self.conns + self.pods:
            c.close()
        if self.net:
            subprocess.run([os.path.join(BIN, "kvsteer"), "bpf", "unload"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.dir.cleanup()

    def place(self, ip):
        """Where 127.0.0.N is in this world: the namespace and the address."""
        if not self.net:
            return Here, ip
        n = int(ip.rsplit(".", 1)[1])
        return self.net.pods[n % 2], ("10.97.%d.%d" if self.family == 4 else "fd97:%d::%d") % (2 - n % 2, n)

    NEVER = ["splice_rows_total{row=\"%s\"}" % r for r in ("failed", "to_client_stolen", "to_pod_stolen", "orphaned", "copy_lost", "ring_full",
                                                          "client_ack_unsent", "pod_broken", "pod_outside_window", "syn_of_open")]
    NEVER += ["splice_arms_total{result=\"%s\"}" % r for r in ("unbound", "state", "miscount", "framing")]
    NEVER += ["splice_pairs_total{result=\"%s\"}" % r for r in ("no_handshake", "timestamps", "tuple_busy", "bound", "kernel_error", "no_device")]
    NEVER += ["splice_housekeeping_total{what=\"orphan_stuck\"}"]

    def nothing_is_left(self):
        """When all peers have closed, the kernel's maps are empty once datapath.retain has passed; and nothing odd was counted."""
        g = [p for p in self.procs if isinstance(p, Gateway) and p.alive()]
        if not self.net or not g or g[-1].status()["datapath"]["carrier"] != "tc":
            return
        g = g[-1]
        for c in self.conns + self.pods:
            c.close()
        until(lambda: not g.flows(), "no splice is left: %s" % g.flows())
        for m in ("kvs_conns", "kvs_dials") + (() if "kvs_syns" in self.odd else ("kvs_syns",)):
            until(lambda: not g.cli("bpf", "dump", m), "%s is empty: %s" % (m, g.cli("bpf", "dump", m)), 8)
        need(g.status()["streams"] == 0, "%d streams" % g.status()["streams"])
        page = g.page("/metrics")
        for name in self.NEVER:
            n = int(re.search("^kvsteer_" + re.escape(name) + r" (\d+)$", page, re.M)[1])
            need(not n or name in self.odd or any(o in name for o in self.odd), "%s is %d" % (name, n))

    def start(self, argv, name):
        p = Proc(argv, name)
        self.procs.append(p)
        return p

    def pod(self, handler, ip="127.0.0.2", models=("m",)):
        ns, ip = self.place(ip)
        p = Pod(handler, ip, self.port(), models, ns)
        self.pods.append(p)
        return p

    def sim(self, *args, ip="127.0.0.3", model="m", events=True, wait=True, wires=False):
        """<wires>: where the case's carrier is, else on our own loopback."""
        return Sim(self, args, ip, model, events, wait, wires)

    def gateway(self, pods, extra="", limits="", listener="", pool="", wait=True, health="200ms", **kw):
        return Gateway(self, pods, extra, limits, listener, pool, wait, health, **kw)


class Gateway(Proc):
    def __init__(self, w, pods, extra, limits, listener, pool, wait, health, datapath=None, workers=2, ip=None, port=None):
        ip = ip or ("127.0.0.1" if not w.net else "10.97.0.1" if w.family == 4 else "fd97:0::1")
        self.w, self.addr = w, (ip, port or w.port())
        self.admin = ("127.0.0.1", w.port())
        self.ctl = w.path("ctl-%d.sock" % self.admin[1])
        self.config = w.path("kvsteer-%d.yaml" % self.admin[1])
        with open(self.config, "w") as f:
            f.write("listeners: [{address: \"%s\"%s}]\n" % (address(*self.addr), listener and ", " + listener))
            f.write("admin: {address: \"%s:%d\"}\ncontrol: %s\nworkers: %d\nmodel-cache: %s\n" % (*self.admin, self.ctl, workers, w.path("cache")))
            kernel = {"mode": w.carrier or "off", **({"min-bytes": 0, "retain": "100ms"} if w.net else {}), **(datapath or {})}
            f.write("datapath: {%s}\n%s\n" % (", ".join("%s: %s" % kv for kv in kernel.items()), extra))
            f.write("pools:\n  - name: p\n    health: {interval: %s, timeout: 500ms}\n    scrape: {interval: 100ms}\n" % health)
            if limits:
                f.write("    limits: {%s}\n" % limits)
            if pool:
                f.write("    " + pool.replace("\n", "\n    ") + "\n")
            if pods is not None:
                f.write("    discovery:\n      static:\n")
                for p in pods:
                    f.write("        - %s\n" % (p if isinstance(p, str) else p.spec()))
        Proc.__init__(self, [os.path.join(BIN, "kvsteerd"), "--config", self.config], "gateway")
        w.procs.append(self)
        until(lambda: not self.alive() or os.path.exists(self.ctl) and self.can_connect(), "gateway listens")
        need(self.alive(), "the gateway has ended: " + self.output())
        if wait and pods:
            until(lambda: all(p["models"] for p in self.ask("pod.list")), "pods told their models")
        if w.carrier in ("tc", "auto"):
            s = self.status()
            if s["datapath"]["carrier"] != "tc":
                raise Skip("; ".join(s["warnings"]) or "the kernel carries nothing here")

    def knows_zstd(self):
        with open("/proc/%d/maps" % self.pid) as f:
            return "libzstd" in f.read()

    def status(self):
        return self.ask("status")

    def flows(self, *states):
        return [f for f in self.ask("flow.list") if not states or f["state"] in states]

    def can_connect(self):
        try:
            socket.create_connection(self.addr, 1).close()
            return True
        except OSError:
            return False

    def cli(self, *args):
        r = subprocess.run([os.path.join(BIN, "kvsteer"), "--control", self.ctl, "-j", *args], capture_output=True, text=True, timeout=10)
        need(r.returncode == 0, "kvsteer %s: exit %d %s%s" % (" ".join(args), r.returncode, r.stdout, r.stderr))
        return json.loads(r.stdout)

    def ask(self, cmd, **args):
        """What the daemon says on its control socket; None: it refuses. Cheaper than the CLI, for what is asked often."""
        with socket.socket(socket.AF_UNIX) as s, s.makefile() as f:
            s.settimeout(10)
            s.connect(self.ctl)
            s.sendall(json.dumps({"cmd": cmd, "args": args}).encode() + b"\n")
            return json.loads(f.readline()).get("data")

    def decision(self, request):
        """Its record, which is kept once the request has ended: a moment after its answer."""
        return until(lambda: self.ask("decision.show", request=request), "the decision is kept")

    def page(self, path):
        """A page of the admin address."""
        c = http.client.HTTPConnection(*self.admin, timeout=5)
        c.request("GET", path)
        text = c.getresponse().read().decode()
        c.close()
        return text

    def metric(self, name):
        """Sum of all samples whose name and labels begin so."""
        return sum(float(l.rsplit(" ", 1)[1]) for l in self.page("/metrics").splitlines() if l.startswith("kvsteer_" + name))

    def counts(self, name, n, timeout=3):
        """The metric is n, now or in a moment: an answer is counted behind its last byte."""
        seen = [0]

        def so():
            seen[0] = self.metric(name)
            return seen[0] == n
        try:
            until(so, "", timeout)
        except Fail:
            raise Fail("%s is %d, not %d" % (name, seen[0], n)) from None

    def pod_state(self, pod):
        return self.ask("pod.show", pod=pod.name)

    def connect(self, **kw):
        c = Conn(self.addr, ns=kw.pop("ns", self.w.client), **kw)
        self.w.conns.append(c)
        return c

    def post(self, body, path="/v1/completions", headers=(), timeout=20):
        with self.connect(timeout=timeout) as c:
            c.send(request(body, path, headers))
            return c.answer()


def address(ip, port):
    return ("[%s]:%d" if ":" in ip else "%s:%d") % (ip, port)


def request(body, path="/v1/completions", headers=(), method="POST", chunked=0, version="1.1"):
    if isinstance(body, (dict, list)):
        body = json.dumps(body, ensure_ascii=False)
    if isinstance(body, str):
        body = body.encode()
    head = ["%s %s HTTP/%s" % (method, path, version), "Host: gateway", *headers]
    if chunked:
        head.append("Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + chunked]), body[i:i + chunked]) for i in range(0, len(body), chunked)) + b"0\r\n\r\n"
    elif method == "POST" or body:
        head.append("Content-Length: %d" % len(body))
    if body and not any(h.lower().startswith("content-type") for h in headers):
        head.append("Content-Type: application/json")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Answer:
    def __init__(self):
        self.status, self.headers, self.body, self.raw, self.complete, self.framing = 0, {}, b"", b"", False, None
        self.infos = []

    def json(self):
        return json.loads(self.body)

    def events(self):
        return [l[6:] for l in self.body.decode().split("\n") if l.startswith("data: ")]


class Conn:
    """A client's connection that parses strictly and hides nothing."""

    def __init__(self, addr, timeout=10, ns=Here, source=None, mss=0):
        with ns.inside():
            self.s = socket.socket(socket.AF_INET6 if ":" in addr[0] else socket.AF_INET)
        if mss:
            self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if source:
            self.s.bind(source)
        self.s.settimeout(timeout)
        self.s.connect(addr)
        self.buf, self.seen = b"", bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.s.close()

    def close(self):
        self.s.close()

    def send(self, data):
        self.s.sendall(data)

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()

    def more(self):
        d = self.s.recv(65536)
        self.buf += d
        self.seen += d
        return bool(d)

    def take(self, n):
        parts, left = [self.buf[:n]], n - len(self.buf)
        self.buf = self.buf[n:]
        while left > 0:
            d = self.s.recv(min(left, 1 << 20))
            if not d:
                raise EOFError
            self.seen += d
            parts.append(d)
            left -= len(d)
        return b"".join(parts)

    def line(self):
        while b"\r\n" not in self.buf:
            if not self.more():
                raise EOFError
        l, self.buf = self.buf.split(b"\r\n", 1)
        return l.decode("latin1")

    def head(self, a):
        m = re.fullmatch(r"HTTP/1\.1 (\d\d\d) .*", self.line())
        need(m, "the status line is malformed")
        a.status, a.headers = int(m[1]), {}
        while True:
            l = self.line()
            if not l:
                return
            k, v = l.split(":", 1)
            a.headers[k.lower()] = v.strip()

    def answer(self, head_only=False, no_body=False):
        """The next answer, to its end or to the break (complete tells)."""
        a = Answer()
        try:
            self.head(a)
            while 100 <= a.status < 200:
                a.infos.append(a.status)
                self.head(a)
            if head_only:
                return a
            if no_body or a.status in (204, 304):
                a.framing = "none"
            elif "chunked" in a.headers.get("transfer-encoding", ""):
                a.framing = "chunked"
                while True:
                    n = int(self.line().split(";")[0], 16)
                    if n == 0:
                        while self.line():
                            pass
                        break
                    a.body += self.take(n)
                    need(self.take(2) == b"\r\n", "a chunk does not end in CRLF")
            elif "content-length" in a.headers:
                a.framing, n = "length", int(a.headers["content-length"])
                while len(a.body) < n:
                    a.body += self.take(1) if not self.buf else self.take(min(len(self.buf), n - len(a.body)))
            else:
                a.framing = "close"
                a.body, self.buf = self.buf, b""
                while self.more():
                    a.body, self.buf = a.body + self.buf, b""
            a.complete = True
        except (EOFError, ConnectionError):
            pass
        return a


class Request:
    """What a pod got."""

    def __init__(self, c, head):
        lines = head.decode("latin1").split("\r\n")
        self.method, self.target, _ = lines[0].split(" ")
        self.fields = [tuple(x.strip() for x in l.split(":", 1)) for l in lines[1:] if l]
        self.headers = {k.lower(): v for k, v in self.fields}
        self.c, self.head, self.body, self.whole, self.raw = c, head, b"", False, b""

    def read_body(self):
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while True:
                n = int(self.c.line().split(";")[0], 16)
                if n == 0:
                    while self.c.line():
                        pass
                    break
                self.body += self.c.take(n)
                self.c.take(2)
        else:
            n = int(self.headers.get("content-length", 0))
            if n:
                self.body = self.c.take(n)
        self.whole = True


class PodConn(Conn):
    def __init__(self, s):
        self.s, self.buf, self.seen, self.n = s, b"", bytearray(), 0
        s.settimeout(20)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reply(self, body=b"{}", status="200 OK", headers=(), ctype="application/json"):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        self.send(("HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n" % (status, ctype, len(body), "".join(h + "\r\n" for h in headers))).encode() + body)

    def start_stream(self, headers=()):
        self.send(("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n%s\r\n" % "".join(h + "\r\n" for h in headers)).encode())

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, obj):
        self.chunk(b"data: %s\n\n" % (obj if isinstance(obj, bytes) else json.dumps(obj).encode()))

    def end(self):
        self.send(b"0\r\n\r\n")

    def closed_within(self, timeout):
        """Seconds until the peer has closed or reset, or None."""
        t = time.time()
        self.s.settimeout(timeout)
        try:
            while self.s.recv(65536):
                pass
        except socket.timeout:
            return None
        except OSError:
            pass
        return time.time() - t


class Staged:
    """A pod's answer in parts: bytes, or functions of the connection. The first goes at once, each other when go() lets it."""

    def __init__(self, *parts):
        self.parts, self.steps, self.result = parts, threading.Semaphore(0), None

    def go(self, n=1):
        self.steps.release(n)

    def __call__(self, c, r):
        r.read_body()
        for i, p in enumerate(self.parts):
            if i and not self.steps.acquire(timeout=20):
                return "close"
            self.result = p(c) if callable(p) else c.send(p)
            if self.result == "close":
                return "close"


class Pod:
    """A scripted pod: handler(conn, request) is called for each request that is not the gateway's own question."""

    def __init__(self, handler, ip, port, models, ns=Here):
        self.handler, self.models, self.ip, self.port, self.ns = handler, models, ip, port, ns
        self.requests, self.conns, self.live, self.open, self.errors = [], 0, set(), True, []
        self.metrics_text, self.health, self.key = "", 200, None
        self.listen()

    name = property(lambda self: address(self.ip, self.port))

    def spec(self):
        return "{address: \"%s\"}" % self.name

    def listen(self):
        with self.ns.inside():
            self.l = socket.socket(socket.AF_INET6 if ":" in self.ip else socket.AF_INET)
        self.l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.l.bind((self.ip, self.port))
        self.l.listen(256)
        self.open = True
        threading.Thread(target=self.accept, args=(self.l,), daemon=True).start()

    def close(self):
        self.open = False
        try:
            self.l.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.l.close()
        for c in list(self.live):
            with contextlib.suppress(OSError):
                c.s.shutdown(socket.SHUT_RDWR)

    def accept(self, l):
        while True:
            try:
                s, _ = l.accept()
            except OSError:
                return
            self.conns += 1
            threading.Thread(target=self.serve, args=(PodConn(s),), daemon=True).start()

    def serve(self, c):
        self.live.add(c)
        try:
            while self.open:
                while b"\r\n\r\n" not in c.buf:
                    if not c.more():
                        return
                head, c.buf = c.buf.split(b"\r\n\r\n", 1)
                r = Request(c, head)
                if self.own_question(c, r):
                    continue
                c.n += 1
                self.requests.append(r)
                if self.handler(c, r) == "close":
                    return
        except (OSError, EOFError):
            pass
        except Exception as e:
            self.errors.append(repr(e))
        finally:
            self.live.discard(c)
            c.s.close()

    def own_question(self, c, r):
        if r.method != "GET" or r.target not in ("/health", "/metrics", "/v1/models", "/version"):
            return False
        if self.key and r.headers.get("authorization") != "Bearer " + self.key and r.target != "/health":
            c.reply({"error": "no key"}, "401 Unauthorized")
        elif r.target == "/v1/models":
            c.reply({"object": "list", "data": [{"id": m, "object": "model", "root": self.models[0], "parent": None} for m in self.models]})
        elif r.target == "/metrics":
            c.reply(self.metrics_text.encode(), ctype="text/plain")
        elif r.target == "/version":
            c.reply({"version": "0.0-test"})
        else:
            c.reply(b"", "%d X" % self.health)
        return True


class Sim(Proc):
    """A kvsim with events and replay, or (events: "get", "post") with TensorRT-LLM's events over HTTP."""

    def __init__(self, w, args, ip, model, events, wait, wires=False):
        ns, ip = w.place(ip) if wires else (Here, ip)
        self.ip, self.port, self.ev, self.rp = ip, w.port(), w.port(), w.port()
        self.with_events = events
        argv = [os.path.join(BIN, "kvsim"), "--host", ip, "--port", str(self.port), "--model", model, "--enable-prompt-tokens-details"]
        if isinstance(events, str):
            argv += ["--enable-kvcache", "--kv-events-http", events]
        elif events:
            argv += ["--enable-kvcache", "--zmq-endpoint", "tcp://*:%d" % self.ev, "--kv-events-replay-endpoint", "tcp://*:%d" % self.rp]
        with ns.inside():
            Proc.__init__(self, argv + list(args), "sim")
        w.procs.append(self)
        if wait:
            until(lambda: not self.alive() or self.up(), "kvsim answers")
            need(self.alive(), "kvsim has ended: " + self.output())

    name = property(lambda self: "%s:%d" % (self.ip, self.port))

    def up(self):
        try:
            c = http.client.HTTPConnection(self.ip, self.port, timeout=1)
            c.request("GET", "/health")
            return c.getresponse().status == 200
        except OSError:
            return False

    def spec(self):
        if not self.with_events:
            return "{address: \"%s\"}" % self.name
        if isinstance(self.with_events, str):
            return "{address: \"%s\", events: \"http://*\"}" % self.name
        return "{address: \"%s\", events: \"tcp://%s:%d\", replay: \"tcp://%s:%d\"}" % (self.name, self.ip, self.ev, self.ip, self.rp)

    def admin(self, **kw):
        c = http.client.HTTPConnection(self.ip, self.port, timeout=5)
        c.request("POST", "/admin/config", json.dumps(kw), {"Content-Type": "application/json"})
        r = c.getresponse()
        need(r.status == 200, "kvsim refuses %s: %s" % (kw, r.read()))


def main(names):
    enter_namespace()
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    failed = 0
    cases = [(n[5:] + (" (%s)" % c if c else ""), f, c) for n, f in names.items() if n.startswith("test_") and callable(f)
             for c in getattr(f, "carriers", (None,))]
    for name, f, carrier in cases:
        if only not in name:
            continue
        w = World(carrier, getattr(f, "family", 4))
        began = time.time()
        try:
            f(w)
            w.nothing_is_left()
            bad = [e for p in w.pods for e in p.errors]
            need(not bad, "a scripted pod failed: %s" % bad[:2])
            dead = [p for p in w.procs if isinstance(p, Gateway) and p.p.poll() not in (None, 0, -signal.SIGKILL)]
            need(not dead, "the gateway ended by itself")
            print("ok %s" % name, flush=True)
            if os.environ.get("V"):
                print("# %.2f s" % (time.time() - began), flush=True)
        except Skip as e:
            print("skip %s - %s" % (name, e), flush=True)
        except Exception as e:
            failed += 1
            print("not ok %s - %s" % (name, " ".join(str(e).split()) or repr(e)), flush=True)
            if not isinstance(e, Fail):
                traceback.print_exc()
            for p in w.procs:
                sys.stderr.write("--- %s\n%s\n" % (p.log.name, "\n".join(p.output().splitlines()[-25:])))
        finally:
            w.close()
    sys.exit(1 if failed else 0)
