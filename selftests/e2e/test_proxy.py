#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a hostile or odd client or pod does, and what the other side sees of it."""
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import zlib

import lib
from lib import need, request, until

PROMPT = {"model": "m", "prompt": "hello"}


def echo(c, r):
    r.read_body()
    c.reply({"n": len(r.body), "target": r.target})


def stream(n, pause=0.0, size=40):
    def handler(c, r):
        r.read_body()
        c.start_stream()
        for i in range(n):
            c.event(b"%0*d" % (size, i))
            time.sleep(pause)
        c.end()
    return handler


# --- requests ---

def test_request_and_answer_pass_unchanged(w):
    def handler(c, r):
        r.read_body()
        c.reply(b'{"a" :1}', headers=["X-One: 1", "Set-Cookie: a=1", "X-Empty:"])
    pod = w.pod(handler)
    g = w.gateway([pod])
    body = '{"model":"m",  "prompt":"h\\u00fc\u00fc",\n "x":[1,2.50]}'
    a = g.post(body, "/v1/completions?x=%2F&y=a+b", ["X-Tt: q", "Authorization: Bearer k"])
    r = pod.requests[0]
    need(a.status == 200 and a.body == b'{"a" :1}' and a.headers["x-one"] == "1" and a.headers["x-empty"] == "", "answer changed: %r" % a.headers)
    need(a.headers["x-kvsteer-pod"] == pod.name and a.headers["x-request-id"], "the gateway's headers are missing")
    need(r.body == body.encode() and r.target == "/v1/completions?x=%2F&y=a+b", "request changed: %r %r" % (r.target, r.body))
    need(r.headers["x-tt"] == "q" and r.headers["authorization"] == "Bearer k" and r.headers["host"] == "gateway", "headers changed")


def test_chunked_body_keeps_its_chunks_and_is_read(w):
    raw = []
    def handler(c, r):
        while b"0\r\n\r\n" not in c.buf:
            c.more()
        raw.append(c.buf)
        c.buf = b""
        c.reply()
    pod = w.pod(handler)
    g = w.gateway([pod])
    data = request(dict(PROMPT, prompt="x" * 500), chunked=37)
    with g.connect() as c:
        c.send(data)
        need(c.answer().status == 200, "refused")
    need(raw[0] == data.split(b"\r\n\r\n", 1)[1], "the chunks were re-encoded")
    need(g.metric("decisions_total{mode=\"approximate\"") == 1, "the chunked body was not read for its prompt")


def test_connection_headers_stay_on_their_hop(w):
    pod = w.pod(lambda c, r: (r.read_body(), c.reply(headers=["Connection: X-Hop", "X-Hop: p", "Keep-Alive: timeout=5"])))
    g = w.gateway([pod])
    a = g.post(PROMPT, headers=["Connection: keep-alive, X-Mine", "X-Mine: 1", "TE: trailers", "Proxy-Authorization: x", "Upgrade: h2c"])
    r = pod.requests[0]
    need(not {"x-mine", "te", "proxy-authorization", "upgrade", "connection"} & set(r.headers), "passed on: %s" % r.fields)
    need("x-hop" not in a.headers and "keep-alive" not in a.headers, "passed back: %s" % a.headers)


