#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Answers that the kernel carries: client and pods behind wires, and byte for byte what the relay delivers."""
import contextlib
import fcntl
import json
import os
import queue
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
import zlib

import lib
from answers import PROMPT, active, armed, ask, bytes_of, chunk, close, head, noise, reset, rest, slowly, was_spliced
from lib import Staged, need, request, until

# --- framing ---

BIG = noise(300000)
ONES = b"".join(chunk(BIG[i:i + 1]) for i in range(2000))
EXTENDED = chunk(b"hello", b';a=b;c="x;"') + chunk(b"0" * 30, b";q") + b"0;last\r\nX-Trailer: 1\r\nEmpty:\r\n\r\n"
FRAMINGS = {
    "length": [head("length", 10 + len(BIG)), b"0123456789", BIG],
    "length, one byte": [head("length", 2), b"a", b"b"],
    "length, in many segments": [head("length", 3001), b"a", slowly(BIG[:3000], 50)],
    "chunks of one byte": [head("chunked"), chunk(b"first"), ONES + b"0\r\n\r\n"],
    "chunks of one byte in segments of one": [head("chunked"), chunk(b"first"), slowly(ONES[:120] + b"0\r\n\r\n")],
    "extensions and trailers": [head("chunked"), chunk(b"first"), EXTENDED],
    "extensions and trailers in segments of one": [head("chunked"), chunk(b"first"), slowly(EXTENDED)],
    "armed in a chunk's size": [head("chunked"), chunk(b"first") + b"4", b"0\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n"],
    "armed in a chunk": [head("chunked"), b"493e1\r\nx", BIG[1:] + b"y\r\n0\r\n", b"\r\n"],
    "armed in an extension": [head("chunked"), chunk(b"first") + b"5;a", b"bc\r\n12345\r\n0\r\n\r\n"],
    "armed before the last LF": [head("chunked"), chunk(b"first") + b"0\r\n\r", b"\n"],
    "armed in a trailer": [head("chunked"), chunk(b"first") + b"0\r\nX-Tr", b"ailer: 5\r\n\r\n"],
    "until close": [head("close"), b"first", BIG, close],
    "until close, FIN at once": [head("close"), b"first", lambda c: (c.send(BIG), "close")[1]],
    "until close, nothing more": [head("close"), b"first", close],
}
FRAMINGS["until close, FIN at once"][2].data = BIG


