#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Everything that can go wrong, at once, through the real kvsteerd with the kernel as carrier: bytes in pieces of any
length, links that lose, double, delay and reorder, clients that leave, stop reading or send ahead, pods that break off,
kvsteerd killed, upgraded, its mode switched. Every byte of every answer is compared, and in the end nothing may be left.

    client kvs-cc 10.96.1.2 ── wire ── c0 10.96.1.1 (here, kvsteerd) p0 10.96.2.1 ── wire ── kvs-cp 10.96.2.2, three pods

What the seed decides, and KVS_SEED repeats: the schedule. That is, of request n of stream i: framing, bytes, pieces and
pauses, what its pod and its client do to it and where (Plan, a function of seed, i and n alone); when links turn bad and how
(the wires' own dice, frame by frame, are seeded as well); when kvsteerd is killed, upgraded, switched. What it does not
decide is time: how the threads and the wires meet. So a seed brings a failure back often, not always; KVS_SEED with a loop is
the way to find it.

What is right: an answer to whose pod and client nothing happens is exact, whatever the links do. One that is under way in
the kernel at a kill (its splice ACTIVE while kvsteerd is stopped just before) is exact too, and both of its peers see a
FIN. One that is not may break at a kill, visibly and soon. None is ever wrong, none is complete that is not, none hangs.
At the end: no splice, no store, no connection's entry but of the pool's idle ones, no descriptor more than at the beginning,
kvsteerd no larger than after its warming-up.

Clients and pods are coroutines of one process; a socket lives in the namespace in which it was made.
"""
import argparse
import asyncio
import collections
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import lib
from lib import Fail, need

CLIENT, POD = "10.96.1.", "10.96.2."
PORT = 8080
PATIENCE = 45  # seconds without a byte that are a hang
BREAK_WITHIN = 20  # seconds until an answer that a kill broke must be seen to be broken
PATTERN = 999983


def pattern_make():
    r, out = random.Random(1), bytearray()
    while len(out) < PATTERN:
        out += b'data: {"id":"cmpl-%d","choices":[{"text":"%x"}]}\n\n' % (len(out), r.getrandbits(r.randrange(8, 600)))
    return bytes(out[:PATTERN])


PATTERN_BYTES = pattern_make()


def body_at(start, n):
    start %= PATTERN
    out = PATTERN_BYTES[start:start + n]
    while len(out) < n:
        out += PATTERN_BYTES[:n - len(out)]
    return out


def keep_alive(s):
    """A reset that the wire has lost is not sent again: who waits has to ask."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 4), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 8)):
        s.setsockopt(socket.IPPROTO_TCP, option, value)


class Plan:
    """One request and what becomes of it."""

    def __init__(self, seed, stream, n, calm=False):
        r = random.Random("%s/%s/%s" % (seed, stream, n))
        self.key, self.start = "%s/%s" % (stream, n), r.randrange(PATTERN)
        self.framing = r.choices(("chunked", "length", "close"), (5, 3, 2))[0]
        self.style = r.choices(("tokens", "shreds", "bursts", "bulk"), (5, 1, 3, 1))[0]
        self.size = int(2 ** r.uniform(*{"tokens": (8, 15), "shreds": (4, 10), "bursts": (8, 17), "bulk": (10, 20)}[self.style]))
        self.gap = r.choice((0, 0.002, 0.005, 0.01, 0.02))
        self.rng = r.getrandbits(64)
        self.fault = r.choices((None, "fin", "rst", "bad", "extra", "freeze"), (50, 2, 2, 1, 1, 3))[0]
        self.client = r.choices((None, "slow", "stop", "rst", "fin", "ahead"), (40, 4, 3, 3, 2, 5))[0]
        self.at, self.client_at = r.random(), r.random()
        self.pause = r.uniform(0.3, 2.5)
        self.drop_u, self.drop_c = r.random() < 0.1, r.random() < 0.2  # close behind a complete answer
        self.wait = r.choice((0, 0, 0.001, 0.02, 0.1))
        if calm:
            self.fault = self.client = None
            self.drop_u = self.drop_c = False
        if self.fault == "bad" and self.framing != "chunked":
            self.fault = None
        if self.fault == "extra" and self.framing == "close":
            self.fault = None
        self.raw, self.ends = self.make_raw()
        self.cut = int(self.at * len(self.raw)) if self.fault in ("fin", "rst", "bad", "freeze") else len(self.raw)
        self.complete = self.fault in (None, "freeze", "extra") or (self.fault == "fin" and self.framing == "close")
        if self.fault in ("fin", "rst"):
            self.raw = self.raw[:self.cut]
        elif self.fault == "bad":
            self.raw = self.raw[:self.cut] + b"\r\nzz\r\n"
        self.keeps = self.framing != "close" and self.fault in (None, "freeze")

    def make_raw(self):
        """The body as it is on the wire, and where writes of single tokens end."""
        r, body, out, ends = random.Random(self.rng), body_at(self.start, self.size), bytearray(), []
        if self.framing != "chunked":
            for at in range(0, self.size, 250):
                ends.append(min(self.size, at + 250))
            return body, ends
        at = 0
        while at < self.size:
            n = min(self.size - at, {"tokens": r.randrange(100, 400), "shreds": r.randrange(1, 30)}.get(self.style, r.randrange(1, 9000)))
            out += b"%x%s\r\n" % (n, b";x=1" if r.random() < 0.05 else b"") + body[at:at + n] + b"\r\n"
            ends.append(len(out))
            at += n
        out += b"0\r\n" + (b"X-T: 1; 2\r\nY: \r\n" if r.random() < 0.1 else b"") + b"\r\n"
        ends.append(len(out))
        return bytes(out), ends

    def pieces(self):
        """(bytes, pause behind them)"""
        r, at = random.Random(self.rng + 1), 0
        while at < len(self.raw):
            if self.style == "tokens":
                end, gap = next((e for e in self.ends if e > at), len(self.raw)), self.gap
            elif self.style == "bulk":
                end, gap = len(self.raw), 0
            else:
                end = at + r.randrange(1, 60 if self.style == "shreds" else 20000)
                gap = r.choice((0, 0, 0.001, 0.01, 0.03))
            end = min(end, len(self.raw), self.cut if at < self.cut else len(self.raw))
            yield self.raw[at:end], self.pause if self.fault == "freeze" and end == self.cut else gap
            at = end

    def head(self):
        framing = {"chunked": "Transfer-Encoding: chunked\r\n", "length": "Content-Length: %d\r\n" % self.size, "close": "Connection: close\r\n"}
        return ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Plan: %s\r\n%s\r\n" % (self.key, framing[self.framing])).encode()


class Steady(Plan):
    """A stream of tokens for <seconds>, to which nothing happens but what happens to kvsteerd."""

    def __init__(self, seed, stream, n, seconds, gap, framing):
        self.steady = seconds, gap, framing
        super().__init__(seed, stream, n, calm=True)
        self.framing, self.style, self.gap = framing, "tokens", gap
        self.size = int(seconds / gap) * 250
        self.raw, self.ends = self.make_raw()
        self.cut, self.complete, self.keeps = len(self.raw), True, framing != "close"


class Peers:
    """Pods and clients."""

    def __init__(self, seed, client_ns, pod_ns):
        self.seed, self.client_ns, self.pod_ns = seed, client_ns, pod_ns
        self.plans = {}  # by key, of requests under way
        self.now = {}  # the client's end of a connection → its request under way
        self.counts = collections.Counter()
        self.failures, self.stopping, self.listeners = [], False, []
        self.kills = []  # (from, until)
        self.upgraded = self.strayed = 0  # when, last
        self.tc_since = 0  # when the mode became tc; inf while it is another
        self.pod_open = 0

    def bad(self, plan, why):
        self.failures.append("request %s (%s, %s, %d bytes, pod %s, client %s): %s" % (
            plan.key, plan.framing, plan.style, len(plan.raw), plan.fault, plan.client, why))

    # --- pods ---

    async def pods_start(self):
        for family, ip, port in ((socket.AF_INET, POD + "2", 8000), (socket.AF_INET, POD + "2", 8001), (socket.AF_INET6, "fd96:2::2", 8000)):
            with self.pod_ns.inside():
                s = socket.socket(family)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((ip, port))
            s.listen(512)
            s.setblocking(False)
            self.listeners.append((s, asyncio.ensure_future(self.pod_accept(s))))

    async def pod_accept(self, l):
        loop = asyncio.get_running_loop()
        while True:
            s, _ = await loop.sock_accept(l)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(s)
            asyncio.ensure_future(self.pod_serve(s))

    async def pod_serve(self, s):
        loop, buf, plan = asyncio.get_running_loop(), b"", None
        self.pod_open += 1
        try:
            while True:
                while b"\r\n\r\n" not in buf:
                    d = await loop.sock_recv(s, 65536)
                    if not d:
                        return
                    buf += d
                head, buf = buf.split(b"\r\n\r\n", 1)
                n = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
                n = int(n[1]) if n else 0
                while len(buf) < n:
                    d = await loop.sock_recv(s, 65536)
                    if not d:
                        return
                    buf += d
                body, buf = buf[:n], buf[n:]
                if head.startswith(b"GET "):
                    await loop.sock_sendall(s, self.pod_told(head.split(b" ")[1]))
                    continue
                plan = self.plans[json.loads(body)["plan"]]
                if await self.pod_answer(s, plan):
                    return
                plan.pod_sent = True
        except OSError as e:
            if plan:
                self.counts["pod_reset"] += 1
                if getattr(plan, "survives", False) and plan.client not in ("rst", "fin"):
                    self.bad(plan, "its pod's connection was reset: %r" % e)
        finally:
            self.pod_open -= 1
            s.close()

    @staticmethod
    def pod_told(path):
        body = b'{"object":"list","data":[{"id":"m","object":"model"}]}' if path == b"/v1/models" else b'{"version":"0.0-test"}' if path == b"/version" else b""
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def pod_answer(self, s, plan):
        """True: the connection has ended."""
        loop = asyncio.get_running_loop()
        first = True
        pieces = list(plan.pieces())
        if self.counts["answers"] % 3 == 0 or not pieces:
            await loop.sock_sendall(s, plan.head())
            await asyncio.sleep(plan.gap)
            first = False
        self.counts["answers"] += 1
        for b, gap in pieces:
            await loop.sock_sendall(s, plan.head() + b if first else b)
            first = False
            if gap:
                await asyncio.sleep(gap)
        if plan.fault == "extra":
            self.strayed = time.monotonic()
            await loop.sock_sendall(s, b"too much")
            return True
        if plan.fault == "rst":
            await asyncio.sleep(0.02)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if plan.fault in ("fin", "rst", "bad") or plan.drop_u:
            return True
        if plan.framing == "close":
            s.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(s, 4096):
                pass
            return True
        return False

    # --- clients ---

    async def connect(self, family):
        loop = asyncio.get_running_loop()
        with self.client_ns.inside():
            s = socket.socket(family)
        s.setblocking(False)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(s)
        addr = (CLIENT + "1" if family == socket.AF_INET else "fd96:1::1", PORT)
        try:
            await asyncio.wait_for(loop.sock_connect(s, addr), PATIENCE)
        except (OSError, asyncio.TimeoutError):
            s.close()
            return None
        return s

    def killed_since(self, t):
        """Was there a moment since <t> when kvsteerd was not wholly there?"""
        return any(end > t for _, end in self.kills)

    async def stream(self, i, plan_of, count=None, family=None):
        """Requests one behind the other, on a connection as long as that lasts."""
        family = family or (socket.AF_INET if i % 5 < 3 else socket.AF_INET6)
        conn = None
        n = 0
        while not self.stopping and (count is None or n < count):
            plan = plan_of(i, n)
            n += 1
            self.plans[plan.key] = plan
            try:
                while conn is None:
                    s = await self.connect(family)
                    if s:
                        conn = Client(self, s)
                    elif not self.killed_since(time.monotonic() - 5):
                        self.bad(plan, "no connection")
                        return
                    else:
                        self.counts["refused"] += 1
                        await asyncio.sleep(0.1)
                nxt = plan_of(i, n) if plan.client == "ahead" and plan.keeps and not self.stopping and (count is None or n < count) else None
                if nxt:
                    self.plans[nxt.key] = nxt
                kept = await conn.exchange(plan, nxt)
                if not kept or plan.drop_c and not nxt:
                    conn.close()
                    conn = None
                await asyncio.sleep(plan.wait)
            finally:
                self.plans.pop(plan.key, None)
        if conn:
            conn.close()


class Client:
    """A client's connection."""

    def __init__(self, peers, s):
        self.p, self.s, self.buf, self.used, self.born = peers, s, b"", False, time.monotonic()
        self.name, self.sent, self.closing = s.getsockname()[:2], set(), False

    def close(self):
        self.p.now.pop(self.name, None)
        self.s.close()

    async def send(self, plan):
        loop, r = asyncio.get_running_loop(), random.Random(plan.rng + 2)
        body = json.dumps({"model": "m", "prompt": "x" * r.choice((10, 100, 3000)), "stream": True, "plan": plan.key}).encode()
        out = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        cut = r.randrange(len(out)) if r.random() < 0.3 else 0
        if cut:
            await loop.sock_sendall(self.s, out[:cut])
            await asyncio.sleep(0.001)
        await loop.sock_sendall(self.s, out[cut:])

    async def recv(self, n):
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.s, n), PATIENCE)

    async def exchange(self, plan, nxt):
        """True: the connection can be used again."""
        p, t = self.p, time.monotonic()
        plan.survives, plan.got, plan.began = False, 0, t
        p.now[self.name] = plan
        how = None
        try:
            if plan.key not in self.sent:
                await self.send(plan)
            how = await self.read(plan, nxt)
            if how == "exact" and plan.survives and plan.framing != "close" and not nxt:
                self.buf += await self.recv(1)
                if self.buf:
                    how, plan.where = "wrong", "behind the end: %r" % self.buf
        except (OSError, asyncio.TimeoutError) as e:  # our own patience has no errno
            how = "reset" if getattr(e, "errno", None) else "hang"
        finally:
            p.now.pop(self.name, None)
        return self.judge(plan, how, t, nxt)

    async def head(self, plan):
        while b"\r\n\r\n" not in self.buf:
            d = await self.recv(65536)
            if not d:
                return "cut" if self.buf else "closed"
            self.buf += d
        head, self.buf = self.buf.split(b"\r\n\r\n", 1)
        status = head.split(b" ")[1]
        if status != b"200":
            plan.status = head.decode("latin1") + repr(self.buf[:300])
            return "status"
        if b"\r\nx-plan: %s\r\n" % plan.key.encode() not in head.lower() + b"\r\n":
            return "other"
        self.closing |= b"\r\nconnection: close" in head.lower()
        return None

    async def read(self, plan, nxt):
        """How it came out: exact, wrong, more, cut (FIN inside), closed (FIN before it began), left, status, other."""
        want, at, loop = plan.raw, 0, asyncio.get_running_loop()
        turn = int(plan.client_at * len(want)) if plan.client else len(want) + 1
        how = await self.head(plan)
        if how:
            return how
        until_close = plan.framing == "close"
        while True:
            if self.buf:
                d, self.buf = self.buf, b""
                if not until_close and at + len(d) > len(plan.raw) and plan.complete:
                    d, self.buf = d[:len(want) - at], d[len(want) - at:]
                if want[at:at + len(d)] != d:
                    k = next((k for k in range(len(d)) if want[at + k:at + k + 1] != d[k:k + 1]), len(d))
                    plan.where = "at %d: %r, not %r" % (at + k, d[k:k + 40], want[at + k:at + k + 40])
                    return "wrong"
                at += len(d)
                plan.got = at
            if at >= turn:
                turn = len(want) + 1
                if plan.client == "rst":
                    self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return "left"
                if plan.client == "fin":
                    self.s.shutdown(socket.SHUT_WR)
                elif plan.client == "stop":
                    await asyncio.sleep(plan.pause)
                elif nxt:
                    self.sent.add(nxt.key)
                    try:
                        await self.send(nxt)
                    except OSError:
                        pass  # behind a complete answer a kvsteerd that drains closes; else it is seen below
            if at == len(want) and not until_close:
                if plan.complete:
                    return "exact"
            if plan.client == "slow" and at < 3000:
                await asyncio.sleep(0.01)
                self.buf = await self.recv(100)
            else:
                self.buf = await self.recv(65536)
            if not self.buf:
                return "exact" if until_close and at == len(want) else "cut"

    def judge(self, plan, how, began, nxt):
        """Count it, and complain if it is not right. True: the connection can be used again."""
        p = self.p
        kill, took = p.killed_since(self.born), time.monotonic() - began
        broken = how in ("cut", "reset", "closed")
        p.counts[how] += 1
        if how == "exact" and self.born > p.tc_since + 1 and plan.size > 1000 and plan.style != "bulk":
            p.counts["eligible"] += 1
        p.counts["survived"] += plan.survives
        if how == "wrong":
            p.bad(plan, "other bytes %s" % plan.where)
        elif how == "other":
            p.bad(plan, "another request's answer")
        elif how == "hang":
            p.bad(plan, "nothing for %d s, after %d bytes" % (PATIENCE, plan.got))
        elif how == "exact" and not plan.complete:
            if plan.framing == "close" and kill and not plan.survives:
                p.counts["unknowable"] += 1  # a dead relay's socket says FIN
            else:
                p.bad(plan, "complete, though its pod broke off")
        elif how == "cut" and plan.framing == "close" and plan.fault == "rst" and not kill:
            p.bad(plan, "cut by the pod's reset after %d bytes, and ended by FIN" % plan.got)
        elif how == "status" and not kill:
            if "not HTTP" in plan.status and p.strayed > began - 15:
                p.counts["astray"] += 1  # bytes behind another answer's end, met on the pod's connection
            elif plan.fault == "rst" and not plan.got and "before it answered" in plan.status:
                p.counts["reset_early"] += 1  # a reset takes what the wire has lost with it: there was no answer
            else:
                p.bad(plan, plan.status)
        elif plan.survives and plan.complete and plan.client not in ("rst", "fin") and broken:
            p.bad(plan, "was under way in the kernel when kvsteerd was killed: %s after %d of %d bytes" % (how, plan.got, len(plan.raw)))
        elif broken and kill and took > BREAK_WITHIN + plan.pause + len(plan.ends) * plan.gap:
            p.bad(plan, "broken by a kill, but only after %.1f s" % took)
        elif broken and not kill and plan.complete and plan.fault != "extra" and plan.client not in ("rst", "fin"):
            if self.used and not plan.got and (self.closing or p.upgraded + 0.5 > self.born):
                p.counts["stale"] += 1  # an idle connection that a kvsteerd closed as it drained
            else:
                p.bad(plan, "%s after %d of %d bytes and %.1f s, on a %s connection of %.1f s; %.1f s after an upgrade" % (
                    how, plan.got, len(plan.raw), took, "used" if self.used else "new", time.monotonic() - self.born,
                    time.monotonic() - p.upgraded))
        self.used = True
        return how == "exact" and plan.keeps and (not self.closing or bool(nxt)) and not plan.survives and plan.client != "fin"