def test_100_continue_is_answered_and_not_passed_on(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    q = request(dict(PROMPT, prompt="y" * 3000), headers=["Expect: 100-continue"])
    with g.connect() as c:
        c.send(q[:-3000])
        need(c.line().startswith("HTTP/1.1 100"), "no 100")
        c.line()
        c.send(q[-3000:])
        a = c.answer()
    need(a.status == 200 and "expect" not in pod.requests[0].headers, "status %d" % a.status)


@lib.also("tc")
def test_early_answer_comes_before_the_body_is_whole(w):
    def handler(c, r):
        c.reply({"early": 1}, "400 Bad Request")
        r.read_body()
    pod = w.pod(handler)
    g = w.gateway([pod])
    q = request(dict(PROMPT, prompt="z" * 200000))
    with g.connect() as c:
        c.send(q[:1000])
        a = c.answer()
        need(a.status == 400 and a.json() == {"early": 1}, "status %d" % a.status)
        c.send(q[1000:])
        until(lambda: pod.requests[0].whole, "the pod gets the rest")
        c.send(request(PROMPT))
        need(c.answer().status == 400, "the connection is not usable afterwards")


@lib.also("tc")
def test_head_has_no_body_and_the_next_answer_is_right(w):
    def handler(c, r):
        r.read_body()
        if r.method == "HEAD":
            c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
        else:
            c.reply()
    g = w.gateway([w.pod(handler)], listener='paths: {allow: ["/x"]}')
    with g.connect() as c:
        c.send(request(b"", "/x", method="HEAD"))
        a = c.answer(no_body=True)
        need(a.status == 200 and a.headers["content-length"] == "12345", "%r" % a.headers)
        c.send(request(PROMPT))
        need(c.answer().body == b"{}", "bytes of a body that HEAD must not have")


@lib.also("tc")
def test_pipelined_requests_are_answered_in_order(w):
    pod = w.pod(lambda c, r: (r.read_body(), time.sleep(0.02), c.reply(r.body)))
    g = w.gateway([pod])
    with g.connect() as c:
        c.send(b"".join(request({"model": "m", "prompt": str(i)}, chunked=i % 3 * 7) for i in range(20)))
        for i in range(20):
            a = c.answer()
            need(a.status == 200 and a.json()["prompt"] == str(i), "answer %d: %r" % (i, a.body))


@lib.also("tc")
def test_http_1_0_client_gets_no_chunks(w):
    g = w.gateway([w.pod(stream(50))])
    with g.connect() as c:
        c.send(request(PROMPT, version="1.0"))
        a = c.answer()
    need(a.framing == "close" and a.complete and a.body.count(b"data:") == 50, "%s, %d bytes" % (a.framing, len(a.body)))


def test_a_head_over_64_kb_is_431(w):
    g = w.gateway([w.pod(echo)])
    with g.connect() as c:
        c.send(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * 70000 + b"\r\n\r\n")
        need(c.answer().status == 431, "not 431")


def test_a_body_over_the_limit_is_413_and_reaches_no_pod(w):
    pod = w.pod(echo)
    g = w.gateway([pod], limits="body: 100KiB")
    for chunked in (0, 5000):
        with g.connect() as c:
            try:
                c.send(request(dict(PROMPT, prompt="x" * 200000), chunked=chunked))
            except OSError:
                pass
            a = c.answer()
            need(a.status == 413 and a.json()["error"]["type"], "chunked=%d: status %d" % (chunked, a.status))
    need(not pod.requests, "a pod got it")


def test_each_pool_has_its_limit_of_bodies(w):
    small, large = w.pod(echo), w.pod(echo, ip="127.0.0.9", models=("large",))
    g = w.gateway([small.spec() + "\n  - name: large\n    limits: {body: 1MiB}\n    discovery:\n      static:\n        - " + large.spec()], limits="body: 100KiB")
    until(lambda: all(p["models"] for p in g.ask("pod.list")), "both told their models")
    for model, n, status in (("large", 200000, 200), ("m", 200000, 413), ("large", 1100000, 413), ("m", 50000, 200)):
        for chunked in (0, 5000):
            with g.connect() as c:
                try:
                    c.send(request(dict(PROMPT, model=model, prompt="x" * n), chunked=chunked))
                except OSError:
                    pass
                a = c.answer()
                need(a.status == status, "%d bytes to %s, chunked=%d: status %d" % (n, model, chunked, a.status))
    need(len(small.requests) == 2 and len(large.requests) == 2, "a pod got what it should not")


SMUGGLED = {
    "cl and te": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    "signed length": b"Content-Length: +2\r\n\r\n{}",
    "bare lf": b"Content-Length: 2\n\n{}",
    "te twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "bad chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "huge chunk": b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "space before colon": b"Content-Length : 2\r\n\r\n{}",
    "obs fold": b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "nul": b"X-A: b\0c\r\nContent-Length: 2\r\n\r\n{}",
}


def test_what_can_be_read_in_two_ways_is_400_and_closed(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    for what, rest in SMUGGLED.items():
        with g.connect() as c:
            c.send(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + rest + b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            a = c.answer()
            need(a.status == 400 and a.headers.get("connection") == "close", "%s: status %d" % (what, a.status))
            c.buf = b""
            need(not c.more(), "%s: a second answer came" % what)
    need(not any(r.whole for r in pod.requests), "a complete request reached a pod")


# --- clients that go away ---

def test_a_client_gone_resets_the_pod_within_50_ms(w):
    took = []
    def handler(c, r):
        r.read_body()
        if r.headers.get("x-mode") == "stream":
            c.start_stream()
            c.event(b"1")
        took.append(c.closed_within(3))
        return "close"
    g = w.gateway([w.pod(handler)])
    for mode in ("silent", "stream"):
        for how in ("rst", "fin"):
            c = g.connect()
            c.send(request(PROMPT, headers=["X-Mode: " + mode]))
            time.sleep(0.15)
            t, n = time.time(), len(took)
            c.reset() if how == "rst" else c.s.close()
            until(lambda: len(took) > n, "%s, %s: the pod hears of it" % (mode, how), 2, 0.002)
            dt = time.time() - t
            need(dt < 0.05, "%s, %s: after %.0f ms" % (mode, how, dt * 1e3))
    need(g.metric('requests_done_total{end="client_gone"') == 4, "not counted")
    until(lambda: g.cli("pod", "list")[0]["inflight"] == 0, "the ledger is empty")


def test_an_aborted_upload_reaches_no_pod_whole(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    c = g.connect()
    c.send(request(dict(PROMPT, prompt="x" * 500000))[:100000])
    time.sleep(0.2)
    c.s.close()
    time.sleep(0.2)
    need(not any(r.whole for r in pod.requests), "a pod got a complete request")


@lib.also("tc")
def test_a_reader_that_stops_holds_its_pod_and_little_memory(w):
    sent = []
    def handler(c, r):
        r.read_body()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
        for _ in range(1024):
            c.send(b"x" * 65536)
            sent.append(65536)
    g = w.gateway([w.pod(handler)])
    with g.connect() as c:
        c.send(request(PROMPT))
        c.answer(head_only=True)
        time.sleep(1.5)
        held, rss = sum(sent), g.cli("status")["rss_bytes"]
        need(held < 24 << 20, "the pod could send %d MB" % (held >> 20))
        n = len(c.buf)
        while n < 67108864:
            n += len(c.s.recv(1 << 20))
    need(n == 67108864, "%d bytes" % n)
    need(rss < 64 << 20, "RSS %d MB" % (rss >> 20))


# --- pods that fail ---

@lib.also("tc")
def test_a_stale_connection_is_never_a_502(w):
    def handler(c, r):
        r.read_body()
        c.reply()
        if c.n == 1:
            time.sleep(0.03)
            return "close"
    pod = w.pod(handler)
    g = w.gateway([pod], extra="")
    with g.connect() as c:
        for i in range(15):
            c.send(request(PROMPT))
            a = c.answer()
            need(a.status == 200, "request %d: status %d" % (i, a.status))
            time.sleep(0.03 if i % 2 else 0.06)


@lib.also("tc")
def test_a_pod_that_closes_on_the_next_request_is_tried_on_a_fresh_connection(w):
    def handler(c, r):
        if c.n > 1:
            return "close"
        r.read_body()
        c.reply()
    g = w.gateway([w.pod(handler)])
    with g.connect() as c:
        for i in range(6):
            c.send(request(PROMPT))
            a = c.answer()
            need(a.status == 200, "request %d: status %d" % (i, a.status))
    need(g.metric('retries_total{reason="stale_connection"') >= 3, "not counted")


@lib.also("tc")
def test_a_pod_that_cannot_be_reached_is_left_for_the_next(w):
    pods = [w.pod(echo, "127.0.0.%d" % i) for i in (2, 3, 4)]
    g = w.gateway(pods, pool="scheduling: {policy: round-robin}", limits="retries: 2")
    w.odd.add("kvs_syns")  # of handshakes that were refused; that map lets its oldest go
    pods[0].close()
    pods[1].close()
    for i in range(4):
        a = g.post(PROMPT)
        need(a.status == 200 and a.headers["x-kvsteer-pod"] == pods[2].name, "request %d: status %d" % (i, a.status))
    need(g.metric('retries_total{reason="connect"') >= 1, "not counted")


@lib.also("tc")
def test_503_goes_to_the_next_pod_at_most_twice(w):
    pods = [w.pod(lambda c, r: (r.read_body(), c.reply({"busy": 1}, "503 Service Unavailable", ["Retry-After: 7"])), "127.0.0.%d" % i) for i in range(2, 7)]
    g = w.gateway(pods)
    a = g.post(PROMPT)
    need(a.status == 503 and a.headers["retry-after"] == "7", "status %d" % a.status)
    need(sum(len(p.requests) for p in pods) == 3, "%d pods were asked" % sum(len(p.requests) for p in pods))
    need(g.metric('retries_total{reason="busy"') == 2, "not counted")


def test_a_pod_that_dies_before_it_answers_is_502(w):
    def handler(c, r):
        r.read_body()
        return "close"
    pod = w.pod(handler)
    g = w.gateway([pod])
    a = g.post(PROMPT)
    need(a.status == 502 and a.json()["error"]["type"] == "upstream_error", "status %d %r" % (a.status, a.body))


@lib.also("tc")
def test_a_cut_stream_looks_cut(w):
    def handler(c, r):
        r.read_body()
        c.start_stream()
        c.event(b"1")
        time.sleep(0.05)
        return "close"
    g = w.gateway([w.pod(handler)])
    a = g.post(PROMPT)
    need(a.status == 200 and not a.complete, "it looks whole")
    need(g.metric('requests_done_total{end="upstream_cut"') == 1, "not counted")


def test_a_pod_that_speaks_garbage_is_ejected_and_shown(w):
    pod = w.pod(lambda c, r: (r.read_body(), c.send(b"\x16\x03\x01 what is this\r\n\r\n"), "close")[2])
    g = w.gateway([pod])
    for _ in range(5):
        need(g.post(PROMPT).status == 502, "not 502")
    s = g.pod_state(pod)
    need(s["state"] == "ejected" and s["garbage"] == 5 and s["ejections"] == 1, "%s" % s)
    good = w.pod(echo, "127.0.0.3")
    g = w.gateway([pod, good], pool="scheduling: {policy: round-robin}")
    until(lambda: g.post(PROMPT).status and g.pod_state(pod)["state"] == "ejected", "it is ejected beside another")
    for _ in range(6):
        need(g.post(PROMPT).headers["x-kvsteer-pod"] == good.name, "it got a request")


def test_a_pod_ejected_is_better_than_none(w):
    mode = ["close"]
    def handler(c, r):
        r.read_body()
        if mode[0] == "close":
            return "close"
        c.reply()
    pod = w.pod(handler)
    g = w.gateway([pod])
    for _ in range(6):
        need(g.post(PROMPT).status == 502, "not 502")
    need(g.pod_state(pod)["state"] == "ejected", "not ejected")
    mode[0] = "well"
    need(g.post(PROMPT).status == 200, "the only pod is not tried")


@lib.also("tc")
def test_bytes_behind_an_answer_never_become_another(w):
    served = []
    def handler(c, r):
        r.read_body()
        served.append(c.n)
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        time.sleep(0.01)
        c.send(b"POISON")
    g = w.gateway([w.pod(handler)])
    with g.connect() as c:
        for i in range(6):
            c.send(request(PROMPT))
            a = c.answer()
            need(a.status == 200 and a.body == b"{}", "answer %d: %d %r" % (i, a.status, a.body))
    need(served == [1] * 6, "a connection with stray bytes was used again: %s" % served)


def test_client_errors_do_not_eject_and_busy_pods_come_back(w):
    """Field case H1."""
    mode = ["400 Bad Request"]
    def handler(c, r):
        r.read_body()
        c.reply({}, mode[0], ["Retry-After: 1"] if mode[0].startswith("503") else [])
    pod = w.pod(handler)
    g = w.gateway([pod])
    for status in ("400 Bad Request", "503 Service Unavailable"):
        mode[0] = status
        for _ in range(20):
            need(g.post(PROMPT).status == int(status[:3]), "another status")
        mode[0] = "200 OK"
        need(g.post(PROMPT).status == 200, "a good request is refused after 20 × %s" % status)
    for i in range(40):
        mode[0] = "500 Internal Server Error" if i % 2 == 0 else "400 Bad Request"
        g.post(PROMPT)
    need(g.pod_state(pod)["ejections"] >= 1, "500s do not eject")


# --- time ---

@lib.also("tc")
def test_a_long_silence_before_and_in_a_stream_is_no_error(w):
    """Field case R3, in small: silence longer than every limit but its own."""
    def handler(c, r):
        r.read_body()
        time.sleep(1.5)
        c.start_stream()
        time.sleep(1.5)
        for i in range(5):
            c.event(b"1")
            time.sleep(0.4)
        c.end()
    g = w.gateway([w.pod(handler)], limits="client-idle: 500ms, request-head: 300ms, first-byte: 3s, stream-idle: 3s, connect-timeout: 200ms")
    a = g.post(PROMPT)
    need(a.complete and a.body.count(b"data:") == 5, "cut: status %d, %d bytes" % (a.status, len(a.body)))


@lib.also("tc")
def test_each_timer_names_itself(w):
    def handler(c, r):
        r.read_body()
        if r.headers.get("x-mode") == "silent":
            time.sleep(2)
        c.start_stream()
        c.event(b"1")
        time.sleep(2)
    pod = w.pod(handler)
    g = w.gateway([pod], limits="first-byte: 300ms, stream-idle: 300ms, client-idle: 300ms, request-head: 300ms")
    need(g.post(PROMPT, headers=["X-Mode: silent"]).status == 504, "first byte")
    a = g.post(PROMPT)
    need(a.status == 200 and not a.complete, "stream idle")
    with g.connect() as c:
        c.send(b"POST /v1/completions HTTP/1.1\r\n")
        need(c.answer().status == 408, "request head")
    with g.connect() as c:
        need(not c.more(), "an idle connection stays")
    for t in ("first_byte", "stream_idle", "request_head", "client_idle"):
        need(g.metric('timeouts_total{timer="%s"' % t) >= 1, t + " is not counted")


def test_a_pod_that_drops_syns_is_left_after_the_connect_timeout(w):
    good = w.pod(echo)
    l = socket.socket()
    l.bind(("127.0.0.9", w.port()))
    l.listen(0)
    fill = [socket.socket() for _ in range(4)]
    for s in fill:
        s.setblocking(False)
        s.connect_ex(l.getsockname())
    g = w.gateway(["{address: \"127.0.0.9:%d\"}" % l.getsockname()[1], good], limits="connect-timeout: 200ms", wait=False,
                  pool="scheduling: {policy: round-robin}\nmodels: [m]", health="60s")
    for i in range(3):
        t = time.time()
        a = g.post(PROMPT)
        need(a.status == 200 and time.time() - t < 1, "request %d: status %d after %.1f s" % (i, a.status, time.time() - t))
    need(g.metric('timeouts_total{timer="connect"') >= 1, "not counted")


# --- paths, fields, encodings ---

def test_paths_of_the_engines_operator_are_refused(w):
    """Field case R2."""
    pod = w.pod(echo)
    g = w.gateway([pod])
    for m, p in (("POST", "/reset_prefix_cache"), ("POST", "/sleep?level=2"), ("POST", "/collective_rpc"), ("POST", "/v1/load_lora_adapter"),
                 ("POST", "/flush_cache"), ("GET", "/metrics"), ("POST", "//sleep"), ("POST", "/v1/../sleep"), ("POST", "/%73leep"), ("POST", "/v1/completions/../../sleep")):
        with g.connect() as c:
            c.send(request({} if m == "POST" else b"", p, method=m))
            a = c.answer()
            need(a.status in (403, 404) and a.json()["error"]["type"], "%s: status %d" % (p, a.status))
    need(not pod.requests, "a pod got %s" % [r.target for r in pod.requests])
    for p in ("/tokenize", "/v1//completions", "/generate", "/classify"):
        need(g.post(PROMPT, p).status == 200, p + " is refused")
    need(pod.requests[1].target == "/v1//completions", "the target was rewritten")


def test_members_that_name_hosts_are_refused(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    for extra in ('"kv_transfer_params":{"remote_host":"10.0.0.1"}', '"bootstrap_host":"h"', '"kv_transfer\\u005fparams":{"a":1}'):
        a = g.post('{"model":"m","prompt":"x",%s}' % extra)
        need(a.status == 400, "%s: status %d" % (extra, a.status))
    q = request('{"model":"m","prompt":"%s","kv_transfer_params":{"a":1}}' % ("x" * 3000))
    with g.connect() as c:
        c.send(q[:2000])
        time.sleep(0.3)
        c.send(q[2000:])
        a = c.answer()
    need(a.status == 400 and not any(r.whole for r in pod.requests), "a slow body gets it through: status %d" % a.status)
    need(g.post('{"model":"m","prompt":"x","kv_transfer_params":null}').status == 200, "null is refused")


def packed(data, how):
    if how == "gzip":
        return gzip.compress(data)
    if how == "deflate":
        return zlib.compress(data)
    if how == "raw":
        z = zlib.compressobj(wbits=-15)
        return z.compress(data) + z.flush()
    return subprocess.run(["zstd", "-q"], input=data, stdout=subprocess.PIPE, check=True).stdout


def test_a_compressed_body_passes_unchanged_and_is_read(w):
    """Field case R1."""
    pods = [w.pod(echo), w.pod(echo)]
    g = w.gateway(pods)
    ways = [("gzip", "gzip"), ("GZIP", "gzip"), ("x-gzip", "gzip"), ("deflate", "deflate"), ("deflate", "raw")]
    if shutil.which("zstd") and g.knows_zstd():
        ways.append(("zstd", "zstd"))
    for n, (name, how) in enumerate(ways):
        q = json.dumps(dict(PROMPT, prompt="%d " % n + "some words " * 5000)).encode()
        z = packed(q, how)
        first = g.post(z, headers=["Content-Encoding: " + name, "x-kvsteer-explain: 1"])
        r = next(p for p in pods if p.name == first.headers["x-kvsteer-pod"]).requests[-1]
        need(first.status == 200 and r.body == z and r.headers["content-encoding"] == name, "%s: changed" % how)
        until(lambda: json.loads(g.post(q, headers=["x-kvsteer-explain: 1"]).headers["x-kvsteer-decision"])["predicted_tokens"] > 1000,
              "%s: the plain body meets the packed one" % how)
        with g.connect() as c:
            c.send(request(z, chunked=100).replace(b"\r\n", b"\r\nContent-Encoding: %s\r\nx-kvsteer-explain: 1\r\n" % name.encode(), 1))
            a = c.answer()
        need(a.status == 200 and json.loads(a.headers["x-kvsteer-decision"])["predicted_tokens"] > 1000, "%s: not read in chunks" % how)
    need(g.metric("opaque_total") == 0, "counted as opaque")


def test_what_may_not_pass_is_found_in_a_compressed_body(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    q = json.dumps(dict(PROMPT, kv_transfer_params={"remote_host": "h"})).encode()
    for name, how in (("gzip", "gzip"), ("deflate", "deflate"), ("deflate", "raw")):
        a = g.post(packed(q, how), headers=["Content-Encoding: " + name])
        need(a.status == 400 and b"kv_transfer_params" in a.body, "%s: %d" % (how, a.status))
    need(not pod.requests, "it reached the pod")


def test_a_body_that_cannot_be_unpacked_is_opaque(w):
    pod = w.pod(echo)
    g = w.gateway([pod], limits="body: 1MiB")
    z = gzip.compress(json.dumps(PROMPT).encode())
    for n, (name, body) in enumerate((("br", z), ("gzip, gzip", gzip.compress(z)), ("gzip", z[:-9]), ("gzip", z + b"x"), ("gzip", b"plain"), ("deflate", b"x"))):
        a = g.post(body, headers=["Content-Encoding: " + name])
        need(a.status == 200 and pod.requests[-1].body == body, "%s %d: %d" % (name, n, a.status))
        need(g.metric('opaque_total{reason="content_encoding"') == n + 1, "%s %d: not counted" % (name, n))
    bomb = gzip.compress(b" " * (1 << 30), 9)
    need(len(bomb) < 1 << 20, "the bomb is too large")
    before = g.rss()
    a = g.post(bomb, headers=["Content-Encoding: gzip"])
    need(a.status == 413, "a body that unpacks to 1 GB: %d" % a.status)
    need(g.rss() - before < 8 << 20, "the gateway grew by %d bytes" % (g.rss() - before))


def test_what_an_engine_reads_and_we_do_not_cannot_hide_what_may_not_pass(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    for q, status in (('{"model":"m","prompt":"x","t":NaN}', 200),
                      ('{"model":"m","prompt":"\\u00e4","t":NaN}', 200),
                      ('{"model":"m","prompt":"x","t":NaN,"bootstrap_host":"h"}', 400),
                      ('{"model":"m","prompt":"x","t":NaN,"\\u0062ootstrap_host":"h"}', 400),
                      ('{"model":"m","prompt":"\\ud83d","bootstrap_host":"h"}', 400),
                      ('{"model":"m","prompt":"x","bootstrap_host":"h"}'.encode("utf-16"), 400),
                      ('{"model":"m","a":' + "[" * 100 + "]" * 100 + ',"bootstrap_host":"h"}', 400),
                      # It comes in pieces, and what is wrong stands in the first.
                      ('{"t":NaN,"model":"m","prompt":"%s"}' % ("x" * 3000000), 200),
                      ('{"t":NaN,"model":"m","prompt":"%s","bootstrap_host":"h"}' % ("x" * 3000000), 400)):
        seen = len(pod.requests)
        need(g.post(q).status == status, "%r" % q[:100])
        need(len(pod.requests) - seen == (status == 200), "%r reached the pod" % q)


def test_forbidden_members_do_not_pass_inside_of_others(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    bad = {"kv_transfer_params": {"remote_host": "h"}}
    for q, status in (({"sampling_params": {"extra_args": bad}}, 400), ({"vllm_xargs": bad}, 400), ({"extra_args": [bad]}, 400),
                      ({"vllm_xargs": {"kv_transfer_params": None, "x": 1}}, 200), ({"vllm_xargs": {"x": "kv_transfer_params"}}, 200),
                      ({"metadata": bad}, 200)):
        for path in "/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/inference/v1/generate":
            for body in dict(q, **PROMPT), dict(PROMPT, prompt="x" * 300000, **q):
                need(g.post(body, path).status == status, "%s: %r" % (path, q))
            a = g.post(packed(json.dumps(dict(q, **PROMPT)).encode(), "gzip"), path, headers=["Content-Encoding: gzip"])
            need(a.status == status, "%s, packed: %r" % (path, q))
    # Of a long one, decided early, the beginning has reached the pod.
    need(sum(bool(r.body) for r in pod.requests) == 3 * 5 * 3, "what is refused reached the pod whole")


def test_a_salt_that_is_not_known_is_not_taken_for_none(w):
    g = w.gateway([w.pod(echo)])
    long = '"%s"' % ("s" * 128)

    def ask(n, salt):
        q = '{"model":"m","prompt":"%d %s"%s}' % (n, "some words " * 500, salt)
        return json.loads(g.post(q, headers=["x-kvsteer-explain: 1"]).headers["x-kvsteer-decision"])

    for n, (salt, opaque) in enumerate((("a", False), (long, True), ('"a\\u0000b"', True), ("7", True), ("{}", True))):
        salt = ',"cache_salt":%s' % (salt if opaque else '"%s"' % salt)
        need((ask(n, salt)["mode"] == "load") == opaque, "%s: opaque or not" % salt)
    need(g.metric('opaque_total{reason="cache_salt"') == 4, "not counted")
    need(ask(9, ',"cache_salt":%s,"cache_salt":"a"' % long)["mode"] != "load", "the last one wins")
    ask(10, ',"cache_salt":"a","cache_salt":null')
    until(lambda: ask(10, "")["predicted_tokens"] > 500, "null is the last")


def test_a_body_that_is_no_json_is_the_pods_to_judge(w):
    pod = w.pod(lambda c, r: (r.read_body(), c.reply({"e": 1}, "400 Bad Request")))
    g = w.gateway([pod])
    for b in ("{", "[1", "hello", '{"a":"\x01"}', ""):
        need(g.post(b).status == 400, repr(b))
    need(len(pod.requests) == 5, "%d reached the pod" % len(pod.requests))


def test_an_unknown_model_is_404_and_models_are_merged(w):
    a, b = w.pod(echo, "127.0.0.2", ("m", "alias")), w.pod(echo, "127.0.0.3", ("m", "n"))
    g = w.gateway([a, b])
    r = g.post({"model": "nope", "prompt": "x"})
    need(r.status == 404 and "nope" in r.json()["error"]["message"], "status %d" % r.status)
    with g.connect() as c:
        c.send(request(b"", "/v1/models", method="GET"))
        ids = [m["id"] for m in c.answer().json()["data"]]
    need(sorted(ids) == ["alias", "m", "n"], "%s" % ids)


# --- what is learned from answers ---

USAGE = b'{"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":2,"total_tokens":42,"prompt_tokens_details":{"cached_tokens":32}}}'


@lib.also("tc")
def test_usage_is_seen_in_every_legal_framing(w):
    """Field cases S1 and S2."""
    bodies = [
        (b"data:" + USAGE + b"\r\n\r\ndata: [DONE]\r\n\r\n", "text/event-stream"),
        (b": ping\r\ndata: " + USAGE + b"\r\n\r\ndata: [DONE]\r\n\r\n", "text/event-stream"),
        (b"data: " + USAGE + b"\r\rdata: [DONE]\r\r", "text/event-stream"),
        (USAGE[:-1] + b',"prompt_token_ids":[' + b",".join(b"%d" % i for i in range(8000)) + b"]}", "application/json"),
    ]
    at = [0]
    def handler(c, r):
        r.read_body()
        body, ctype = bodies[at[0]]
        c.reply(body, ctype=ctype)
    g = w.gateway([w.pod(handler)])
    for i, (body, _) in enumerate(bodies):
        at[0] = i
        a = g.post(PROMPT)
        need(a.body == body, "body %d changed" % i)
        d = g.decision(a.headers["x-request-id"])
        need(d["reported_tokens"] == 32, "body %d: reported %s" % (i, d["reported_tokens"]))
    need(g.metric('usage_total{seen="yes"') == 4, "not counted")


@lib.also("tc")
def test_a_stream_without_usage_is_unknown_not_zero(w):
    g = w.gateway([w.pod(stream(3))])
    a = g.post(PROMPT)
    need(g.decision(a.headers["x-request-id"])["reported_tokens"] is None, "taken for a number")
    need(g.metric('usage_total{seen="no"') == 1, "not counted")


def test_explain_shows_the_decision(w):
    g = w.gateway([w.pod(echo, "127.0.0.%d" % i) for i in (2, 3)])
    a = g.post(PROMPT, headers=["x-kvsteer-explain: 1", "X-Request-Id: abc-1"])
    d = json.loads(a.headers["x-kvsteer-decision"])
    need(d["request"] == "abc-1" and d["model"] == "m" and len(d["candidates"]) == 2 and d["pod"] == a.headers["x-kvsteer-pod"], "%s" % d)
    need("Got pod scores {" in g.output() and '"scores":null' in g.output().replace(": ", ":"), "no log line")


def test_every_metric_is_documented(w):
    g = w.gateway([w.pod(echo)])
    g.post(PROMPT)
    text = g.page("/metrics")
    names = set(re.findall(r"^# HELP (kvsteer_\w+)", text, re.M))
    with open(os.path.join(lib.TOP, "docs/metrics.md")) as f:
        told = set(re.findall(r"^\| `(kvsteer_\w+)`", f.read(), re.M))
    need(len(names) > 20 and names == told, "not documented: %s; not there: %s" % (sorted(names - told), sorted(told - names)))


# --- pods that come and go, the daemon's own life ---

def test_the_ledger_survives_a_pod_that_flaps(w):
    """Field case H2."""
    hold = []
    def handler(c, r):
        r.read_body()
        if r.headers.get("x-mode") == "hold":
            hold.append(r)
            while len(hold) < 2:
                time.sleep(0.01)
        c.reply()
    pod = w.pod(handler)
    pods = w.path("pods.yaml")
    def write(text):
        with open(pods + ".new", "w") as f:
            f.write(text)
        os.rename(pods + ".new", pods)
    write("- {address: \"%s\"}\n" % pod.name)
    g = w.gateway(None, pool="discovery: {file: %s}" % pods)
    until(lambda: g.cli("pod", "list"), "the pod is listed")
    first = g.cli("pod", "list")[0]
    with g.connect() as c:
        c.send(request({"prompt": "x"}, headers=["X-Mode: hold"]))
        until(lambda: g.cli("pod", "list")[0]["inflight"] == 1, "n is 1")
        write("[]\n")
        until(lambda: not g.cli("pod", "list"), "the pod is gone")
        write("- {address: \"%s\"}\n" % pod.name)
        until(lambda: g.cli("pod", "list"), "the pod is back")
        need(g.cli("pod", "list")[0]["inflight"] == 0, "n of the new one is not 0")
        hold.append(None)
        need(c.answer().status == 200, "the old stream was cut")
    need(g.cli("pod", "list")[0]["inflight"] == 0, "n fell below 0")
    need(g.cli("pod", "show", pod.name)["generation"] == 2 and first["requests"] == 0, "generation")


def test_a_drained_pod_takes_nothing_new(w):
    pods = [w.pod(echo, "127.0.0.%d" % i) for i in (2, 3)]
    g = w.gateway(pods)
    g.cli("pod", "drain", pods[0].name)
    time.sleep(0.05)
    for _ in range(6):
        need(g.post(PROMPT).headers["x-kvsteer-pod"] == pods[1].name, "it got a request")
    g.cli("pod", "undrain", pods[0].name)
    until(lambda: g.post(PROMPT).headers["x-kvsteer-pod"] == pods[0].name, "it serves again")


def test_a_sick_pod_is_left_and_taken_back(w):
    pods = [w.pod(echo, "127.0.0.%d" % i) for i in (2, 3)]
    g = w.gateway(pods)
    pods[0].health = 503
    until(lambda: g.pod_state(pods[0])["state"] == "down", "the health check notices")
    for _ in range(6):
        need(g.post(PROMPT).headers["x-kvsteer-pod"] == pods[1].name, "it got a request")
    pods[0].health = 200
    until(lambda: g.pod_state(pods[0])["state"] == "up", "it is up again")


def test_without_a_pod_that_is_up_the_answer_is_503_with_retry_after(w):
    pod = w.pod(echo)
    pod.health = 500
    g = w.gateway([pod], wait=False)
    until(lambda: g.pod_state(pod)["state"] == "down", "down")
    a = g.post({"prompt": "x"})
    need(a.status == 503 and "retry-after" in a.headers, "status %d" % a.status)


@lib.also("tc")
def test_sigterm_lets_streams_end(w):
    g = w.gateway([w.pod(stream(30, 0.05))])
    with g.connect() as c, g.connect() as idle:
        c.send(request(PROMPT))
        c.answer(head_only=True)
        os.kill(g.pid, signal.SIGTERM)
        until(lambda: not g.can_connect(), "no new connections")
        need(not idle.more(), "an idle connection stays open")
        while b"0\r\n\r\n" not in c.buf:
            need(c.more(), "the stream was cut")
        need(c.buf.count(b"data:") == 30, "%d events" % c.buf.count(b"data:"))
    need(g.p.wait(5) == 0, "exit status %d" % g.p.returncode)


def test_who_has_connected_before_the_drain_is_still_answered(w):
    """Accepted, handed to another worker, or in the listeners' queues; with the request sent, or about to be."""
    pod = w.pod(echo)
    g = w.gateway([pod])
    early = [g.connect() for _ in range(10)]
    time.sleep(0.2)
    os.kill(g.pid, signal.SIGSTOP)
    late = [g.connect() for _ in range(20)]
    for c in late[::2]:
        c.send(request(PROMPT))
    os.kill(g.pid, signal.SIGTERM)
    os.kill(g.pid, signal.SIGCONT)
    time.sleep(0.1)
    for c in early + late[1::2]:
        c.send(request(PROMPT))
    for i, c in enumerate(early + late):
        need(c.answer().status == 200, "connection %d is not answered" % i)
    need(g.p.wait(5) == 0, "exit status %d" % g.p.returncode)


def test_who_waits_in_a_daemon_that_dies_is_answered_by_the_next(w):
    """Connected, but not accepted yet, when it is killed; a rolling upgrade does the same to handshakes under way."""
    pod = w.pod(echo)
    g = w.gateway([pod])
    os.kill(g.pid, signal.SIGSTOP)
    waiting = [g.connect() for _ in range(20)]
    for c in waiting[::2]:
        c.send(request(PROMPT))
    new = w.gateway([pod], port=g.addr[1])
    os.kill(g.pid, signal.SIGKILL)
    for c in waiting[1::2]:
        c.send(request(PROMPT))
    for i, c in enumerate(waiting):
        need(c.answer().status == 200, "connection %d is not answered" % i)
    need(new.alive(), "the second has ended: " + new.output())


def test_a_second_daemon_serves_beside_one_that_drains(w):
    pod = w.pod(stream(40, 0.05))
    g = w.gateway([pod])
    with g.connect() as c:
        c.send(request(PROMPT))
        c.answer(head_only=True)
        cfg = open(g.config).read().replace(g.ctl, g.ctl + "2").replace("address: \"%s:%d\"" % g.admin, "address: \"\"")
        with open(g.config + "2", "w") as f:
            f.write(cfg)
        new = w.start([os.path.join(lib.BIN, "kvsteerd"), "--config", g.config + "2"], "second")
        until(lambda: os.path.exists(g.ctl + "2"), "the second is up")
        time.sleep(0.3)
        os.kill(g.pid, signal.SIGTERM)
        time.sleep(0.2)
        for _ in range(5):
            with g.connect() as d:
                d.send(request(b"", "/v1/models", method="GET"))
                need(d.answer().status == 200, "not served")
        while b"0\r\n\r\n" not in c.buf:
            need(c.more(), "the old stream was cut")
    need(new.alive(), "the second has ended: " + new.output())


def test_curl_and_its_large_upload(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    body = w.path("body.json")
    with open(body, "w") as f:
        json.dump(dict(PROMPT, prompt="x" * 3000000), f)
    r = subprocess.run(["curl", "-sS", "-m", "10", "-H", "Content-Type: application/json", "--data-binary", "@" + body, "http://%s:%d/v1/completions" % g.addr], capture_output=True, text=True)
    need(r.returncode == 0 and json.loads(r.stdout)["n"] == os.path.getsize(body), "%s%s" % (r.stdout[:200], r.stderr))


def in_two(g, first, rest, between):
    """A long body of which the second part is sent when <between> has returned."""
    body = first + rest
    with g.connect() as c:
        c.send(request(body)[:-len(rest)])
        between()
        c.send(rest.encode())
        return c.answer()


def begun(pod):
    return lambda: until(lambda: pod.requests, "the pod sees the request", 2)


def test_a_long_body_goes_on_before_it_is_whole(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    first = '{"model":"m","prompt":"' + "x" * 100000
    t = time.monotonic()
    a = in_two(g, first, "y" * 50000 + '"}', begun(pod))
    need(a.status == 200 and a.json()["n"] == len(first) + 50002, "not served whole: %s" % a.body[:200])
    need(time.monotonic() - t < 1 and g.metric("early_decisions_total") == 1, "not early")
    need(g.metric("opaque_total") == 0, "not read to its end")
    # A body that cannot be read on is no reason to wait either; what it holds up to there may have been sent.
    a = in_two(g, first, "y" * 50000 + '"', begun(pod))
    need(a.status == 200, "a body that is no JSON is the engine's to refuse")


def test_a_short_rest_or_an_unknown_model_is_waited_for(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    for first, rest in (('{"model":"m","prompt":"' + "x" * 60000, "y" * 8000 + '"}'),
                        ('{"prompt":"' + "x" * 100000, "y" * 50000 + '","model":"m"}')):
        seen = len(pod.requests)
        with g.connect() as c:
            c.send(request(first + rest)[:-len(rest)])
            time.sleep(0.02)
            need(len(pod.requests) == seen, "decided on a part")
            c.send(rest.encode())
            need(c.answer().status == 200, "not served")
    need(g.metric("early_decisions_total") == 0, "counted as early")


def test_what_may_not_pass_is_found_behind_an_early_decision(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    first = '{"model":"m","prompt":"' + "x" * 100000
    a = in_two(g, first, "y" * 50000 + '","kv_transfer_params":{"remote_host":"h"}}', begun(pod))
    need(a.status == 400 and b"kv_transfer_params" in a.body, "let pass: %d %s" % (a.status, a.body[:200]))
    need(not pod.requests[0].body, "the pod got a whole request")
    a = in_two(g, first, "y" * 50000 + '","model":"m","x":1}', lambda: until(lambda: len(pod.requests) == 2, "early", 2))
    need(a.status == 200 and g.metric("early_decisions_late_total") == 1, "a second model is not noticed")
    with g.connect() as c:
        c.send(request(first + "y" * 50000 + '"}')[:-20000])
        time.sleep(0.02)
        need(len(pod.requests) == 2, "it goes on deciding early")


def test_a_chunked_body_is_not_begun_before_its_framing_is_known(w):
    pod = w.pod(echo)
    g = w.gateway([pod])
    data = request('{"model":"m","prompt":"' + "x" * 200000 + '"}', chunked=10000)
    with g.connect() as c:
        c.send(data[:data.index(b"\r\n\r\n") + 4 + 10 * 10008])
        time.sleep(0.02)
        need(not pod.requests, "begun")
        c.send(b"zz\r\n")
        need(c.answer().status == 400 and not pod.requests, "a broken body reached the pod")


def test_memory_max_refuses_bodies_and_recovers(w):
    g = w.gateway([w.pod(echo)], extra="memory: {max: 192MiB, index: 1MiB}", limits="body: 60MiB")
    q = request(dict(PROMPT, prompt="x" * 50000000))
    with g.connect() as c:
        c.send(q[:45000000])
        time.sleep(0.3)
        with g.connect() as d:
            try:
                d.send(q)
            except OSError:
                pass
            need(d.answer().status == 503, "the second is not refused")
        need(g.metric('refused_total{reason="memory"') == 1, "not counted")
        c.send(q[45000000:])
        need(c.answer().status == 200, "the first is not served")
    need(g.post(PROMPT).status == 200, "it does not recover")


lib.main(globals())
