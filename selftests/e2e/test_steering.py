#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Requests go to the pod that holds their prefix, and what is predicted is what the engine then reports.

The pods are kvsim's, whose token i is the byte i: a prompt of N bytes has N tokens, so predictions are exact."""
import http.client
import json
import os
import random
import signal
import socket
import threading
import time

import lib
from lib import need, until

BLOCK = 16
VOCAB = "model-path: " + os.path.join(lib.TOP, "selftests/data/bytes-tokenizer")
rng = random.Random(7)


def text(n):
    """A prompt of n tokens like which there is no other."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz      ,.\n") for _ in range(n))


def gateway(w, pods, pool="", **kw):
    g = w.gateway(pods, pool=VOCAB + "\n" + pool, **kw)
    if any("events" in p.spec() for p in pods):
        until(lambda: all(p["index"] == "live" for p in g.cli("pod", "list")), "events flow")
    return g


class Asked:
    def __init__(self, a):
        need(a.status == 200 and a.complete, "status %d: %s" % (a.status, a.body[:300]))
        self.a, self.pod = a, a.headers["x-kvsteer-pod"]
        self.why = json.loads(a.headers["x-kvsteer-decision"])
        self.mode, self.predicted = self.why["mode"], self.why["predicted_tokens"]
        usage = json.loads(a.events()[-2])["usage"] if a.framing == "chunked" else a.json()["usage"]
        self.tokens, self.reported = usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]

    def __repr__(self):
        return "%s tokens on %s (%s): predicted %s, reported %s" % (self.tokens, self.pod, self.mode, self.predicted, self.reported)


def ask(g, prompt, path="/v1/completions", **body):
    q = dict({"model": "m", "max_tokens": 1}, **body)
    q["messages" if "chat" in path else "prompt"] = prompt
    return Asked(g.post(q, path, ["x-kvsteer-explain: 1"]))


def quiet(g):
    """All events that were under way have been applied."""
    seen = [g.metric("kv_event_batches_total"), time.time()]

    def still():
        n = g.metric("kv_event_batches_total")
        if n != seen[0]:
            seen[:] = n, time.time()
        return time.time() - seen[1] > 0.15
    until(still, "events come to an end")


def cached(n):
    """What an engine reports for a prompt of n tokens that it has computed before."""
    return (n - 1) // BLOCK * BLOCK


def right(r, want, slack=BLOCK - 1):
    """What was sent a moment ago is also known as a guess, in chunks of text: up to a block more than there is."""
    need(r.mode == "precise" and r.reported == want and 0 <= r.predicted - want <= slack, "%r; %d was right" % (r, want))


def exact(r, want):
    right(r, want, 0)


def no_guesses(g, pods):
    until(lambda: all(g.pod_state(p)["speculative"] == 0 for p in pods), "guesses expire")


def tell(sim, path, method="POST"):
    c = http.client.HTTPConnection(sim.ip, sim.port, timeout=5)
    c.request(method, path, headers={"Content-Length": "0"})
    r = c.getresponse()
    need(r.status == 200, "kvsim answers %s with %d: %s" % (path, r.status, r.read()))
    return r.read()


def post_pod(sim, path, body):
    c = http.client.HTTPConnection(sim.ip, sim.port, timeout=10)
    c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    data = r.read()
    need(r.status == 200, "kvsim refuses: %s" % data)
    return data


def ask_pod(sim, prompt, model="m"):
    post_pod(sim, "/v1/completions", {"model": model, "prompt": prompt, "max_tokens": 1})


def again(w, sim):
    """The same pod, another process. Start times are told apart from a second on."""
    sim.stop(signal.SIGKILL)
    time.sleep(1.1)
    p = w.start(sim.p.args, "sim")
    until(lambda: not p.alive() or sim.up(), "kvsim answers again")
    need(p.alive(), "kvsim has ended: " + p.output())
    return p


class Wire:
    """A TCP relay to one port of a pod, that can be cut."""

    def __init__(self, w, ip, port):
        self.to, self.port, self.open, self.socks = (ip, port), w.port(), False, []
        w.pods.append(self)
        self.errors = []
        self.mend()

    def close(self):
        if self.open:
            self.cut()

    def mend(self):
        self.l = socket.socket()
        self.l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.l.bind(("127.0.0.9", self.port))
        self.l.listen(16)
        self.open = True
        threading.Thread(target=self.accept, args=(self.l,), daemon=True).start()

    def cut(self):
        self.open = False
        self.l.shutdown(socket.SHUT_RDWR)
        self.l.close()
        for s in self.socks:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
        self.socks = []

    def accept(self, l):
        try:
            while True:
                a, _ = l.accept()
                b = socket.create_connection(self.to)
                self.socks += [a, b]
                for x, y in ((a, b), (b, a)):
                    threading.Thread(target=self.copy, args=(x, y), daemon=True).start()
        except OSError:
            pass

    def copy(self, a, b):
        try:
            while True:
                d = a.recv(65536)
                if not d:
                    break
                b.sendall(d)
        except OSError:
            pass


# --- the prediction ---

def test_a_repeat_goes_to_the_same_pod_and_is_predicted_exactly(w):
    sims = [w.sim(ip="127.0.0.%d" % i) for i in (3, 4, 5)]
    g = gateway(w, sims)
    lengths = (15, 16, 17, 32, 33, 55, 56, 57, 200, 255, 256, 257, 1000, 1024, 1120, 4095, 4096, 4097)
    prompts, off = [text(n) for n in lengths], 0
    pods = {}
    for p in prompts:
        r = ask(g, p)
        pods[p] = r.pod
        exact(r, 0)
    quiet(g)
    for p in prompts:
        r = ask(g, p)
        right(r, cached(len(p)))
        off += r.predicted - r.reported
        need(r.pod == pods[p] or len(p) <= BLOCK, "%d tokens: the second went to %s, the first to %s" % (len(p), r.pod, pods[p]))
    no_guesses(g, sims)
    for p in prompts:
        exact(ask(g, p), cached(len(p)))
    until(lambda: g.metric("usage_total{seen=\"yes\"") == 3 * len(prompts), "the usage of all answers is seen")
    need(g.metric("prefix_predicted_tokens_total") - off == g.metric("prefix_reported_tokens_total") > 0, "the sums differ")


def test_prompts_that_part_are_predicted_up_to_there(w):
    g = gateway(w, [w.sim(), w.sim(ip="127.0.0.4")])
    p = text(1500)
    pod = ask(g, p).pod
    quiet(g)
    for at in (1400, 1233, 640, 56, 17):
        r = ask(g, p[:at] + "#" + text(300))
        right(r, at // BLOCK * BLOCK)
        need(r.pod == pod or at < 100, "parting at %d: %r" % (at, r))
        quiet(g)


def test_what_was_decided_early_is_predicted_whole(w):
    """Forwarded before the body was whole, so with a match of its first part; told is the match of all of it."""
    big = "--kv-cache-size=60000", "--max-model-len=400000"
    pods = [w.sim(*big), w.sim(*big)]
    g = gateway(w, pods)
    first = text(180000)
    r = ask(g, first)
    right(r, 0)
    quiet(g)
    again = ask(g, first)
    right(again, cached(len(first)))
    need(again.pod == r.pod, "%r, but %s has it" % (again, r.pod))
    other = ask(g, first[:120000] + text(60000))
    right(other, 120000)
    need(g.metric("early_decisions_total") == 3, "not early: %s" % g.metric("early_decisions_total"))


def test_a_part_that_two_pods_hold_decides_nothing(w):
    big = "--kv-cache-size=60000", "--max-model-len=400000"
    g = gateway(w, [w.sim(*big), w.sim(*big)])
    both = text(100000)
    pods = [ask(g, both).pod]
    g.cli("pod", "drain", pods[0])
    pods.append(ask(g, both).pod)
    g.cli("pod", "undrain", pods[0])
    need(pods[0] != pods[1], "the drained pod was chosen")
    for deep in pods * 2:
        other = pods[deep == pods[0]]
        p = both + text(110000)
        g.cli("pod", "drain", other)
        need(ask(g, p).pod == deep, "the drained pod was chosen")
        g.cli("pod", "undrain", other)
        quiet(g)
        r = ask(g, p)
        right(r, cached(210000))
        need(r.pod == deep, "%s has all of it: %r" % (deep, r))


def test_the_log_line_names_pods_by_matched_blocks(w):
    sim = w.sim()
    g = gateway(w, [sim, w.sim(ip="127.0.0.4")])
    p = text(333)
    first = ask(g, p)
    quiet(g)
    second = ask(g, p)
    lines = [json.loads(l.split("Got pod scores ")[1]) for l in g.output().splitlines() if "Got pod scores " in l]
    need([l["scores"] for l in lines] == [None, {first.pod.split(":")[0]: 20}], "%s" % lines)
    need(lines[1]["x-request-id"] == second.a.headers["x-request-id"] and lines[1]["model"] == "m", "%s" % lines[1])


def test_streams_and_whole_answers_are_compared_alike(w):
    g = gateway(w, [w.sim()])
    p = text(500)
    r = ask(g, p, stream=True, stream_options={"include_usage": True}, max_tokens=9)
    need(r.reported == 0 and len(r.a.events()) > 9, "%r" % r)
    quiet(g)
    r = ask(g, p, stream=True, stream_options={"include_usage": True}, max_tokens=9)
    right(r, 496)
    d = g.decision(r.a.headers["x-request-id"])
    need(d["predicted_tokens"] == d["reported_tokens"] == 496 and d["pod"] == r.pod, "%s" % d)


def test_generated_text_is_part_of_the_next_prompts_prefix(w):
    g = gateway(w, [w.sim(), w.sim(ip="127.0.0.4")])
    p = text(400)
    first = ask(g, p, max_tokens=200)
    said = first.a.json()["choices"][0]["text"]
    quiet(g)
    # The answer's last token is not computed: 599 of 600.
    r = ask(g, p + said + text(50))
    right(r, (400 + len(said.encode()) - 1) // BLOCK * BLOCK)
    need(r.pod == first.pod, "the next turn went to %s" % r.pod)


def test_text_outside_of_ascii_counts_by_its_bytes(w):
    g = gateway(w, [w.sim()])
    p = "Grüße aus Zürich — 東京の天気は晴れ。🙂 " * 20
    n = len(p.encode())
    ask(g, p)
    quiet(g)
    r = ask(g, p)
    need(r.tokens == n, "kvsim counts %d of %d" % (r.tokens, n))
    right(r, cached(n))
    # The same characters, escaped by another client.
    r = Asked(g.post(json.dumps({"model": "m", "prompt": p, "max_tokens": 1}, ensure_ascii=True), headers=["x-kvsteer-explain: 1"]))
    right(r, cached(n))


QWEN = os.path.join(lib.TOP, "selftests/data/bpe/qwen")


def qwen(w):
    """A pod with a real tokenizer (a small one of Qwen's family), and a gateway that has it too."""
    sim = w.sim("--tokenizer", QWEN)
    g = w.gateway([sim], pool="model-path: " + QWEN)
    until(lambda: all(p["index"] == "live" for p in g.cli("pod", "list")), "events flow")
    return g, sim


def test_text_that_the_tokenizer_rewrites_is_predicted_exactly(w):
    g, sim = qwen(w)
    # Not in NFC: accents apart, signs that stand for others, Hangul in letters.
    odd = ("re\u0301sume\u0301 ", "10 \u2126, ", "\uf9b6\uf99d ", "\u1112\u1161\u11ab\u1100\u1173\u11af ", "o\u0308\u0323 ")
    prompts = [text(40) + " ".join(rng.choice(odd + (text(9),)) for _ in range(120)) for _ in range(8)]
    for p in prompts:
        exact(ask(g, p), 0)
    quiet(g)
    no_guesses(g, [sim])
    for p in prompts:
        r = ask(g, p)
        exact(r, cached(r.tokens))
        need(r.tokens > 100, "%r" % r)


def test_a_block_that_ends_inside_of_a_word_of_this_prompt_is_not_predicted(w):
    g, sim = qwen(w)
    words = "the others then there thesis in into interest a an and ant read reads ready out outer line lines".split()
    known = [" ".join(rng.choice(words) for _ in range(150)) for _ in range(80)]
    for p in known:
        ask(g, p)
    quiet(g)
    no_guesses(g, [sim])
    short = 0
    for p in known:
        k = BLOCK * rng.randrange(2, 6)
        ids = json.loads(post_pod(sim, "/tokenize", {"model": "m", "prompt": p}))["tokens"]
        head = json.loads(post_pod(sim, "/detokenize", {"model": "m", "tokens": ids[:k]}))["prompt"]
        r = ask(g, head + rng.choice(("s", "ing", "es", "xx", "er")) + " " + text(60))
        exact(r, r.reported)
        short += r.reported < k
    need(short, "no block ended inside of a word")


def test_token_id_prompts_meet_text_prompts(w):
    g = gateway(w, [w.sim(), w.sim(ip="127.0.0.4")])
    p = text(777)
    pod = ask(g, p).pod
    quiet(g)
    for ids in ([*p.encode()], [[*p.encode()]]):
        r = ask(g, ids)
        right(r, cached(777))
        need(r.pod == pod and r.why["prompt_tokens"] == 777, "%r" % r)


def test_of_several_prompts_the_first_steers(w):
    g = gateway(w, [w.sim(), w.sim(ip="127.0.0.4")])
    p, q = text(600), text(600)
    pod = ask(g, p).pod
    quiet(g)
    r = Asked(g.post({"model": "m", "prompt": [p, q], "max_tokens": 1}, headers=["x-kvsteer-explain: 1"]))
    need(r.pod == pod and r.predicted == cached(600), "%r" % r)


# --- namespaces ---

def test_tenants_do_not_meet(w):
    g = gateway(w, [w.sim()])
    p = text(640)
    for salt in ("red", "blue"):
        exact(ask(g, p, cache_salt=salt), 0)
        quiet(g)
    exact(ask(g, p), 0)
    quiet(g)
    for salt in ("red", "blue"):
        right(ask(g, p, cache_salt=salt), cached(640))
    exact(ask(g, p, cache_salt="green"), 0)


def test_adapters_do_not_meet_their_base(w):
    g = gateway(w, [w.sim("--lora-modules", "ad-1=/a", "--lora-modules", "ad-2=/b", "--max-loras", "2")])
    need({m["id"] for m in lib_get(g, "/v1/models")["data"]} == {"m", "ad-1", "ad-2"}, "the adapters are not listed")
    p = text(320)
    for m in ("m", "ad-1", "ad-2"):
        exact(ask(g, p, model=m), 0)
        quiet(g)
    for m in ("m", "ad-1", "ad-2"):
        right(ask(g, p, model=m), cached(320))


def lib_get(g, path):
    with g.connect() as c:
        c.send(lib.request(b"", path, method="GET"))
        a = c.answer()
    need(a.status == 200, "%s: %d" % (path, a.status))
    return a.json()


def test_names_of_one_model_share_its_prefixes(w):
    sims = [w.sim("--served-model-name", "alias-a", "--served-model-name", "alias-b", ip="127.0.0.%d" % i, model="org/M") for i in (3, 4)]
    g = gateway(w, sims)
    need({m["id"] for m in lib_get(g, "/v1/models")["data"]} == {"alias-a", "alias-b"}, "names missing")
    p = text(480)
    pod = ask(g, p, model="alias-a").pod
    quiet(g)
    r = ask(g, p, model="alias-b")
    right(r, cached(480))
    need(r.pod == pod, "the second name went to %s" % r.pod)
    need(g.post({"model": "org/M", "prompt": p}).status == 404, "a name that no pod serves passes")


# --- what is lost is not predicted ---

def test_prediction_follows_eviction(w):
    sim = w.sim("--kv-cache-size", "64")
    g = gateway(w, [sim])
    p, q, s = text(400), text(400), text(400)
    for x in (p, q, s):
        ask(g, x)
        quiet(g)
    need(g.metric("kv_events_total{type=\"removed\"") > 0, "nothing was evicted")
    for x in (s, p, q, s):
        no_guesses(g, [sim])
        r = ask(g, x)
        exact(r, r.reported)
        quiet(g)
    n = g.cli("pod", "list")[0]["blocks"]
    need(n <= 64, "%d blocks are known of a cache of 64" % n)


def decision(g, r):
    rid = r.a.headers["x-request-id"]
    until(lambda: rid in g.output(), "the decision is logged")
    return g.decision(rid)


def test_a_hit_in_host_memory_counts_but_costs(w):
    a, b = (w.sim("--kv-cache-size", "64", "--kv-offload-size", "1024") for _ in range(2))
    g = gateway(w, [a, b])
    p = text(400)
    ask_pod(a, p)
    ask_pod(a, text(1000))
    ask_pod(b, p)
    until(lambda: g.metric("kv_events_total{type=\"removed\"") > 0, "nothing was evicted")
    quiet(g)
    r = ask(g, p)
    exact(r, cached(400))
    need(r.pod == b.name, "%r: the pod that has to load it was taken" % r)
    rows = {c["pod"]: c for c in decision(g, r)["candidates"]}
    need(rows[a.name]["matched_tokens"] == rows[b.name]["matched_tokens"] == cached(400), "%s" % rows)
    need(rows[a.name]["cpu_tokens"] > 300 and rows[b.name]["cpu_tokens"] == 0, "%s" % rows)
    need(rows[a.name]["own"] > 10 * rows[b.name]["own"], "%s" % rows)
    line = [l for l in g.output().splitlines() if r.a.headers["x-request-id"] in l and "Got pod scores " in l][0]
    scores = json.loads(line.split("Got pod scores ")[1])["scores"]
    need(sorted(scores.values())[1] == cached(400) / BLOCK and sorted(scores.values())[0] < cached(400) / BLOCK, line)


def test_what_is_loaded_from_host_memory_is_predicted(w):
    sim = w.sim("--kv-cache-size", "64", "--kv-offload-size", "1024")
    g = gateway(w, [sim])
    p, q, s = text(400), text(400), text(400)
    for x in (p, q, s):
        ask(g, x)
        quiet(g)
    for x in (p, q, s, p):
        no_guesses(g, [sim])
        exact(ask(g, x), cached(400))
        quiet(g)


def test_a_reset_of_the_cache_is_heard_with_the_next_request(w):
    sim = w.sim()
    g = gateway(w, [sim])
    p = text(900)
    ask(g, p)
    quiet(g)
    tell(sim, "/reset_prefix_cache")
    ask(g, text(64))
    quiet(g)
    exact(ask(g, p), 0)
    quiet(g)
    right(ask(g, p), cached(900))


def test_a_sleeping_pod_gets_nothing_and_has_forgotten(w):
    sims = [w.sim("--enable-sleep-mode", ip="127.0.0.%d" % i) for i in (3, 4)]
    g = gateway(w, sims)
    p = text(800)
    pod = ask(g, p).pod
    quiet(g)
    sim = next(s for s in sims if s.name == pod)
    tell(sim, "/sleep?level=1")
    until(lambda: g.pod_state(sim)["state"] == "asleep", "the sleep is seen")
    until(lambda: g.pod_state(sim)["blocks"] == 0, "its blocks are dropped")
    r = ask(g, p)
    need(r.pod != pod and r.predicted == 0, "%r, while that pod sleeps" % r)
    quiet(g)
    tell(sim, "/wake_up")
    until(lambda: g.pod_state(sim)["state"] == "up", "it is awake again")
    g.cli("pod", "drain", next(s for s in sims if s is not sim).name)
    exact(ask(g, p), 0)
    quiet(g)
    # The clearing that the engine tells late came before what it has stored since.
    right(ask(g, p), cached(800))


def forgotten(g):
    """Without a replay socket the pod's events are not trusted again before the first of them has come."""
    def is_new():
        p = g.cli("pod", "list")[0]
        return p["state"] == "up" and p["index"] in ("live", "stale") and p["blocks"] == 0
    until(is_new, "the pod is back and the blocks of the process before are dropped")


def none(r):
    need(r.predicted == r.reported == 0, "%r" % r)


def restart_case(w, replay):
    sim = w.sim() if replay else w.sim("--kv-events-replay-endpoint", "")
    spec = sim.spec() if replay else sim.spec().split(", replay")[0] + "}"
    g = w.gateway([spec], pool=VOCAB)
    until(lambda: g.cli("pod", "list")[0]["index"] == "live", "events flow")
    p, q = text(700), text(300)
    ask(g, p)
    ask(g, q)
    quiet(g)
    right(ask(g, p), cached(700))
    again(w, sim)
    forgotten(g)
    none(ask(g, p))
    quiet(g)
    right(ask(g, p), cached(700))
    exact(ask(g, q), 0)


def test_a_pod_that_starts_again_has_forgotten(w):
    restart_case(w, True)


def test_a_pod_that_starts_again_has_forgotten_without_replay(w):
    restart_case(w, False)


def test_a_pod_that_starts_again_unseen_has_forgotten(w):
    """The variant of K2: away since batch 2, and the new process is past it when we are back."""
    sim = w.sim()
    ev = Wire(w, sim.ip, sim.ev)
    g = w.gateway(["{address: \"%s\", events: \"tcp://127.0.0.9:%d\"}" % (sim.name, ev.port)], pool=VOCAB)
    until(lambda: g.cli("pod", "list")[0]["index"] == "live", "events flow")
    p = text(500)
    ask(g, p)
    quiet(g)
    ev.cut()
    again(w, sim)
    for _ in range(5):
        ask_pod(sim, text(200))
    ev.mend()
    forgotten(g)
    none(ask(g, p))


def test_a_gap_is_filled_by_one_replay(w):
    sim = w.sim()
    ev = Wire(w, sim.ip, sim.ev)
    g = w.gateway(["{address: \"%s\", events: \"tcp://127.0.0.9:%d\", replay: \"tcp://%s:%d\"}" % (sim.name, ev.port, sim.ip, sim.rp)], pool=VOCAB)
    until(lambda: g.cli("pod", "list")[0]["index"] == "live", "events flow")
    p, q = text(600), text(600)
    ask(g, p)
    quiet(g)
    before = g.metric("kv_event_replays_total{result=\"ok\"")
    ev.cut()
    until(lambda: g.cli("pod", "list")[0]["index"] != "live", "the loss of the connection is seen")
    ask_pod(sim, q)
    ask_pod(sim, text(100))
    ev.mend()
    until(lambda: g.cli("pod", "list")[0]["index"] == "live", "events flow again", 10)
    quiet(g)
    for x in (p, q):
        right(ask(g, x), cached(600))
    replays = g.metric("kv_event_replays_total{result=\"ok\"") - before
    need(1 <= replays <= 2 and g.metric("kv_event_restarts_total") == 0, "%d replays, %d restarts seen" % (replays, g.metric("kv_event_restarts_total")))


def test_a_gateway_that_starts_again_knows_everything_by_replay(w):
    sims = [w.sim(ip="127.0.0.%d" % i) for i in (3, 4)]
    g = gateway(w, sims)
    prompts = [text(500 + 37 * i) for i in range(10)]
    pods = []
    for i, p in enumerate(prompts):
        g.cli("pod", "drain", sims[i % 2].name)
        pods.append(ask(g, p).pod)
        g.cli("pod", "undrain", sims[i % 2].name)
    g.stop(signal.SIGKILL)
    g = gateway(w, sims)
    quiet(g)
    for p, pod in zip(prompts, pods):
        r = ask(g, p)
        exact(r, cached(len(p)))
        need(r.pod == pod, "%r, held by %s" % (r, pod))


# --- the index that was kept on disk ---

def keeping(w, specs, interval="60s", stale="60s"):
    return w.gateway(specs, pool=VOCAB, extra="index: {keep: %s, interval: %s, stale: %s}" % (w.path("kept"), interval, stale))


def without_replay(sim):
    return sim.spec().split(", replay")[0] + "}"


def shown(g, sim):
    p = g.pod_state(sim)
    return p["index"], p["blocks"]


def test_a_kept_index_is_stale_until_the_next_event_proves_it(w):
    sim = w.sim()
    g = keeping(w, [without_replay(sim)])
    until(lambda: shown(g, sim)[0] == "live", "events flow")
    p, q = text(900), text(500)
    ask(g, p)
    quiet(g)
    blocks = shown(g, sim)[1]
    g.stop(signal.SIGTERM)
    need(oct(os.stat(w.path("kept")).st_mode)[-3:] == "600", "others may read the secret")
    g = keeping(w, [without_replay(sim)])
    until(lambda: shown(g, sim) == ("stale", blocks), "what was kept is there: %s" % (shown(g, sim),))
    r = ask(g, p)
    need(r.predicted == r.reported == cached(900) and r.mode == "approximate", "%r, not proved" % r)
    ask(g, q)
    until(lambda: shown(g, sim)[0] == "live", "the next event goes on where the kept ones stopped")
    quiet(g)
    no_guesses(g, [sim])
    exact(ask(g, p), cached(900))
    exact(ask(g, q), cached(500))


def test_a_kept_index_hears_by_replay_what_happened_since(w):
    sim = w.sim()
    g = keeping(w, [sim], interval="200ms")
    until(lambda: shown(g, sim)[0] == "live", "events flow")
    p, q = text(700), text(400)
    ask(g, p)
    until(lambda: g.metric("index_saves_total{result=\"ok\"") > 0, "it is written while events come")
    quiet(g)
    n = g.metric("index_saves_total{result=\"ok\"")
    time.sleep(0.5)
    need(g.metric("index_saves_total{result=\"ok\"") <= n + 1, "it is written though nothing came")
    g.stop(signal.SIGKILL)
    ask_pod(sim, q)
    g = keeping(w, [sim])
    until(lambda: shown(g, sim)[0] == "live", "the replay begins where the kept index stopped")
    for x, n in ((p, 700), (q, 400)):
        exact(ask(g, x), cached(n))
    need(g.metric("kv_event_restarts_total") == 0 and g.metric("index_loads_total{result=\"stale\"") == 1, "it was not the kept one")
    g.stop(signal.SIGTERM)
    tell(sim, "/reset_prefix_cache")
    ask_pod(sim, text(100))
    g = keeping(w, [sim])
    until(lambda: shown(g, sim)[0] == "live", "the replay tells of the reset")
    exact(ask(g, p), 0)


def kept_then(w, replay, between, how):
    """A kept index, <between>, another gateway: nothing is believed that is not so."""
    sim = w.sim()
    spec = sim.spec() if replay else without_replay(sim)
    g = keeping(w, [spec])
    until(lambda: shown(g, sim)[0] == "live", "events flow")
    p = text(800)
    ask(g, p)
    quiet(g)
    g.stop(signal.SIGTERM)
    between(sim)
    g = keeping(w, [spec], stale="1s")
    until(lambda: shown(g, sim)[0] == "live", how)
    return sim, g, p


def test_a_kept_index_of_an_engine_that_was_restarted_goes(w):
    for replay in (True, False):
        def between(sim):
            again(w, sim)
            for _ in range(4):
                ask_pod(sim, text(100))
        sim, g, p = kept_then(w, replay, between, "the process is another one")
        none(ask(g, p))
        quiet(g)
        right(ask(g, p), cached(800))
        g.stop()
        sim.stop()


def test_a_kept_index_that_nothing_proves_goes_after_a_while(w):
    sim, g, p = kept_then(w, False, lambda sim: None, "what was not proved goes")
    need(g.metric("index_loads_total{result=\"dropped\"") == 1, "not counted")
    none_predicted = ask(g, p)
    need(none_predicted.predicted == 0, "%r" % none_predicted)


def test_a_kept_index_with_a_gap_goes(w):
    sim = w.sim()
    g = keeping(w, [without_replay(sim)])
    until(lambda: shown(g, sim)[0] == "live", "events flow")
    ask(g, text(800))
    quiet(g)
    g.stop(signal.SIGTERM)
    for _ in range(3):
        ask_pod(sim, text(100))
    g = keeping(w, [without_replay(sim)])
    until(lambda: shown(g, sim)[0] == "stale", "what was kept is there")
    ask(g, text(300))
    until(lambda: shown(g, sim)[0] == "live", "it begins with nothing at the gap")
    need(g.metric("index_loads_total{result=\"dropped\"") == 1, "%s" % (shown(g, sim),))


def test_a_kept_index_of_another_tokenizer_is_not_used(w):
    sim = w.sim("--tokenizer", QWEN)
    g = keeping(w, [sim])
    until(lambda: shown(g, sim)[0] == "live", "events flow")
    ask_pod(sim, text(300))
    until(lambda: g.metric("kv_events_total{type=\"stored\"}") or g.metric("kv_events_dropped_total{reason=\"unknown_token\""), "events")
    g.stop(signal.SIGTERM)
    g = w.gateway([without_replay(sim)], pool="model-path: " + QWEN, extra="index: {keep: %s}" % w.path("kept"))
    until(lambda: shown(g, sim)[0] == "live", "events flow")
    need(g.metric("index_loads_total{result=\"stale\"") == 0, "it was used")


def test_a_kept_index_that_is_damaged_is_refused_by_name(w):
    sim = w.sim()
    g = keeping(w, [sim])
    until(lambda: shown(g, sim)[0] == "live", "events flow")
    p = text(900)
    ask(g, p)
    quiet(g)
    g.stop(signal.SIGTERM)
    with open(w.path("kept"), "rb") as f:
        whole = f.read()
    need(len(whole) > 3000, "only %d bytes were kept" % len(whole))
    odd = [b"", b"x" * 100, whole[:-8], whole[:70], b"KVSINDEX" + b"\x02" + whole[9:]]
    odd += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:] for at in (20, 50, 80, 500, len(whole) // 2, len(whole) - 1)]
    for data in odd:
        with open(w.path("kept"), "wb") as f:
            f.write(data)
        g = keeping(w, [sim])
        need(w.path("kept") in g.output() and "starts without prefixes" in g.output(), "%d bytes: %s" % (len(data), g.output()))
        until(lambda: shown(g, sim)[0] == "live", "events flow")
        quiet(g)
        exact(ask(g, p), cached(900))
        g.stop()
    with open(w.path("kept"), "wb") as f:
        f.write(whole)
    g = keeping(w, [without_replay(sim)])
    until(lambda: shown(g, sim)[0] == "stale", "the whole one is taken")


# --- formats ---

def test_every_form_of_events_is_read_live_and_from_replay(w):
    forms = [("map", "int", "new", ""), ("map", "bytes", "new", "kv@%h:%p@%m"), ("array", "int", "old", ""), ("array", "bytes", "old", "kv@%h:%p@%m"),
             ("map", "int", "old", "kv"), ("array", "int", "new", "kv")]
    sims = []
    for i, (form, hashes, framing, topic) in enumerate(forms):
        sims.append(w.sim("--event-format", form, "--event-hashes", hashes, "--replay-framing", framing, "--kv-events-topic", topic,
                          ip="127.0.0.%d" % (3 + i), model="m%d" % i))
    old, new = text(700), text(700)
    for i, s in enumerate(sims):
        ask_pod(s, old, "m%d" % i)
    g = gateway(w, sims)
    quiet(g)
    for i, form in enumerate(forms):
        r = ask(g, old, model="m%d" % i)
        need(r.predicted == r.reported == cached(700), "replay of %s: %r" % (form, r))
        ask(g, new, model="m%d" % i)
    quiet(g)
    for i, form in enumerate(forms):
        r = ask(g, new, model="m%d" % i)
        need(r.predicted == r.reported == cached(700), "live %s: %r" % (form, r))
    for name in ("unknown_tag", "bad_field", "bad_batch", "bad_frame", "unknown_parent", "unknown_token"):
        need(g.metric("kv_events_dropped_total{reason=\"%s\"" % name) == 0, "events dropped: " + name)


def test_events_without_replay_serve_from_now_on(w):
    sim = w.sim("--kv-events-replay-endpoint", "")
    old, new = text(400), text(400)
    ask_pod(sim, old)
    g = w.gateway([sim.spec().split(", replay")[0] + "}"], pool=VOCAB)
    until(lambda: g.cli("pod", "list")[0]["index"] == "live", "events flow")
    r = ask(g, old)
    need(r.predicted == 0 and r.reported == cached(400), "%r" % r)
    ask(g, new)
    quiet(g)
    right(ask(g, new), cached(400))


def test_events_over_http_steer_as_exactly(w):
    """As TensorRT-LLM tells them: asked for, and told once."""
    a, b = w.sim("--kv-cache-size", "256", events="get"), w.sim("--kv-cache-size", "256", ip="127.0.0.4", events="post")
    ask_pod(a, t0 := text(400))
    g = gateway(w, [a, b])
    r = ask(g, t0)
    exact(r, cached(400))
    need(r.pod == a.name, "what was cached before is not known: %r" % r)
    prompts = [text(n) for n in (333, 500, 481)]
    first = [ask(g, p) for p in prompts]
    quiet(g)
    no_guesses(g, [a, b])
    for p, f in zip(prompts, first):
        r = ask(g, p)
        exact(r, cached(len(p)))
        need(r.pod == f.pod, "%r is not where it was, on %s" % (r, f.pod))
    # Evicted: 256 blocks hold 4,096 tokens.
    for i in range(10):
        ask_pod(a, text(500))
        ask_pod(b, text(500))
    quiet(g)
    no_guesses(g, [a, b])
    r = ask(g, prompts[0])
    exact(r, 0)
    # Reset.
    quiet(g)
    no_guesses(g, [a, b])
    need(ask(g, prompts[0]).predicted == cached(333), "it is not known again")
    quiet(g)
    no_guesses(g, [a, b])
    for p in (a, b):
        tell(p, "/reset_prefix_cache")
    quiet(g)
    no_guesses(g, [a, b])
    exact(ask(g, prompts[0]), 0)
    need(g.metric("kv_event_polls_total{result=\"ok\"}") > 5 and not g.metric("kv_event_polls_total{result=\"failed\"}"), "polls fail")
    need(not g.metric("kv_event_gaps_total") and not g.metric("kv_events_dropped_total"), g.page("/metrics"))


def test_a_pod_that_starts_again_has_forgotten_over_http(w):
    a = w.sim(events="get")
    g = gateway(w, [a])
    p = text(400)
    ask(g, p)
    quiet(g)
    no_guesses(g, [a])
    exact(ask(g, p), cached(400))
    again(w, a)
    until(lambda: g.pod_state(a)["index"] == "live", "events flow again")
    no_guesses(g, [a])
    exact(ask(g, p), 0)


def test_events_that_another_reader_took_make_the_pod_stale(w):
    a = w.sim(events="get")
    g = gateway(w, [a])

    def taken():
        ask_pod(a, text(100))
        c = http.client.HTTPConnection(a.ip, a.port, timeout=5)
        c.request("GET", "/kv_cache_events")
        return json.loads(c.getresponse().read())
    until(taken, "this test takes some before the gateway does", 10, 0)
    ask_pod(a, text(100))
    until(lambda: g.pod_state(a)["index"] == "stale", "the gap is seen")
    need(g.metric("kv_event_gaps_total") >= 1, "it is not counted")
    tell(a, "/reset_prefix_cache")
    until(lambda: g.pod_state(a)["index"] == "live", "a new cache is known as such")


def test_blocks_of_one_token_are_counted_exactly(w):
    sim = w.sim("--block-size", "1")
    g = gateway(w, [sim])
    p = text(300)
    ask(g, p)
    quiet(g)
    right(ask(g, p), 299)
    right(ask(g, p[:200] + "#" * 90), 200)


def test_blocks_of_128_tokens_are_counted_exactly(w):
    g = gateway(w, [w.sim("--block-size", "128")])
    p = text(1024)
    ask(g, p)
    quiet(g)
    right(ask(g, p), 896)
    right(ask(g, p + "#"), 1024)


# --- before events, and without them ---

def at_once(g, prompt, n, pause):
    got, lock = [], threading.Lock()

    def one():
        r = ask(g, prompt)
        with lock:
            got.append(r.pod)
    ts = [threading.Thread(target=one) for _ in range(n)]
    for t in ts:
        t.start()
        time.sleep(pause)
    for t in ts:
        t.join()
    need(len(got) == n, "%d of %d were answered" % (len(got), n))
    return got


def test_a_burst_of_equal_new_prompts_goes_to_few_pods(w):
    """The rule weighs the queue that forms against one more computation: two of three pods at most, others use all."""
    g = gateway(w, [w.sim("--prefill-time-per-token", "0.2", ip="127.0.0.%d" % i) for i in (3, 4, 5)])
    for n in (1000, 3000):
        pods = at_once(g, text(n), 6, 0.01)
        need(len(set(pods)) <= 2, "%d tokens went to %s" % (n, sorted(pods)))


def test_new_prompts_are_spread(w):
    g = gateway(w, [w.sim("--prefill-time-per-token", "0.2", ip="127.0.0.%d" % i) for i in (3, 4, 5)])
    pods = [None] * 6

    def one(i):
        pods[i] = ask(g, text(1500)).pod
    ts = [threading.Thread(target=one, args=(i,)) for i in range(6)]
    for t in ts:
        t.start()
        time.sleep(0.02)
    for t in ts:
        t.join()
    need(len(set(pods)) == 3, "six new prompts went to %s" % sorted(map(str, pods)))


def test_without_events_a_repeat_goes_where_the_first_went(w):
    g = gateway(w, [w.sim(ip="127.0.0.%d" % i, events=False) for i in (3, 4, 5)])
    for n in (460, 2000, 5000):
        p = text(n)
        first = ask(g, p)
        time.sleep(0.05)
        for _ in range(3):
            r = ask(g, p + text(20))
            need(r.pod == first.pod and r.mode == "approximate", "%r; the first was on %s" % (r, first.pod))
            need(r.predicted > 0, "%r" % r)
    # How many bytes a token has is learned from answers.
    for _ in range(60):
        ask(g, text(100))
    p = text(3000)
    ask(g, p)
    time.sleep(0.05)
    r = ask(g, p)
    need(abs(r.predicted - r.reported) < r.reported / 5, "%r, after 60 answers to learn from" % r)


def test_without_a_vocabulary_pods_with_events_are_approximate(w):
    sims = [w.sim(ip="127.0.0.%d" % i) for i in (3, 4)]
    g = w.gateway(sims)
    p = text(2000)
    first = ask(g, p)
    time.sleep(0.05)
    r = ask(g, p)
    need(r.mode == "approximate" and r.pod == first.pod, "%r, the first on %s" % (r, first.pod))
    need(any("model-path" in x for x in g.cli("status")["warnings"]), "status does not say why")


def places(n):
    """Guesses that the index keeps of a prompt of n bytes."""
    c = n // 56
    return min(c, 128) // 4 + max(min(c, 512) - 128, 0) // 8 + max(min(c, 2048) - 512, 0) // 32 + max(c - 2048, 0) // 128


def guessed(g, pod):
    return g.pod_state(pod)["speculative"]


def answers(status):
    def handler(c, r):
        r.read_body()
        if not status[0]:
            return "close"
        c.reply({"n": len(r.body)}, status[0], ["Retry-After: 1"] if status[0].startswith("503") else [])
    return handler


def rows(a):
    return {r["pod"]: r["matched_tokens"] for r in json.loads(a.headers["x-kvsteer-decision"])["candidates"]}


def served_elsewhere(w, n, bad, status, spoil, early=0):
    """The first pod fails; the prompt is to be expected on the other one, and there alone."""
    good = w.pod(answers(["200 OK"]), "127.0.0.8")
    g = w.gateway([bad, good], pool="scheduling: {policy: round-robin}", limits="retries: 2", health="60s")
    spoil()
    for i in range(4):
        p = text(n)
        a = g.post({"model": "m", "prompt": p}, headers=["x-kvsteer-explain: 1"])
        need(a.status == 200 and a.headers["x-kvsteer-pod"] == good.name, "%d from %s" % (a.status, a.headers.get("x-kvsteer-pod")))
        until(lambda: guessed(g, good) == (i + 1) * places(n), "request %d is expected where it was served" % i)
        if g.metric("retries_total"):
            break
    need(g.metric("retries_total") == 1, "nothing was tried twice")
    need(guessed(g, bad) == 0, "%d guesses of what it has not got" % guessed(g, bad))
    need(g.metric("early_decisions_total") >= early, "not decided early")
    status[0] = "200 OK"
    if not bad.open:
        bad.listen()
    seen = until(lambda: (m := rows(g.post({"model": "m", "prompt": p + text(100)}, headers=["x-kvsteer-explain: 1"]))).get(bad.name) is not None and m,
                 "it is tried again", 10, 0.2)
    need(seen[bad.name] == 0 and seen[good.name] > n / 8, "matched: %s" % seen)


def test_a_prompt_that_a_pod_was_too_busy_for_is_expected_on_the_next(w):
    status = ["503 Service Unavailable"]
    served_elsewhere(w, 3000, w.pod(answers(status), "127.0.0.7"), status, lambda: 0)


def test_a_long_prompt_that_a_pod_was_too_busy_for_is_expected_on_the_next(w):
    """Decided before it was whole."""
    status = ["503 Service Unavailable"]
    served_elsewhere(w, 400000, w.pod(answers(status), "127.0.0.7"), status, lambda: 0, early=1)


def test_a_prompt_that_did_not_reach_a_pod_is_expected_on_the_next(w):
    bad = w.pod(answers(["200 OK"]), "127.0.0.7")
    served_elsewhere(w, 3000, bad, [""], bad.close)


def test_a_prompt_that_a_pod_failed_is_not_expected_there(w):
    status = [""]
    pod = w.pod(answers(status))
    g = w.gateway([pod], limits="retries: 0", health="60s")
    said = 0
    for how in ("", "503 Service Unavailable", "500 Internal Server Error", "400 Bad Request"):
        status[0] = how
        a = g.post({"model": "m", "prompt": text(3000)})
        need(a.status == (int(how[:3]) if how else 502), "status %d" % a.status)
        status[0] = "200 OK"
        a = g.post({"model": "m", "prompt": text(560 + 224 * said)})
        need(a.status == 200, "status %d" % a.status)
        said += places(560 + 224 * said)
        until(lambda: guessed(g, pod) == said, "%s: what was served is expected, and nothing else" % (how or "cut"))


def test_the_turns_of_a_chat_stay_on_one_pod(w):
    g = gateway(w, [w.sim(ip="127.0.0.%d" % i) for i in (3, 4, 5)])
    for _ in range(4):
        chat = [{"role": "system", "content": text(600)}, {"role": "user", "content": text(200)}]
        first = ask(g, chat, "/v1/chat/completions", max_tokens=50)
        for _ in range(3):
            time.sleep(0.05)
            chat += [{"role": "assistant", "content": text(50)}, {"role": "user", "content": text(100)}]
            r = ask(g, chat, "/v1/chat/completions", max_tokens=50)
            need(r.pod == first.pod, "turn on %s, chat on %s" % (r.pod, first.pod))
            need(r.mode == "approximate", r.mode)


def test_a_pod_that_is_drained_or_gone_hands_its_prefixes_over(w):
    sims = [w.sim(ip="127.0.0.%d" % i) for i in (3, 4)]
    g = gateway(w, sims)
    p = text(1000)
    home = ask(g, p).pod
    quiet(g)
    g.cli("pod", "drain", home)
    r = ask(g, p)
    need(r.pod != home and r.reported == 0, "%r, drained" % r)
    quiet(g)
    g.cli("pod", "undrain", home)
    away = r.pod
    next(s for s in sims if s.name == home).stop()
    r = ask(g, p)
    need(r.pod == away, "%r" % r)
    right(r, cached(1000))


if __name__ == "__main__":
    lib.main(globals())
