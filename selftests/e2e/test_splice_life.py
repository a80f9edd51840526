#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The daemon's life and its host's while the kernel carries answers: death, upgrade, modes, devices, full maps."""
import glob
import json
import os
import signal
import socket
import subprocess
import threading
import time
import zlib

import lib
from answers import PROMPT, active, armed, ask, bytes_of, chunk, close, head, noise, was_spliced
from lib import Staged, need, request, until

ORPHANS = {"orphaned", "to_client_stolen", "to_pod_stolen"}


class Streams:
    """n answers at once, in all framings; each has a first byte, waits for go(), and goes on for `pieces` pieces."""

    def __init__(self, w, n, pieces=20, pace=0.01, kept=True):
        self.w, self.n, self.pieces, self.pace, self.kept = w, n, pieces, pace, kept
        self.gate, self.bad, self.threads, self.pod_ends, self.done = threading.Event(), [], [], [], []
        self.pods = [w.pod(self.answer, "127.0.0.%d" % i) for i in (2, 3)]

    def parts(self, i):
        data = [zlib.adler32(b"%d.%d" % (i, k)).to_bytes(4, "big") * (i % 5 * 60 + 3) for k in range(self.pieces)]
        framing = ("chunked", "length", "close")[i % 3]
        if framing == "chunked":
            return head("chunked"), [chunk(b"first")] + [chunk(d) for d in data] + [b"0\r\n\r\n"]
        return head(framing, sum(map(len, data)) + 5), [b"first"] + data

    def answer(self, c, r):
        r.read_body()
        if "x-n" not in r.headers:
            return c.reply(b"short")
        i = int(r.headers["x-n"])
        top, parts = self.parts(i)
        c.send(top + parts[0])
        self.gate.wait(20)
        for p in parts[1:]:
            c.send(p)
            time.sleep(self.pace)
        if i % 3 == 2:
            c.s.shutdown(socket.SHUT_WR)
        if not self.kept or i % 3 == 2:
            try:
                self.pod_ends.append("FIN" if not c.s.recv(1) else "bytes")
            except OSError as e:
                self.pod_ends.append(type(e).__name__)
            return "close"

    def client(self, i, c):
        want = b"".join(self.parts(i)[1])
        try:
            got = c.take(len(want))
            need(got == want, "the body differs")
            if not self.kept or i % 3 == 2:
                need(not c.more(), "bytes behind the end")
            self.done.append(i)
        except Exception as e:
            self.bad.append("stream %d, %s: %s" % (i, ("chunked", "length", "close")[i % 3], str(e) or repr(e)))
        c.close()

    def start(self, g, first=0):
        for i in range(first, first + self.n):
            c = g.connect(timeout=20)
            c.send(request(PROMPT, headers=["X-N: %d" % i]))
            need(c.answer(head_only=True).status == 200, "stream %d is refused" % i)
            t = threading.Thread(target=self.client, args=(i, c))
            t.start()
            self.threads.append(t)

    def go(self):
        self.gate.set()

    def wait(self):
        for t in self.threads:
            t.join()
        need(not self.bad, "%d of %d broke: %s" % (len(self.bad), len(self.threads), "; ".join(self.bad[:3])))


def alive(c):
    """After 3 s without an answer to what it asks each second, its stack gives the connection up."""
    c.s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
        c.s.setsockopt(socket.IPPROTO_TCP, option, value)


def short(g):
    a = g.post(PROMPT)
    need(a.status == 200 and a.body == b"short", "not served: %d %r" % (a.status, a.body[:50]))


# --- death and upgrade ---