class Chaos:
    """The gateway's host, and the schedule of what happens to it."""

    def __init__(self, seed, first=None, out=sys.stderr):
        self.first = first or os.path.join(lib.BIN, "kvsteerd")
        self.seed, self.rng, self.out = seed, random.Random("%s/schedule" % seed), out
        self.dir = tempfile.TemporaryDirectory(prefix="kvs-chaos-")
        self.ctl, self.config = self.dir.name + "/ctl.sock", self.dir.name + "/kvsteer.yaml"
        self.log = open(self.dir.name + "/log", "ab+")
        self.daemon, self.old, self.mode, self.wires = None, [], "tc", []
        self.begun, self.v6_pods = time.monotonic(), True
        self.activated, self.activated_last = 0, 0
        lib.run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
        os.makedirs("/run/netns", exist_ok=True)
        lib.run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        self.wire_ns = lib.Namespace("kvs-cw")
        self.peers = Peers(seed, self.join("kvs-cc", "c0", 1), self.join("kvs-cp", "p0", 2))

    def say(self, *what):
        print("%6.1f %s" % (time.monotonic() - self.begun, " ".join(map(str, what))), file=self.out, flush=True)

    def join(self, name, dev, net):
        """A namespace, and a wire between it and us."""
        ns, w = lib.Namespace(name), self.wire_ns
        lib.run("ip", "link", "add", dev, "type", "veth", "peer", "name", dev + "a", "netns", w.name)
        ns.ip("link", "add", "e0", "type", "veth", "peer", "name", dev + "b", "netns", w.name)
        for end in dev + "a", dev + "b":
            w.ip("link", "set", end, "addrgenmode", "none")
            w.ip("link", "set", end, "up")
        for ip, host, d in ((lib.run, 1, dev), (None, 2, "e0")):
            at = (lambda *a: lib.run("ip", *a)) if ip else ns.ip
            at("addr", "add", "10.96.%d.%d/24" % (net, host), "dev", d)
            at("addr", "add", "fd96:%d::%d/64" % (net, host), "dev", d, "nodad")
            at("link", "set", d, "up")
        with w.inside():
            self.wires.append(subprocess.Popen([os.path.join(lib.BIN, "kvbench"), "wire", dev + "a", dev + "b", str(self.rng.getrandbits(32))],
                                               stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return ns

    def impair(self, wire, **what):
        line = " ".join("%s=%d" % kv for kv in what.items())
        self.wires[wire].stdin.write(line.encode() + b"\n")
        self.wires[wire].stdin.flush()
        self.say("wire", "cp"[wire], line)

    def calm(self):
        for i in 0, 1:
            self.impair(i, loss=0, dup=0, late=0, delay=0, jitter=0)

    # --- kvsteerd ---

    def write_config(self):
        with open(self.config, "w") as f:
            f.write("""listeners: [{address: "%s1:%d"}, {address: "[fd96:1::1]:%d"}]
admin: {address: ""}
control: %s
log: {level: warn}
workers: 2
drain-timeout: 120s
datapath: {mode: %s, min-bytes: 256, retain: 3s}
pools:
  - name: p
    health: {interval: 500ms}
    scheduling: {policy: round-robin}
    limits: {connect-timeout: 10s, client-idle: 60s, stream-idle: 20s}
    discovery:
      static:
        - {address: "%s2:8000"}
        - {address: "%s2:8001"}
%s""" % (CLIENT, PORT, PORT, self.ctl, self.mode, POD, POD, '        - {address: "[fd96:2::2]:8000"}\n' * self.v6_pods))

    def launch(self):
        if os.path.exists(self.ctl):
            os.unlink(self.ctl)
        self.write_config()
        which, self.first = self.first, os.path.join(lib.BIN, "kvsteerd")
        return subprocess.Popen([which, "--config", self.config], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    async def ready(self, proc):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            need(proc.poll() is None, "kvsteerd has ended: %s" % self.logged())
            r = await self.cli_try("pod", "list")
            if r and all(p["models"] for p in r):
                return
            await asyncio.sleep(0.03)
        raise Fail("kvsteerd does not know its pods")

    def logged(self):
        self.log.seek(0)
        return self.log.read()[-2000:].decode(errors="replace")

    async def cli_try(self, *args):
        p = await asyncio.create_subprocess_exec(os.path.join(lib.BIN, "kvsteer"), "--control", self.ctl, "-j", *args,
                                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, _ = await p.communicate()
        return json.loads(out) if p.returncode == 0 else None

    async def cli(self, *args):
        r = await self.cli_try(*args)
        need(r is not None, "kvsteer %s fails" % " ".join(args))
        return r

    async def start(self):
        self.daemon = self.launch()
        await self.ready(self.daemon)
        status = await self.cli("status")
        if status["datapath"]["carrier"] != "tc":
            raise lib.Skip("; ".join(status["warnings"]) or "the kernel carries nothing here")

    def flows(self):
        """Without kvsteerd, and at once."""
        r = subprocess.run([os.path.join(lib.BIN, "kvsteer"), "--control", self.ctl + ".none", "-j", "flow", "list"], capture_output=True, text=True)
        if r.returncode == 4:
            return []  # a kvsteerd with mode off has found nothing to keep
        need(r.returncode == 0, "flow list: " + r.stdout + r.stderr)
        return json.loads(r.stdout)

    async def kill(self, down):
        """kill -9, and a new one after a while."""
        p = self.peers
        began = time.monotonic()
        for d in [self.daemon, *self.old]:
            d.send_signal(signal.SIGSTOP)
        now = dict(p.now)  # what a client has not had wholly by now and is active below was under way all the time
        active = {self.end(f["client"]) for f in self.flows() if f["state"] == "active"}
        p.kills.append((began, float("inf")))
        self.count_activated()
        n = 0
        for name, plan in now.items():
            if name in active:
                plan.survives = True
                n += 1
        for d in [self.daemon, *self.old]:
            d.kill()
            d.wait()
        self.old = []
        self.say("killed, %d of %d under way in the kernel" % (n, len(now)))
        await asyncio.sleep(down)
        self.daemon = self.launch()
        await self.ready(self.daemon)
        p.kills[-1] = (began, time.monotonic() + 0.5)
        return n, len(now)

    @staticmethod
    def end(name):
        ip, port = name.rsplit(":", 1)
        return ip.strip("[]"), int(port)

    async def upgrade(self):
        """A new one listens beside the old one, which drains."""
        new = self.launch()
        await self.ready(new)
        self.daemon.send_signal(signal.SIGTERM)
        self.peers.upgraded = time.monotonic()
        self.old.append(self.daemon)
        self.daemon = new
        self.say("upgraded")

    async def switch(self, mode):
        self.count_activated()
        self.mode = mode
        self.write_config()
        await self.cli("reload")
        self.peers.tc_since = time.monotonic() if mode == "tc" else float("inf")
        self.say("mode", mode)

    def reap(self):
        for d in list(self.old):
            if d.poll() is not None:
                self.old.remove(d)
                need(d.returncode == 0, "kvsteerd that drained has ended with %d: %s" % (d.returncode, self.logged()))
        need(self.daemon.poll() is None, "kvsteerd has ended by itself: %s" % self.logged())

    async def schedule(self, seconds, kinds):
        """Links and kvsteerd, until then."""
        r, end = self.rng, time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(min(r.uniform(0.5, 3), max(0, end - time.monotonic())))
            self.reap()
            if self.peers.failures:
                return
            what = r.choice(kinds)
            if what == "kill":
                await self.kill(r.choice((0, 0.2, 1)))
            elif what == "upgrade":
                await self.upgrade()
            elif what == "switch":
                await self.switch("tc" if self.mode != "tc" else r.choice(("relay", "off")))
            else:
                self.impair(r.randrange(2), loss=r.choice((0, 0, 2000, 10000, 30000)), dup=r.choice((0, 0, 5000, 20000)),
                            late=r.choice((0, 0, 10000, 30000)), delay=r.choice((0, 0, 0, 1000, 5000)), jitter=r.choice((0, 0, 200)))

    # --- what is left ---

    def rss(self):
        with open("/proc/%d/statm" % self.daemon.pid) as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def upstreams(self):
        r = subprocess.run(["ss", "-Htn", "state", "established", "dport", "=", ":8000", "or", "dport", "=", ":8001"], capture_output=True, text=True)
        return len(r.stdout.splitlines())

    def fds(self):
        """But for connections to pods, which are kept."""
        return len(os.listdir("/proc/%d/fd" % self.daemon.pid)) - self.upstreams()

    async def nothing_is_left(self, fds):
        async def settles(f, what, timeout=15):
            end = time.monotonic() + timeout
            while True:
                left = await f()
                if not left:
                    return
                if time.monotonic() > end:
                    raise Fail("%s is left: %s" % (what, left))
                await asyncio.sleep(0.2)

        async def flows():
            return self.flows()

        async def conns():
            c = await self.cli("bpf", "dump", "kvs_conns")
            return c[:3] if len(c) > self.upstreams() else None

        async def descriptors():
            n = self.fds()
            return n if n > fds + 8 else None

        async def pods():
            n = self.peers.pod_open - self.upstreams()
            return n if n > 0 else None

        async def old():
            self.reap()
            return [d.pid for d in self.old]
        await settles(old, "a kvsteerd that drains", 40)
        await settles(flows, "a splice", 20)
        await settles(conns, "connections beyond the %d kept ones" % self.upstreams(), 30)
        await settles(pods, "connections of pods")
        await settles(descriptors, "descriptors beyond the first %d" % fds)

    def close(self):
        for d in [self.daemon, *self.old, *self.wires]:
            if d and d.poll() is None:
                d.kill()
                d.wait()
        subprocess.run([os.path.join(lib.BIN, "kvsteer"), "bpf", "unload"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.log.close()
        self.dir.cleanup()

    # --- whole runs ---

    async def begin(self):
        """Until kvsteerd knows its pods, and TC the devices by which clients come."""
        await self.peers.pods_start()
        await self.start()
        for i in (0, 4) if self.v6_pods else (0,):
            await self.peers.stream(i, lambda i, n: Plan(self.seed, "warm%d" % i, n, calm=True), 4)
            await asyncio.sleep(0.3)
        await asyncio.sleep(0.5)
        self.first_fds = self.fds()

    async def finish(self, tasks):
        self.peers.stopping = True
        if not self.peers.failures:
            await asyncio.wait(tasks, timeout=4 * PATIENCE)
            left = [t for t in tasks if not t.done()]
            need(not left or self.peers.failures, "%d streams do not end" % len(left))
        for t in tasks:
            if t.done():
                t.result()
            else:
                t.cancel()
        need(not self.peers.failures, "; ".join(self.peers.failures[:3]))

    def rows(self):
        r = subprocess.run([os.path.join(lib.BIN, "kvsteer"), "-j", "bpf", "dump", "kvs_rows"], capture_output=True, text=True)
        return next(iter(json.loads(r.stdout)[0]["value"].values())) if r.returncode == 0 else {}

    def count_activated(self):
        """The maps of the splice are made anew when a kvsteerd starts that needs none."""
        n = self.rows().get("activated", 0)
        self.activated += n - (self.activated_last if n >= self.activated_last else 0)
        self.activated_last = n

    def explain(self):
        """What there is when something is wrong."""
        try:  # it follows, until then
            subprocess.run([os.path.join(lib.BIN, "kvsteer"), "--control", self.ctl, "-j", "decision", "tail", "-n", "400"], capture_output=True, timeout=1)
        except subprocess.TimeoutExpired as e:
            for line in (e.stdout or b"").splitlines():
                if b'"status":200' not in line:
                    self.say("decision", line.decode())
        for f in self.flows():
            self.say("splice", json.dumps(f))
        self.say("rows", {k: v for k, v in self.rows().items() if v})
        self.say("kvsteerd said:", self.logged())
        for name, plan in self.peers.now.items():
            self.say("under way:", name, plan.key, plan.got, "of", len(plan.raw), plan.framing, plan.style, plan.fault, plan.client)


def note(c, what):
    n = c.peers.counts
    print("NOTE: KVS_SEED=%d: %s; %s" % (c.seed, what, ", ".join("%d %s" % (n[k], k) for k in sorted(n))), flush=True)


def steady(c, n, seconds):
    """So many streams of tokens by IPv4."""
    def plan_of(i, n):
        return Steady(c.seed, i, n, seconds, 0.1, ("chunked", "length", "close")[i % 3])
    return [asyncio.ensure_future(c.peers.stream(10000 + i, plan_of, 1, socket.AF_INET)) for i in range(n)]


async def storm(c, seconds, streams, kinds, long=0):
    """Chaos for <seconds>, the last third of it only of links: in that kvsteerd and its maps must not grow."""
    await c.begin()
    tasks = [asyncio.ensure_future(c.peers.stream(i, lambda i, n: Plan(c.seed, i, n))) for i in range(streams)]
    if long:
        tasks += steady(c, long, 150)
        await asyncio.sleep(3)
        n, _ = await c.kill(0.5)
        need(n >= long / 3, "only %d streams were under way in the kernel" % n)
    await c.schedule(seconds * 2 / 3, kinds)
    if c.mode != "tc":
        await c.switch("tc")
    c.calm()
    sizes = []

    async def watch():
        while True:
            await asyncio.sleep(seconds / 60)
            sizes.append((c.rss() >> 10, len(await c.cli("bpf", "dump", "kvs_conns")), c.fds()))
    w = asyncio.ensure_future(watch())
    await c.schedule(seconds / 3, ["link"])
    w.cancel()
    await c.finish(tasks)
    c.calm()
    await c.nothing_is_left(c.first_fds)
    early, late = ([sorted(column)[len(column) // 2] for column in zip(*part)] for part in (sizes[3:8], sizes[-5:]))
    for what, before, after, factor, more in zip(("KB", "entries of connections", "descriptors"), early, late, (1.1, 1.5, 1.3), (2048, 200, 20)):
        need(after <= before * factor + more, "kvsteerd has grown from %d to %d %s" % (before, after, what))
    c.count_activated()
    eligible = c.peers.counts["eligible"]
    need(c.activated * 3 > eligible, "%d answers were spliced, and %d should have been" % (c.activated, eligible))
    c.daemon.terminate()
    need(c.daemon.wait(20) == 0, "kvsteerd ends with %d" % c.daemon.returncode)
    note(c, "%d spliced, %d gaps kept, from %d to %d KB, %d to %d entries of connections, %d to %d descriptors" % (
        c.activated, c.rows()["pod_stored"], early[0], late[0], early[1], late[1], early[2], late[2]))


async def kill_under(c, streams, seconds):
    """kill -9 under so many streams, all of them in the kernel."""
    c.v6_pods = False
    await c.begin()
    tasks = steady(c, streams, seconds)
    end = time.monotonic() + seconds
    while sum(f["state"] == "active" for f in c.flows()) < streams:
        need(time.monotonic() < end, "not all streams are carried by the kernel")
        await asyncio.sleep(0.2)
    before = c.peers.counts["exact"]
    n, _ = await c.kill(0.3)
    need(n == streams, "%d of %d streams were under way in the kernel" % (n, streams))
    await c.finish(tasks)
    need(c.peers.counts["exact"] == before + streams, "%d of %d exact" % (c.peers.counts["exact"] - before, streams))
    need(not c.peers.counts["pod_reset"], "%d pods saw a reset" % c.peers.counts["pod_reset"])
    await c.nothing_is_left(c.first_fds)
    note(c, "%d streams through kill -9, each exact and ended by FIN on both sides" % streams)


def run(what, limit, *args, first=None):
    """One run, in at most so many seconds; raises lib.Fail or lib.Skip."""
    seed = int(os.environ.get("KVS_SEED") or time.time_ns() // 1000 % 10**9)
    print("KVS_SEED=%d" % seed, file=sys.stderr, flush=True)

    async def go():
        c = Chaos(seed, first)
        try:
            await asyncio.wait_for(what(c, *args), limit)
        except (Fail, asyncio.TimeoutError) as e:
            c.explain()
            raise Fail("KVS_SEED=%d: %s" % (seed, str(e) or "not finished within %d s" % limit)) from None
        finally:
            c.close()
    asyncio.run(go())


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--seconds", type=float, default=40)
    a.add_argument("--streams", type=int, default=24)
    a.add_argument("--long", type=int, default=0, help="so many streams of 150 s through a kill -9")
    a.add_argument("--kinds", default="link*6,switch,upgrade,kill", help="what happens to links and kvsteerd, and how often")
    a.add_argument("--first", metavar="KVSTEERD", help="of another version: what the first upgrade or kill replaces")
    a.add_argument("--kill-under", type=int, help="only kill -9 under so many streams")
    a = a.parse_args()
    kinds = [k for part in a.kinds.split(",") for k in part.split("*")[:1] * int((part + "*1").split("*")[1])]
    lib.enter_namespace()
    try:
        if a.kill_under:
            run(kill_under, 120, a.kill_under, 15)
        else:
            run(storm, a.seconds + 240, a.seconds, a.streams, kinds, a.long, first=a.first)
    except lib.Skip as e:
        print("skip chaos - %s" % e)
        sys.exit(77)
    except Fail as e:
        print("not ok chaos - %s" % e)
        sys.exit(1)
    print("ok chaos")


if __name__ == "__main__":
    main()