def each_framing(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    total = chunks = 0
    out = g.metric('body_bytes_total{direction="response"')
    for name, (top, *parts) in FRAMINGS.items():
        body = bytes_of(parts)
        try:
            with g.connect() as c:
                for _ in range(2):  # and the connections are as good as before
                    pod.handler = s = Staged(top + parts[0], *parts[1:])
                    a, rid = ask(g, c)
                    first = rest(c, len(parts[0]))
                    armed(g)
                    s.go(9)
                    got = first + rest(c, len(body) - len(first))
                    need(zlib.crc32(got) == zlib.crc32(body) and got == body, "the body differs")
                    n = len(body) - len(first)
                    out += len(body)
                    if name == "until close, nothing more":
                        need(not c.more(), "no end")
                        need(g.decision(rid)["end"] == "complete", "not complete")
                        break
                    was_spliced(g, rid, n)
                    total += n
                    if a.headers.get("connection") == "close":
                        need(not c.more(), "bytes behind the end")
                        break
                need(not c.buf, "bytes behind the end: %r" % c.buf[:80])
        except Exception as e:
            raise lib.Fail("%s: %s" % (name, str(e) or repr(e)))
    if w.carrier == "tc":
        g.counts("splice_bytes_total", total)
        need(g.metric("splice_chunks_total") > 2 * 2000, "chunks are not counted")
    g.counts('body_bytes_total{direction="response"', out)
    g.counts('requests_done_total{end="complete"', g.metric("requests_total"))


@lib.wire("relay", "tc")
def test_each_framing_arrives_byte_for_byte(w):
    each_framing(w)


@lib.wire("tc", family=6)
def test_each_framing_arrives_byte_for_byte_by_ipv6(w):
    each_framing(w)


@lib.wire("relay", "tc")
def test_answers_of_many_megabytes_are_exact(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    data = noise(1 << 20) * 24
    for name, parts in (("length", [head("length", len(data) + 1) + b"1", data]), ("chunked", [head("chunked") + chunk(b"1"), chunk(data) + b"0\r\n\r\n"])):
        pod.handler = s = Staged(*parts)
        with g.connect() as c:
            a, rid = ask(g, c)
            armed(g)
            s.go()
            got = c.take(len(bytes_of(parts)) - parts[0].index(b"\r\n\r\n") - 4)
            need(zlib.crc32(got) == zlib.crc32(bytes_of(parts).split(b"\r\n\r\n", 1)[1]), "%s: the body differs" % name)
            was_spliced(g, rid, len(parts[1]))


# --- connections that are kept ---

def mixed(c, r):
    r.read_body()
    n = int(r.headers["x-n"])
    what, data = n % 8, b"%06d" % n * (n % 97 * 20 + 1)
    if what == 0:
        c.send(head("chunked") + chunk(data[:5]))
        time.sleep(0.004)
        c.send(chunk(data[5:], b";e") + b"0\r\nT: 1\r\n\r\n")
    elif what == 1:
        c.reply(data)
    elif what == 2:
        c.send(head("length", len(data)) + data[:3])
        time.sleep(0.004)
        c.send(data[3:])
    elif what == 3:
        c.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    elif what == 4:
        c.reply(data, "400 Bad Request")
    elif what == 5:
        c.send(head("chunked") + b"".join(chunk(data[i:i + 100]) for i in range(0, len(data), 100)) + b"0\r\n\r\n")
    elif what == 6:
        c.send(head("chunked") + chunk(data))
        time.sleep(0.003)
        c.send(b"0\r\n\r\n")
    else:
        c.reply(b"%08x" % zlib.crc32(r.body) + data)


def exchange(c, n):
    body = b"%06d" % n * (n % 97 * 20 + 1)
    up = {"model": "m", "prompt": "x" * (n % 13 * 500)}
    c.send(request(up, headers=["X-N: %d" % n], chunked=n % 3 * 111))
    a = c.answer()
    if n % 8 == 3:
        body = b""
    elif n % 8 == 7:
        body = b"%08x" % zlib.crc32(json.dumps(up).encode()) + body
    need(a.complete and a.status == (204 if n % 8 == 3 else 400 if n % 8 == 4 else 200), "request %d: status %d, complete %s" % (n, a.status, a.complete))
    need(a.body == body, "request %d: %d bytes differ from %d" % (n, len(a.body), len(body)))
    return a.headers["x-kvsteer-pod"]


@lib.wire("relay", "tc")
def test_hundreds_of_answers_on_one_connection_mix_pods_and_carriers(w):
    pods = [w.pod(mixed, "127.0.0.%d" % i) for i in (2, 3, 4)]
    g = w.gateway(pods, pool="scheduling: {policy: round-robin}")
    seen, bad = set(), []

    def client(first, n):
        try:
            with g.connect() as c:
                for i in range(first, first + n):
                    seen.add(exchange(c, i))
        except Exception as e:
            bad.append("%s" % (str(e) or repr(e)))
    # One connection with all of them; others that use the same connections to pods meanwhile.
    threads = [threading.Thread(target=client, args=a) for a in ((0, 200), (1001, 80), (2002, 80))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    need(not bad, "; ".join(bad))
    need(seen == {p.name for p in pods}, "pods: %s" % seen)
    if w.carrier == "tc":
        spliced = g.metric('splice_events_total{event="done"')
        need(spliced > 40 and g.metric("splice_bytes_total") > 40000, "%d spliced" % spliced)
        need(g.metric('splice_pairs_total{result="ok"') >= spliced, "more than were bound")
    g.counts('requests_done_total{end="complete"', 360)


@lib.wire("relay", "tc")
def test_a_request_sent_in_mid_answer_is_answered_behind_it(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    s = Staged(head("chunked") + chunk(b"one"), chunk(BIG), b"0\r\n\r\n")
    replies = iter([s, lambda c, r: (r.read_body(), c.reply(r.body))])
    pod.handler = lambda c, r: next(replies)(c, r)
    with g.connect() as c:
        a, rid = ask(g, c)
        armed(g)
        s.go()
        c.take(len(chunk(b"one")))
        # In three pieces, so that it comes before, with, and behind the last bytes.
        q = request({"model": "m", "prompt": "second"})
        c.send(q[:20])
        need(c.take(len(chunk(BIG))) == chunk(BIG), "the first answer differs")
        c.send(q[20:100])
        time.sleep(0.05)
        need(len(pod.requests) == 1, "the second was sent on before the first was over")
        s.go()
        need(c.take(5) == b"0\r\n\r\n", "the first answer's end differs")
        c.send(q[100:])
        b = c.answer()
        need(b.complete and b.json()["prompt"] == "second", "the second: %s" % b.body[:80])
        was_spliced(g, rid, len(chunk(BIG)) + 5)


@lib.wire("tc")
def test_an_answer_is_over_when_the_client_has_acknowledged_it(w):
    """Before that, neither of its connections may carry anything else: the pod may have to repeat."""
    pod = w.pod(None)
    g = w.gateway([pod])
    for top, first, body in ((head("chunked"), chunk(b"one"), chunk(b"two") + b"0\r\n\r\n"), (head("length", 1003), b"one", b"x" * 1000)):
        pod.handler = s = Staged(top + first, body)
        with g.connect() as c:
            a, rid = ask(g, c)
            armed(g)
            lib.run("tc", "-n", "kvs-c", "qdisc", "replace", "dev", "e0", "root", "tbf", "rate", "1mbit", "burst", "10b", "limit", "1b")
            try:
                s.go()
                need(c.take(len(first + body)) == first + body, "the body differs")
                until(lambda: g.flows("ended"), "it is at its end")
                time.sleep(0.2)
                need(g.flows("ended") and not g.ask("decision.show", request=rid), "it is over without the client's acknowledgement")
            finally:
                lib.run("tc", "-n", "kvs-c", "qdisc", "del", "dev", "e0", "root")
            pod.handler = lambda c, r: (r.read_body(), c.reply(b"next"))
            c.send(request(PROMPT))
            b = c.answer()
            need(b.complete and b.body == b"next", "the next answer is %r" % b.body)
            was_spliced(g, rid, len(body))


@lib.wire("tc")
def test_the_first_byte_is_always_relayed(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    pod.handler = s = Staged(head("chunked"), chunk(b"one"), chunk(b"two") + b"0\r\n\r\n")
    with g.connect() as c:
        a, rid = ask(g, c)
        time.sleep(0.05)
        need(not g.flows("armed"), "armed behind the head")
        s.go()
        armed(g)
        s.go()
        c.take(len(chunk(b"one") + chunk(b"two")) + 5)
        need(was_spliced(g, rid, len(chunk(b"two")) + 5)["ttft_ms"] > 40, "the time to the first byte is not known")


def routed_pod(w):
    """A pod behind a router, and what makes the router lose everything or pass it on."""
    r, p = lib.Namespace("kvs-r"), lib.Namespace("kvs-p3")
    w.net.plug(r, "r0", 3, [2])
    r.ip("link", "add", "d0", "type", "veth", "peer", "name", "e0", "netns", p.name)
    for ns, dev, at in ((r, "d0", "10.97.4.1/24"), (p, "e0", "10.97.4.2/24")):
        ns.ip("addr", "add", at, "dev", dev)
        ns.ip("link", "set", dev, "up")
    p.ip("route", "add", "default", "via", "10.97.4.1")
    lib.run("ip", "route", "add", "10.97.4.0/24", "via", "10.97.3.2")

    def forward(on):
        with r.inside(), open("/proc/sys/net/ipv4/ip_forward", "w") as f:
            f.write("%d" % on)
    forward(True)
    pod = lib.Pod(None, "10.97.4.2", w.port(), ("m",), p)
    w.pods.append(pod)
    return pod, forward


@lib.wire("tc")
def test_a_splice_that_is_refused_is_armed_again(w):
    """The first segment behind the split is lost, and another comes before it."""
    pod, forward = routed_pod(w)
    g = w.gateway([pod])
    lost, late, more = chunk(b"lost" * 50), chunk(b"late" * 50), chunk(b"more" * 300) + b"0\r\n\r\n"
    for _ in range(5):
        before = g.metric('splice_rows_total{row="refused"')
        pod.handler = s = Staged(head("chunked") + chunk(b"one"), lost, late, more)
        with g.connect() as c:
            a, rid = ask(g, c)
            armed(g)
            forward(False)
            s.go()
            time.sleep(0.03)
            forward(True)
            s.go()
            got = c.take(len(chunk(b"one") + lost + late))
            armed(g)
            s.go()
            need(got + c.take(len(more)) == chunk(b"one") + lost + late + more, "the body differs")
            if g.metric('splice_rows_total{row="refused"') > before:
                was_spliced(g, rid, len(more))
                return
            need(g.decision(rid)["end"] == "complete", "not complete")
    raise lib.Fail("never refused")


# --- clients that go ---

@lib.wire("relay", "tc")
def test_a_client_that_closes_behind_the_last_byte_is_no_abort(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    for how in ("close", "reset") * 10:
        pod.handler = s = Staged(head("chunked") + chunk(b"one"), chunk(b"two") + b"0\r\n\r\n")
        c = g.connect()
        a, rid = ask(g, c)
        armed(g)
        s.go()
        c.take(len(chunk(b"one") + chunk(b"two")) + 5)
        c.s.close() if how == "close" else c.reset()
        until(lambda: g.metric("requests_done_total") == g.metric("requests_total"), "it is over")
    # A reset says nothing of what was received, but that everything was acknowledged before is known.
    need(g.metric('requests_done_total{end="complete"') == 20, "%d of 20 count as complete" % g.metric('requests_done_total{end="complete"'))


@lib.wire("tc")
def test_a_client_gone_resets_the_pod_within_50_ms(w):
    def handler(c, r):
        r.read_body()
        c.send(head("chunked") + chunk(b"one"))
        until(lambda: g.flows("armed"), "armed")
        if r.headers["x-mode"] == "active":
            c.send(chunk(BIG[:1000]))
        ready.set()
        c.s.settimeout(3)
        try:
            took.append("bytes" if c.s.recv(1) else "FIN")
        except OSError as e:
            took.append(type(e).__name__)
        return "close"
    g = w.gateway([w.pod(handler)])
    for mode in ("armed", "active"):
        for how in ("close", "reset"):
            best = 9
            for _ in range(3):
                took, ready = [], threading.Event()
                c = g.connect()
                a, rid = ask(g, c, headers=["X-Mode: " + mode])
                need(ready.wait(5), "not armed")
                c.take(len(chunk(b"one")) + (len(chunk(BIG[:1000])) if mode == "active" else 0))
                t = time.time()
                c.s.close() if how == "close" else c.reset()
                until(lambda: took, "%s, %s: the pod hears of it" % (mode, how), 3, 0.001)
                need(took[0] == "ConnectionResetError", "%s, %s: the pod sees %s" % (mode, how, took[0]))
                best = min(best, time.time() - t)
                d = g.decision(rid)
                need(d["end"] == "client_gone" and d["spliced_bytes"] == (len(chunk(BIG[:1000])) if mode == "active" else 0), "%s, %s: %s" % (mode, how, d))
                if best < 0.05:
                    break
            need(best < 0.05, "%s, %s: after %.0f ms" % (mode, how, best * 1e3))
    g.counts('requests_done_total{end="client_gone"', g.metric("requests_total"))
    until(lambda: g.ask("pod.list")[0]["inflight"] == 0, "the ledger is empty")


# --- pods that fail ---

CUTS = {
    "length, RST": ([head("length", 5000) + b"one", b"two", reset], "pod_rst"),
    "length, FIN": ([head("length", 5000) + b"one", b"two", close], None),
    "chunked, RST in a chunk": ([head("chunked") + chunk(b"one"), b"500\r\nxyz", reset], "pod_rst"),
    "chunked, FIN in a chunk": ([head("chunked") + chunk(b"one"), b"500\r\nxyz", close], None),
    "chunked, FIN behind a chunk": ([head("chunked") + chunk(b"one"), chunk(b"two"), close], None),
    "chunked, FIN on data": ([head("chunked") + chunk(b"one"), chunk(b"two"), lambda c: (c.send(chunk(b"x")), "close")[1]], None),
    "until close, RST": ([head("close") + b"one", b"two", reset], "pod_rst"),
    "armed only, RST": ([head("chunked") + chunk(b"one"), reset], None),
    "armed only, FIN": ([head("chunked") + chunk(b"one"), close], None),
    "bad chunk": ([head("chunked") + chunk(b"one"), b"zz\r\nhello", lambda c: time.sleep(2)], "broken"),
    "chunk too long": ([head("chunked") + chunk(b"one"), b"fffffffffffffffff\r\nhello", lambda c: time.sleep(2)], "broken"),
    "across the end": ([head("length", 10) + b"one", b"more than seven", lambda c: time.sleep(2)], "broken"),
}


@lib.wire("tc")
def test_a_pod_that_breaks_off_is_never_a_clean_end(w):
    w.odd.add("pod_broken")
    pod = w.pod(None)
    g = w.gateway([pod])
    for name, (parts, event) in CUTS.items():
        told = event and g.metric('splice_events_total{event="%s"' % event)
        pod.handler = s = Staged(*parts)
        with g.connect() as c:
            a, rid = ask(g, c)
            armed(g)
            if len(parts) > 2:
                s.go()
                if event != "broken":
                    active(g)
            s.go()
            try:
                while c.more():
                    pass
                how = "FIN"
            except ConnectionResetError:
                how = "RST"
            body = parts[0].split(b"\r\n\r\n", 1)[1]
            need(c.seen.split(b"\r\n\r\n", 1)[1].startswith(body), "%s: the client has %r" % (name, bytes(c.seen[-50:])))
            need(how == "RST" or (name == "armed only, FIN" or name == "armed only, RST"), "%s: the client got %s" % (name, how))
            d = g.decision(rid)
            need(d["end"] == "upstream_cut", "%s: the end is %s" % (name, d["end"]))
            if event == "broken":  # a reset is told by U's socket as well, whichever is faster
                g.counts('splice_events_total{event="%s"' % event, told + 1)
    g.counts('requests_done_total{end="upstream_cut"', len(CUTS))
    s = g.pod_state(pod)
    need(s["ejections"] >= 1 and s["garbage"] == 3, "the pod is not blamed: %s" % s)
    # One is told by an event; the others are seen at U's socket, before the watchdog looks.
    need(g.metric('splice_events_total{event="pod_fin"') <= 2, "only the watchdog has found FINs")
    until(lambda: g.ask("pod.list")[0]["inflight"] == 0, "the ledger is empty")


@lib.wire("relay", "tc")
def test_a_pod_that_closes_or_adds_bytes_behind_the_end_spoils_nothing(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    for name, after in (("FIN", close), ("RST", reset), ("stray bytes", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")):
        for top, body in ((head("chunked"), chunk(b"x" * 500) + b"0\r\n\r\n"), (head("length", 503), b"x" * 500)):
            first = chunk(b"one") if b"chunked" in top else b"one"
            pod.handler = s = Staged(top + first, body, after)
            with g.connect() as c:
                a, rid = ask(g, c)
                armed(g)
                s.go()
                need(c.take(len(first + body)) == first + body, "%s: the body differs" % name)
                s.go()
                was_spliced(g, rid, len(body))
                need(g.decision(rid)["end"] == "complete", "%s: not complete" % name)
                pod.handler = lambda c, r: (r.read_body(), c.reply(b"next"))
                for _ in range(3):
                    c.send(request(PROMPT))
                    b = c.answer()
                    need(b.complete and b.body == b"next", "%s: the next answer is %r" % (name, b.body))
    need(g.metric("requests_done_total{end=\"upstream_cut\"") == 0, "counted as cut")


@lib.wire("tc")
def test_stray_bytes_before_the_client_has_acknowledged_the_end_spoil_the_connection(w):
    """A segment that is full is not sent again together with them, which would be broken framing. They are read while the splice waits for the client, so nothing is left in the pod's socket to be met later."""
    pod = w.pod(None)
    g = w.gateway([pod])
    pod.handler = s = Staged(head("length", 1451) + b"one", b"x" * 1448, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
    with g.connect(timeout=10) as c:
        a, rid = ask(g, c)
        armed(g)
        w.client.ip("route", "add", "blackhole", "10.97.0.1")
        s.go()
        until(lambda: g.flows("ended"), "all of it has gone")
        s.go()
        until(lambda: g.metric('splice_rows_total{row="pod_behind_end"') > 0, "more has come")
        w.client.ip("route", "del", "blackhole", "10.97.0.1")
        need(c.take(1451) == b"one" + b"x" * 1448, "the body differs")
        was_spliced(g, rid, 1448)
        before, pod.handler = pod.conns, lambda c, r: (r.read_body(), c.reply(b"next"))
        c.send(request(PROMPT))
        need(c.answer().body == b"next", "the next answer")
        need(pod.conns == before + 1, "the pod's connection was used again")


# --- time ---

@lib.wire("relay", "tc")
def test_only_a_pod_that_is_silent_too_long_is_cut(w):
    pod = w.pod(None)
    g = w.gateway([pod], limits="stream-idle: 300ms")
    def trickle(c):
        for _ in range(15):  # limits are looked at after connect-timeout, 1 s, for the first time
            c.send(chunk(b"x"))
            time.sleep(0.1)
    pod.handler = s = Staged(head("chunked") + chunk(b"one"), trickle, b"0\r\n\r\n")
    with g.connect() as c:
        a, rid = ask(g, c)
        armed(g)
        s.go(2)
        n = 15 * len(chunk(b"x")) + 5
        c.take(len(chunk(b"one")) + n)
        was_spliced(g, rid, n)
    for parts in ([chunk(b"two")], []):
        pod.handler = s = Staged(head("chunked") + chunk(b"one"), *parts, lambda c: c.closed_within(3))
        with g.connect() as c:
            a, rid = ask(g, c)
            armed(g)
            s.go(2)
            t = time.time()
            with lib.contextlib.suppress(ConnectionResetError):
                while c.more():
                    pass
            need(0.2 < time.time() - t < 1.5, "after %.2f s" % (time.time() - t))
            until(lambda: s.result is not None, "the pod's connection is ended")
            need(g.decision(rid)["end"] == "upstream_cut", "not cut")
    need(g.metric('timeouts_total{timer="stream_idle"') == 2, "not counted")


@lib.wire("relay", "tc")
def test_a_client_that_does_not_read_is_not_the_pods_fault(w):
    pod = w.pod(None)
    g = w.gateway([pod], limits="stream-idle: 300ms, client-idle: 30s")
    data = BIG * 40
    pod.handler = s = Staged(head("length", len(data) + 1) + b"1", data)
    with g.connect() as c:
        a, rid = ask(g, c)
        armed(g)
        s.go()
        time.sleep(1.6)
        got = c.take(len(data) + 1)
        need(got == b"1" + data, "the body differs")
        was_spliced(g, rid, len(data))
    need(g.metric("timeouts_total") == 0, "counted as a timeout: %s" % [l for l in g.page("/metrics").splitlines() if "timeouts_total" in l])


@lib.wire("tc")
def test_a_client_that_acknowledges_nothing_for_client_idle_is_left(w):
    pod = w.pod(None)
    g = w.gateway([pod], limits="client-idle: 1s")
    pod.handler = s = Staged(head("length", len(BIG) * 40 + 1) + b"1", lambda c: (c.send(BIG * 40), c.closed_within(5))[1])
    with g.connect() as c:
        a, rid = ask(g, c)
        armed(g)
        s.go()
        d = g.decision(rid)
        need(d["end"] == "client_gone" and 800 < d["duration_ms"] < 4000, "%s after %d ms" % (d["end"], d["duration_ms"]))
    need(g.metric('splice_events_total{event="stalled"') == 1, "no event")
    need(g.metric('timeouts_total{timer="client_idle"') == 1, "not counted as the client's")


# --- what is learned of spliced answers ---

USAGE = b'"usage":{"prompt_tokens":40,"completion_tokens":2,"total_tokens":42,"prompt_tokens_details":{"cached_tokens":32}}'
EVENT = b'data: {"choices":[],' + USAGE + b'}\n\n'
DONE = b"data: [DONE]\n\n"
TOKEN = b'data: {"choices":[{"text":"tok"}]}\n\n'
SSE = "text/event-stream"


def sse(*events, first=TOKEN, size=0):
    body = b"".join(events)
    return [head("chunked", ctype=SSE) + chunk(first)] + [slowly(b"".join(map(chunk, events)) + b"0\r\n\r\n", size) if size else
                                                          b"".join(map(chunk, events)) + b"0\r\n\r\n"]


def whole(body, first=TOKEN, ctype=SSE):
    return [head("length", len(first + body), ctype) + first, body]


TAILS = {
    "at the end": sse(TOKEN, TOKEN, EVENT, DONE),
    "in the last chunk": sse(TOKEN, EVENT + DONE),
    "in segments of seven bytes": sse(TOKEN, EVENT, DONE, size=7),
    "in chunks of one byte": sse(*[bytes([b]) for b in TOKEN + EVENT + DONE]),
    "CRLF": whole(b"".join((TOKEN, EVENT, DONE)).replace(b"\n", b"\r\n")),
    "CR": whole(b"".join((TOKEN, EVENT, DONE)).replace(b"\n", b"\r"), first=TOKEN.replace(b"\n", b"\r")),
    "no space behind the colon": sse(TOKEN.replace(b": ", b":"), EVENT.replace(b"data: ", b"data:"), DONE),
    "followed by members": sse(TOKEN, EVENT.replace(b"}}}", b'}},"service_tier":null,"x":{"usage":1,"y":[' + b"1," * 500 + b"1]}}"), DONE),
    "no [DONE]": sse(TOKEN, EVENT),
    "behind much text": sse(*[TOKEN] * 3000, EVENT, DONE),
    "before 2 KB of comments": sse(TOKEN, EVENT, b": ping\n\n" * 200, DONE),
    "until close": [head("close", ctype=SSE) + TOKEN, TOKEN * 200 + EVENT + DONE, close],
    "the last one counts": sse(EVENT.replace(b"32", b"16"), TOKEN, EVENT, DONE),
    "said in the first event alone": sse(TOKEN, TOKEN, DONE, first=EVENT),
    "said in the first event and lost in much text": sse(*[TOKEN] * 3000, DONE, first=EVENT),
    "across the split": sse(EVENT[30:], DONE, first=TOKEN + EVENT[:30]),
    "across the split, in the key": sse(EVENT[22:], DONE, first=TOKEN + EVENT[:22]),
    "across the split of a chunk": [head("chunked", ctype=SSE) + b"%x\r\n" % len(EVENT) + EVENT[:33], EVENT[33:] + b"\r\n0\r\n\r\n"],
    "JSON": whole(b'"text":"' + b"x" * 9000 + b'"}],' + USAGE + b"}", b'{"choices":[{', "application/json"),
    "JSON, early": whole(USAGE + b',"id":"' + b"x" * 2000 + b'"}', b"{", "application/json"),
}
UNSEEN = {
    "none": sse(TOKEN, DONE),
    "null": sse(TOKEN, b'data: {"usage":null}\n\n', DONE),
    "in a text": sse(TOKEN, b'data: {"choices":[{"text":"\\"usage\\":{\\"prompt_tokens\\":1}"}]}\n\n', DONE),
}


@lib.wire("relay", "tc")
def test_usage_is_seen_in_each_framing_of_a_tail(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    for seen, table in (("yes", TAILS), ("no", UNSEEN)):
        for name, parts in table.items():
            before = g.metric('usage_total{seen="%s"' % seen)
            pod.handler = s = Staged(*parts)
            with g.connect() as c:
                a, rid = ask(g, c)
                armed(g)
                s.go(2)
                body = bytes_of(parts).split(b"\r\n\r\n", 1)[1]
                need(c.take(len(body)) == body, "%s: the body differs" % name)
                need(close not in parts or not c.more(), "%s: bytes behind the end" % name)
            d = g.decision(rid)
            need(d["reported_tokens"] == (32 if seen == "yes" else None), "%s: reported %s" % (name, d["reported_tokens"]))
            g.counts('usage_total{seen="%s"' % seen, before + 1)
            was_spliced(g, rid, len(bytes_of(parts[1:])))
    n = len(TAILS)
    need(g.metric("prefix_reported_tokens_total") == 32 * n, "%d tokens reported" % g.metric("prefix_reported_tokens_total"))
    if w.carrier == "tc":
        need(g.metric("pod_splice_ttft_seconds_count") == n + len(UNSEEN) and g.metric("pod_splice_gap_seconds_count") > n, "no times")
        need(0 < g.metric("pod_splice_ttft_seconds_sum") < 60, "times of %g s" % g.metric("pod_splice_ttft_seconds_sum"))


# --- what is not spliced, and why ---

def relayed(g, c, pod, why, body=PROMPT, headers=(), version="1.1", parts=None):
    """An answer that is relayed with the right bytes and a count."""
    top, *parts = parts or [head("chunked"), chunk(b"one"), chunk(BIG[:3000]) + b"0\r\n\r\n"]
    before = g.metric('splice_pairs_total{result="%s"' % why)
    pod.handler = s = Staged(top + parts[0], *parts[1:])
    c.send(request(body, headers=headers, version=version))
    a = c.answer(head_only=True)
    time.sleep(0.03)
    need(not g.flows("armed", "active"), "%s: it is armed" % why)
    s.go(9)
    want = b"one" + BIG[:3000] if version == "1.0" else bytes_of(parts)
    need(c.take(len(want)) == want, "%s: the body differs" % why)
    d = g.decision(a.headers["x-request-id"])
    need(d["carrier"] == "relay" and d["spliced_bytes"] == 0 and d["end"] == "complete", "%s: %s" % (why, d))
    need(g.metric('splice_pairs_total{result="%s"' % why) == before + 1, "%s is not counted" % why)


@lib.wire("tc")
def test_what_the_kernel_should_not_carry_is_relayed_and_counted(w):
    pod = w.pod(None)
    g = w.gateway([pod], datapath={"min-bytes": "4KiB"}, workers=1)
    with g.connect() as c:
        relayed(g, c, pod, "usage", dict(PROMPT, return_token_ids=True))
        relayed(g, c, pod, "usage", dict(PROMPT, prompt_logprobs=3))
        relayed(g, c, pod, "short", parts=[head("length", 4096), b"o", b"x" * 4095])
    with g.connect() as c:
        relayed(g, c, pod, "dechunk", version="1.0")
    with g.connect(ns=lib.Here) as c:
        relayed(g, c, pod, "loopback")
    # A pod's connection that was made for another client may bring segments that are too long for this one.
    with g.connect(mss=536) as c:
        relayed(g, c, pod, "mss")
    for body in (dict(PROMPT, return_token_ids=False), dict(PROMPT, prompt_logprobs=None)):
        pod.handler = s = Staged(head("length", 5000) + b"x", b"y" * 4999)
        with g.connect() as c:
            a, rid = ask(g, c, body)
            armed(g)
            s.go()
            c.take(5000)
            was_spliced(g, rid, 4999)


def answer(c):
    c.send(request(PROMPT))
    return c.answer()


@lib.wire("tc")
def test_short_answers_are_not_bound_and_long_ones_among_them_are_spliced(w):
    pod = w.pod(None)
    g = w.gateway([pod], datapath={"min-bytes": "4KiB"}, workers=1)
    with g.connect() as c:
        for _ in range(16):
            pod.handler = Staged(head("length", 5) + b"hello")
            need(answer(c).body == b"hello", "another answer")
        need(g.metric("splice_pairs_total") == 0, "short ones were bound, or counted")
        for body in PROMPT, dict(PROMPT, stream=True):
            pod.handler = s = Staged(head("length", 5000) + b"x", b"y" * 4999)
            a, rid = ask(g, c, body)
            armed(g)
            s.go()
            c.take(5000)
            was_spliced(g, rid, 4999)
        for _ in range(16):
            pod.handler = Staged(head("length", 5) + b"hello")
            need(answer(c).body == b"hello", "another answer")
        pod.handler = s = Staged(head("length", 5000) + b"x", b"y" * 4999)
        a, rid = ask(g, c, dict(PROMPT, stream=True))
        armed(g)
        s.go()
        c.take(5000)
        was_spliced(g, rid, 4999)
    need(g.metric("splice_pairs_total") == g.metric('splice_pairs_total{result="ok"') == 3, "others than the long ones")


def tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TUNSETIFF: IFF_TAP | IFF_NO_PI
    return fd


@contextlib.contextmanager
def far_client(w, delay):
    """The client's packets, and those to it, go by far0 and take so long."""
    with w.net.client.inside():
        there = tap("far1")
    here = tap("far0")
    lib.run("ip", "link", "set", "far0", "up")
    w.net.client.ip("link", "set", "far1", "up")
    w.net.client.ip("route", "add", "10.97.0.1/32", "dev", "far1", "src", "10.97.0.2")
    lib.run("ip", "route", "add", "10.97.0.2/32", "dev", "far0", "src", "10.97.0.1")
    over = threading.Event()

    def take(fd, q):
        while not over.is_set():
            if select.select([fd], [], [], 0.1)[0]:
                q.put((time.monotonic() + delay, os.read(fd, 70000)))
        q.put((0, b""))

    def give(fd, q):
        while True:
            at, packet = q.get()
            if not packet:
                return
            time.sleep(max(0, at - time.monotonic()))
            os.write(fd, packet)

    threads = []
    for a, b in (here, there), (there, here):
        q = queue.Queue()
        threads += [threading.Thread(target=take, args=(a, q)), threading.Thread(target=give, args=(b, q))]
    for t in threads:
        t.start()
    try:
        yield
    finally:
        over.set()
        for t in threads:
            t.join()
        os.close(here)
        os.close(there)


@lib.wire("tc")
def test_far_clients_get_events_from_the_kernel_and_bodies_from_us(w):
    pod = w.pod(None)
    with far_client(w, 0.01):
        g = w.gateway([pod], datapath={"devices": "\"far0,p1,p2\""})
        with g.connect() as c:
            relayed(g, c, pod, "far")
            relayed(g, c, pod, "far", parts=[head("length", 100000), b"o", BIG[:99999]])
        for top, size in (head("chunked", ctype="text/event-stream"), len(BIG)), (head("length", 60001), 60000):
            body = BIG[:size]
            if b"event" in top:
                body = chunk(body) + b"0\r\n\r\n"
            pod.handler = s = Staged(top + (chunk(b"x") if b"event" in top else b"x"), body)
            with g.connect() as c:
                a, rid = ask(g, c)
                armed(g)
                s.go()
                need(c.take(len(body) + (6 if b"event" in top else 1)).endswith(body), "the body differs")
                was_spliced(g, rid, len(body))


@lib.wire("tc")
def test_a_client_of_small_segments_gets_its_own_connections_to_pods(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    for mss in (536, 88, 1200):
        pod.handler = s = Staged(head("chunked") + chunk(b"one"), chunk(BIG) + b"0\r\n\r\n")
        for p in list(pod.live):
            p.s.shutdown(socket.SHUT_RDWR)  # nothing kept
        time.sleep(0.05)
        with g.connect(mss=mss) as c:
            a, rid = ask(g, c)
            armed(g)
            s.go()
            need(c.take(len(chunk(b"one") + chunk(BIG)) + 5) == chunk(b"one") + chunk(BIG) + b"0\r\n\r\n", "MSS %d: the body differs" % mss)
            was_spliced(g, rid, len(chunk(BIG)) + 5)


@lib.wire("tc")
def test_times_that_the_kernel_measured_reach_the_scheduler(w):
    pod = w.pod(None)
    g = w.gateway([pod])
    with g.connect() as c:
        for i in range(4):
            pod.handler = s = Staged(head("chunked") + chunk(b"one"), lambda c: time.sleep(0.3), slowly(chunk(b"x" * 40) * 20 + b"0\r\n\r\n", 46, 0.02))
            a, rid = ask(g, c)
            armed(g)
            s.go(9)
            c.take(len(chunk(b"one")) + 46 * 20 + 5)
            d = g.decision(rid)
            need(d["carrier"] == "tc" and 280 < d["longest_gap_ms"] < 600, "the longest gap: %s" % d["longest_gap_ms"])
            time.sleep(1.1)  # the next look
    row = d["candidates"][0]
    need(row["recent_gap_ms"] and 15 < row["recent_gap_ms"] < 60, "gaps of late: %s" % row["recent_gap_ms"])
    need(row["recent_ttft_ms"] is not None and row["recent_ttft_ms"] < 200, "first bytes of late: %s" % row["recent_ttft_ms"])


@lib.wire("tc")
def test_an_address_that_is_rewritten_here_is_no_way_for_splices(w):
    if not shutil.which("nft"):
        raise lib.Skip("there is no nft to rewrite addresses with")
    pod = w.pod(None)
    g = w.gateway([pod])
    rules = "table ip kvs { chain pre { type nat hook prerouting priority dstnat; tcp dport 7 dnat to %s; }; }" % lib.address(*g.addr)
    r = subprocess.run(["nft", rules], capture_output=True, text=True)
    if r.returncode:
        raise lib.Skip("nft cannot rewrite addresses here: " + r.stderr.split("\n")[0])
    try:
        c = lib.Conn((g.addr[0], 7), ns=w.client)
        w.conns.append(c)
        relayed(g, c, pod, "dnat")
        w.odd.add("kvs_syns")
    finally:
        lib.run("nft", "delete", "table", "ip", "kvs")


@lib.wire("tc")
def test_families_are_not_mixed(w):
    pod = w.pod(None)
    g = w.gateway([pod], ip="fd97:0::1")
    with g.connect() as c:
        relayed(g, c, pod, "family")


@lib.wire("tc")
def test_a_device_without_programs_is_no_way_for_splices(w):
    pod = w.pod(None)
    w.odd |= {"no_device", "no_handshake"}
    g = w.gateway([pod], datapath={"devices": "c0"})
    with g.connect() as c:
        relayed(g, c, pod, "no_handshake")


lib.main(globals())