@lib.wire("tc")
def test_streams_survive_kill_9_and_the_next_daemon_collects_them(w):
    w.odd |= ORPHANS
    s = Streams(w, 60, pieces=30, pace=0.03, kept=False)
    g = w.gateway(s.pods)
    s.start(g)
    armed(g, s.n)
    s.go()
    active(g, s.n)
    g.stop(signal.SIGKILL)
    t = time.time()
    new = w.gateway(s.pods, port=g.addr[1])
    short(new)
    need(time.time() - t < 3, "served only after %.1f s" % (time.time() - t))
    need(len(s.done) < s.n and new.metric("splice_orphans") > 0, "they were over before the next daemon came")
    need({f["owner"] for f in new.flows("active")} == {"dead"}, "owners: %s" % {f["owner"] for f in new.flows("active")})
    s.wait()
    until(lambda: len(s.pod_ends) == s.n, "all pods' connections have ended")
    need(s.pod_ends == ["FIN"] * s.n, "pods saw %s" % {e: s.pod_ends.count(e) for e in s.pod_ends})
    new.counts('splice_housekeeping_total{what="orphan_done"', s.n, 5)
    new.counts("splice_orphans", 0)
    more = Streams(w, 6)
    more.gate.set()
    newer = w.gateway(more.pods)
    more.start(newer)
    more.wait()
    newer.stop(signal.SIGTERM)


@lib.wire("tc")
def test_a_port_that_a_dead_daemon_knew_can_be_used_at_once(w):
    pod = w.pod(None)
    w.odd |= ORPHANS
    g = w.gateway([pod])
    conns, ports = [], []
    for i in range(6):
        pod.handler = st = Staged(head("chunked") + chunk(b"one"), chunk(b"x" * 1000) + b"0\r\n\r\n")
        c = g.connect()
        conns.append(c)
        ports.append(c.s.getsockname())
        a, rid = ask(g, c)
        armed(g)
        st.go()
        c.take(len(chunk(b"one") + chunk(b"x" * 1000)) + 5)
        was_spliced(g, rid, len(chunk(b"x" * 1000)) + 5)
    conns[0].reset()
    g.stop(signal.SIGKILL)
    conns[1].reset()
    conns[2].close()
    new = w.gateway([pod], port=g.addr[1])
    conns[3].reset()
    conns[4].close()
    time.sleep(0.5)
    conns[5].close()
    for i, at in enumerate(ports):
        pod.handler = st = Staged(head("chunked") + chunk(b"two"), chunk(b"y" * 2000) + b"0\r\n\r\n")
        with new.connect(source=at, timeout=3) as c:
            a, rid = ask(new, c)
            armed(new)
            st.go()
            want = chunk(b"two") + chunk(b"y" * 2000) + b"0\r\n\r\n"
            need(c.take(len(want)) == want, "connection %d: the body differs" % i)
            was_spliced(new, rid, len(want) - len(chunk(b"two")))


@lib.wire("tc")
def test_an_upgrade_breaks_no_stream(w):
    s = Streams(w, 30, pieces=30, pace=0.03)
    g = w.gateway(s.pods)
    s.start(g)
    armed(g, s.n)
    s.go()
    new = w.gateway(s.pods, port=g.addr[1])
    os.kill(g.pid, signal.SIGTERM)
    need(len(s.done) < s.n, "they were over before")
    second = Streams(w, 12, pieces=30)
    time.sleep(0.1)
    second.start(new, first=100)
    s.wait()
    second.wait()
    need(g.p.wait(10) == 0, "exit status %d" % g.p.returncode)
    need(new.metric("splice_bytes_total") > 0, "the new one splices nothing")
    need(new.metric('splice_housekeeping_total{what="orphan_done"') == 0, "orphans in spite of the drain")
    # Alone now, it reads the ring.
    third = Streams(w, 3, pieces=30)
    time.sleep(0.3)
    third.start(new, first=200)
    third.wait()
    new.counts('requests_done_total{end="complete"', 15)


@lib.wire("tc")
def test_the_index_is_kept_though_streams_are_left_to_the_kernel(w):
    w.odd |= ORPHANS
    sim = w.sim("--inter-token-latency", "20ms", wires=True)
    g = w.gateway([sim], pool="model-path: " + os.path.join(lib.TOP, "selftests/data/bytes-tokenizer"), extra="index: {keep: %s}" % w.path("kept"))
    with g.connect() as c:
        c.send(request(json.dumps({"model": "m", "prompt": "word " * 200, "max_tokens": 60, "stream": True}).encode()))
        c.answer(head_only=True)
        armed(g)
        until(lambda: g.metric("kv_events_total"), "events")
        os.kill(g.pid, signal.SIGTERM)
        until(lambda: "draining" in g.output(), "it drains")
        os.kill(g.pid, signal.SIGTERM)
        need(g.p.wait(10) == 0, "exit status %d" % g.p.returncode)
        need("left to the kernel" in g.output(), g.output())
        need(os.path.getsize(w.path("kept")) > 1000, "nothing was kept")


@lib.wire("tc")
def test_a_dead_daemons_stream_can_be_killed(w):
    pod = w.pod(None)
    w.odd |= ORPHANS
    g = w.gateway([pod])
    pod.handler = s = Staged(head("length", 5000) + b"o", b"x" * 500, lambda c: c.closed_within(5))
    with g.connect() as c:
        ask(g, c)
        armed(g)
        s.go(2)
        c.take(501)
        active(g)
        g.stop(signal.SIGKILL)
        new = w.gateway([pod], port=g.addr[1])
        f, = new.cli("flow", "list")
        need((f["state"], f["owner"], f["flags"]) == ("active", "dead", ["orphan", "end_known"]), "%s" % f)
        new.cli("flow", "kill", str(f["id"]))
        try:
            need(c.more(), "a clean end")
            raise lib.Fail("bytes")
        except ConnectionResetError:
            pass
        until(lambda: s.result is not None, "the pod hears of it")
    until(lambda: not new.flows(), "no splice is left")
    new.counts("splice_orphans", 0)


@lib.wire("tc")
def test_what_a_dead_daemon_had_only_armed_goes_on_too(w):
    for alone in (True, False):
        w.odd |= ORPHANS
        s = Streams(w, 6, kept=False)
        g = w.gateway(s.pods)
        s.start(g)
        armed(g, s.n)
        g.stop(signal.SIGKILL)
        if alone:
            time.sleep(0.7)  # for sockets that repeat their FIN
            s.go()
            s.wait()
        new = w.gateway(s.pods, port=g.addr[1])
        if not alone:
            time.sleep(0.7)
            need(len(new.flows("armed")) == s.n, "the next daemon has ended what waits: %s" % new.flows())
            s.go()
            s.wait()
        until(lambda: len(s.pod_ends) == s.n, "all pods' connections have ended")
        need(s.pod_ends == ["FIN"] * s.n, "pods saw %s" % s.pod_ends)
        until(lambda: not new.flows(), "no splice is left")
        new.counts("splice_orphans", 0)
        new.stop(signal.SIGKILL)


@lib.wire("tc")
def test_an_orphan_that_pauses_keeps_both_of_its_peers_alive(w):
    """No socket here is left to answer their keep-alive: each answers the other's."""
    retries = "/proc/sys/net/ipv4/tcp_orphan_retries"
    w.odd |= ORPHANS
    answers = []
    with open(retries) as f:
        before = f.read()
    with open(retries, "w") as f:
        f.write("1")  # the sockets go within a second or two, not after 110 s
    for framing, last in ("chunked", chunk(b"y" * 1000) + b"0\r\n\r\n"), ("length", b"y" * 1000):
        first = chunk(b"x" * 1000) if framing == "chunked" else b"x" * 1000
        answers.append((Staged(head(framing, 2001) + (chunk(b"o") if framing == "chunked" else b"o"), alive, first, last), first + last))
    pods = [w.pod(a, "127.0.0.%d" % i) for i, (a, _) in enumerate(answers, 2)]
    g = w.gateway(pods)
    clients = []
    for _ in answers:
        c = g.connect(timeout=30)
        alive(c)
        ask(g, c)
        clients.append(c)
        if len(clients) == 1 and not pods[0].requests:  # either pod may have the first one
            answers.reverse()
    armed(g, len(clients))
    for st, _ in answers:
        st.go(2)
    active(g, len(clients))
    g.stop(signal.SIGKILL)
    time.sleep(9)
    with open(retries, "w") as f:
        f.write(before)
    bad = []
    for i, (c, (st, body)) in enumerate(zip(clients, answers)):
        st.go()
        try:
            got = c.take(len(body) + (len(chunk(b"o")) if body.endswith(b"0\r\n\r\n") else 1))
            if not got.endswith(body):
                bad.append("answer %d differs" % i)
        except Exception as e:
            bad.append("answer %d: %s" % (i, str(e) or repr(e)))
        c.close()
    need(not bad, "; ".join(bad))
    new = w.gateway(pods, port=g.addr[1])
    until(lambda: not new.flows(), "no splice is left")


@lib.wire("tc")
def test_what_a_dead_daemon_still_relayed_is_broken_off(w):
    pod = w.pod(None)
    g = w.gateway([pod], limits="client-idle: 30s")
    pod.handler = s = Staged(head("length", 5000), b"x" * 4999, lambda c: c.closed_within(5))
    with g.connect() as c:
        ask(g, c)
        g.stop(signal.SIGKILL)
        s.go(2)
        try:
            c.take(5000)
            raise lib.Fail("it came whole")
        except (EOFError, ConnectionResetError):
            pass
        until(lambda: s.result is not None, "the pod hears of it")
    new = w.gateway([pod], port=g.addr[1])
    new.counts("splice_orphans", 0)
    need(new.metric("splice_housekeeping_total") == new.metric('splice_housekeeping_total{what="connection_gone"'),
         "an orphan of what was not handed over")


# --- the operator ---

@lib.wire("tc")
def test_flow_lists_shows_and_kills(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    pod.handler = s = Staged(head("chunked") + chunk(b"one"), chunk(b"x" * 500), lambda c: c.closed_within(5))
    with g.connect() as c:
        a, rid = ask(g, c)
        armed(g)
        need(g.cli("flow", "list")[0]["state"] == "armed", "not armed")
        s.go(2)
        c.take(len(chunk(b"one") + chunk(b"x" * 500)))
        f, = g.cli("flow", "list")
        me = lib.address(*c.s.getsockname()[:2])
        need((f["state"], f["owner"], f["client"], f["pod"], f["framing"], f["bytes"], f["unacked"]) ==
             ("active", "this", me, pod.name, "chunked", len(chunk(b"x" * 500)), 0), "%s" % f)
        f = g.cli("flow", "show", str(f["id"]))
        need(f["chunks"] == 1 and f["segments"] >= 1 and f["client_device"] == "c0" and f["pod_device"] == "p2", "%s" % f)
        g.cli("flow", "kill", str(f["id"]))
        try:
            need(c.more(), "a clean end")
            raise lib.Fail("bytes")
        except ConnectionResetError:
            pass
        until(lambda: s.result is not None, "the pod hears of it")
        need(s.result < 1, "the pod hears of it after %.1f s" % s.result)
        d = g.decision(rid)
        need(d["end"] == "upstream_cut" and d["spliced_bytes"] == len(chunk(b"x" * 500)), "%s" % d)
    need(g.metric('splice_events_total{event="killed"') == 1, "not counted")
    r = subprocess.run([os.path.join(lib.BIN, "kvsteer"), "--control", g.ctl, "flow", "kill", str(f["id"])], capture_output=True, text=True)
    need(r.returncode == 4, "killed twice: %d" % r.returncode)


def switch(g, mode):
    with open(g.config) as f:
        text = f.read()
    with open(g.config, "w") as f:
        f.write(lib.re.sub(r"mode: \w+", "mode: " + mode, text))
    g.cli("reload")
    until(lambda: g.status()["datapath"]["mode"] == mode, "the mode is " + mode)


@lib.wire("auto")
def test_modes_are_switched_under_streams(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    stages = []

    def begin(carrier):
        pod.handler = s = Staged(head("chunked") + chunk(b"one"), chunk(b"x" * 700), chunk(b"y" * 900) + b"0\r\n\r\n")
        c = g.connect()
        a, rid = ask(g, c)
        if carrier == "tc":
            armed(g, 1 + sum(x[3] == "tc" for x in stages))
        else:
            time.sleep(0.05)
        s.go()
        stages.append((s, c, rid, carrier))
    for mode, carrier in (("auto", "tc"), ("relay", "relay"), ("tc", "tc"), ("off", "relay"), ("auto", "tc")):
        if stages:
            switch(g, mode)
        need(g.status()["datapath"]["carrier"] == carrier, "%s: carrier %s" % (mode, g.status()["datapath"]["carrier"]))
        begin(carrier)
    for s, c, rid, carrier in stages:
        s.go()
        want = chunk(b"one") + chunk(b"x" * 700) + chunk(b"y" * 900) + b"0\r\n\r\n"
        need(c.take(len(want)) == want, "%s: the body differs" % carrier)
        d = g.decision(rid)
        need((d["carrier"], d["spliced_bytes"]) == (carrier, len(want) - len(chunk(b"one")) if carrier == "tc" else 0), "%s: %s" % (carrier, d))
    need(g.metric('splice_pairs_total{result="off"') == 2, "not counted")
    w.odd.add("kvs_syns")  # of clients that came meanwhile; that map lets its oldest go


@lib.wire("off")
def test_relay_after_off_counts_in_the_kernel(w):
    pod = w.pod(lambda c, r: (r.read_body(), c.reply(b"short")))
    g = w.gateway([pod])
    need(not g.status()["datapath"]["kernel"], "the kernel takes part")
    switch(g, "relay")
    need(g.status()["datapath"]["kernel"] and g.status()["datapath"]["carrier"] == "relay", "%s" % g.status()["datapath"])
    for _ in range(3):
        short(g)
    (row,) = g.cli("bpf", "dump", "kvs_pods")
    need("connections" in str(row) and not lib.re.search(r"'packets': 0\b.*'packets': 0\b", str(row)), "nothing is counted: %s" % row)
    switch(g, "off")
    short(g)
    switch(g, "tc")
    need(g.status()["datapath"]["carrier"] == "tc", "not tc: %s" % g.status()["warnings"])
    pod.handler = s = Staged(head("chunked") + chunk(b"one"), chunk(b"x") + b"0\r\n\r\n")
    with g.connect() as c:
        a, rid = ask(g, c)
        until(lambda: g.flows("armed"), "armed")
        s.go()
        c.take(len(chunk(b"one") + chunk(b"x")) + 5)
        need(g.decision(rid)["carrier"] == "tc", "not spliced")


# --- devices ---

def cut_or_whole(c, want):
    """What a stream is that lost its way: all of its bytes, or visibly broken with none that are wrong."""
    got = b""
    try:
        got = bytes(c.take(len(want)))
        need(got == want, "the body differs")
        return "whole"
    except (ConnectionResetError, socket.timeout, EOFError) as e:
        return type(e).__name__


@lib.wire("tc")
def test_a_device_that_goes_under_a_stream_ends_it(w):
    pod = w.pod(None)
    w.odd |= {"no_device", "no_handshake"}
    ns = lib.Namespace("kvs-d")
    w.net.plug(ns, "d0", 9, [2])
    g = w.gateway([pod], limits="client-idle: 1s", ip="10.97.0.1")
    pod.handler = lambda c, r: (r.read_body(), c.reply(b"warm"))
    with g.connect(ns=ns) as c:  # a stranger's device is attached when one has come by it
        c.send(request(PROMPT))
        c.answer()
    until(lambda: "d0" in g.cli("bpf", "show").__str__(), "its device is attached")
    def pour(c):
        try:
            for _ in range(500):
                c.send(chunk(b"x" * 1000))
                time.sleep(0.02)
        except OSError as e:
            return type(e).__name__
    pod.handler = s = Staged(head("chunked") + chunk(b"one"), pour)
    c = g.connect(ns=ns)
    a, rid = ask(g, c)
    armed(g)
    s.go()
    active(g)
    lib.run("ip", "link", "del", "d0")
    t = time.time()
    d = g.decision(rid)
    need(d["end"] in ("client_gone", "upstream_cut") and time.time() - t < 4, "%s after %.1f s" % (d["end"], time.time() - t))
    until(lambda: not g.flows(), "no splice is left")
    need(g.metric('splice_events_total{event="stalled"') + g.metric('splice_events_total{event="not_served"') == 1, "not counted")
    until(lambda: s.result, "the pod hears of it")
    run_again(g, pod)


def run_again(g, pod):
    """New answers are spliced as ever."""
    pod.handler = s = Staged(head("length", 1001) + b"o", b"x" * 1000)
    with g.connect() as c:
        a, rid = ask(g, c)
        armed(g)
        s.go()
        need(c.take(1001) == b"o" + b"x" * 1000, "the body differs")
        was_spliced(g, rid, 1000)


@lib.wire("tc")
def test_programs_that_are_taken_off_a_device_are_missed(w):
    """Another's bpftool, or `kvsteer bpf unload` by mistake: whatever becomes of the stream, no byte is wrong."""
    pod = w.pod(None)
    g = w.gateway([pod], limits="stream-idle: 3s, client-idle: 3s")
    ended = {}
    for dev, hook in (("p2", "ingress"), ("c0", "ingress")):
        index = socket.if_nametoindex(dev)
        pieces = [chunk(b"%06d" % i * 100) for i in range(50)]

        def pour(c):
            for p in pieces:
                c.send(p)
                time.sleep(0.03)
            c.send(b"0\r\n\r\n")
        pod.handler = s = Staged(head("chunked") + chunk(b"one"), pour)
        with g.connect(timeout=8) as c:
            a, rid = ask(g, c)
            armed(g)
            s.go()
            active(g)
            links = glob.glob("/sys/fs/bpf/kvsteer/v*/links/*_if%d_%s" % (index, hook))
            need(links, "no link of %s" % dev)
            os.unlink(links[0])
            ended[dev, hook] = cut_or_whole(c, chunk(b"one") + b"".join(pieces) + b"0\r\n\r\n")
            d = g.decision(rid)
            need(d["end"] == ("complete" if ended[dev, hook] == "whole" else d["end"]) and ended[dev, hook] in ("whole", "ConnectionResetError"),
                 "%s %s: the client has %s, the record %s" % (dev, hook, ended[dev, hook], d["end"]))
        until(lambda: not g.flows(), "no splice is left")
        until(lambda: glob.glob("/sys/fs/bpf/kvsteer/v*/links/*_if%d_%s" % (index, hook)), "it is attached again")
    run_again(g, pod)


# --- full maps ---

@lib.wire("tc")
def test_what_does_not_fit_into_the_maps_is_relayed(w):
    pod = w.pod(None)
    g = w.gateway([pod], datapath={"splices": 3}, workers=1)
    stages = []
    want = chunk(b"one") + chunk(b"x" * 2000) + b"0\r\n\r\n"
    for i in range(5):
        pod.handler = s = Staged(head("chunked") + chunk(b"one"), want[len(chunk(b"one")):])
        c = g.connect()
        a, rid = ask(g, c)
        if i < 3:
            armed(g, i + 1)
        stages.append((s, c, rid))
    time.sleep(0.05)
    for i, (s, c, rid) in enumerate(stages):
        s.go()
        need(c.take(len(want)) == want, "stream %d: the body differs" % i)
        need(g.decision(rid)["carrier"] == ("tc" if i < 3 else "relay"), "stream %d: %s" % (i, g.decision(rid)["carrier"]))
    need(g.metric('splice_pairs_total{result="splices_full"') == 2, "not counted")
    # 12 connections fit, of which some are in use: of so many more clients the last are not among them.
    idle = [g.connect() for _ in range(12)]
    until(lambda: g.metric('splice_connections_total{side="client",result="map_full"') > 0, "a full map is counted")
    pod.handler = s = Staged(head("chunked") + chunk(b"one"), want[len(chunk(b"one")):])
    a, rid = ask(g, idle[-1])
    time.sleep(0.03)
    s.go()
    need(idle[-1].take(len(want)) == want and g.decision(rid)["carrier"] == "relay", "with a full map")
    for c in idle + [x[1] for x in stages]:
        c.close()
    time.sleep(0.5)
    run_again(g, pod)


lib.main(globals())
