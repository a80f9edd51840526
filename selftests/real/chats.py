#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many chats over real vLLM engines with too small a cache: is what is predicted what they report?

    chats.py --model-path DIR URL,events=tcp://…,replay=tcp://… …     engines that run already (no kill -9 of one)
    KVS_REALENGINE=DIR chats.py                                       starts two with a cache of --blocks blocks

Conversations of several turns share system texts and tools; answers are fed back, as they came. More of them are under way
than fit, so blocks are evicted all the time. Meanwhile a cache is reset, the gateway ends and is started again, the gateway
is killed, an engine is killed and started again. Each answer is compared: predicted and reported cached tokens less than a
block apart. Exit status 1 when fewer than --need percent are, 77 when there is no engine. --seed repeats a run, but for what
the engines' time makes of it. Not part of make check: it takes a quarter of an hour on two cores.
"""
import argparse
import collections
import http.client
import json
import os
import random
import signal
import sys
import threading
import time

import vllm
from lib import Fail, need, until
from vllm import Engine, Rig, answers, start_engine, tool, wait_for

TOOLS = [[tool("weather"), tool("tide")], None, [tool(n) for n in ("search", "open", "weather")]]


class Chat:
    """One conversation; what it sends next."""

    def __init__(self, run, n):
        self.run, self.n, self.turn, self.busy = run, n, 0, False
        self.rng = random.Random(run.o.seed * 1000003 + n)
        kind = self.rng.randrange(len(run.systems))
        self.tools = TOOLS[kind % len(TOOLS)]
        self.salt = "tenant" if kind == 0 else None
        self.messages = [{"role": "system", "content": run.systems[kind]}, {"role": "user", "content": "%d: %s" % (n, self.words(20, 60))}]

    def words(self, lo, hi):
        return " ".join(self.rng.choice(vllm.WORDS) for _ in range(self.rng.randint(lo, hi)))

    def body(self):
        b = {"model": self.run.rig.model, "messages": self.messages, "max_tokens": self.rng.randint(4, 40), "temperature": 1.0,
             "seed": self.rng.randrange(1 << 30), "stream": self.rng.random() < 0.3}
        if b["stream"]:
            b["stream_options"] = {"include_usage": True}
        if self.tools:
            b.update(tools=self.tools, tool_choice="none")
        if self.salt:
            b["cache_salt"] = self.salt
        return b

    def answered(self, text):
        self.turn += 1
        self.messages.append({"role": "assistant", "content": text})
        r = self.rng.random()
        if self.tools and r < 0.4:
            self.messages[-1:] = [{"role": "assistant", "content": text if r < 0.2 else None, "tool_calls": [
                {"id": "c%d" % self.turn, "type": "function", "function": {"name": "tide", "arguments": "{\"place\":\"%s\", \"n\": 1e2}" % self.words(1, 3)}}]},
                {"role": "tool", "tool_call_id": "c%d" % self.turn, "content": "high: 3.0 m, " + self.words(5, 90)}]
        else:
            parts = [self.words(5, 40), self.words(1, 30)]
            self.messages.append({"role": "user", "content": [{"type": "text", "text": p} for p in parts] if r > 0.8 else " ".join(parts)})


class Run:
    def __init__(self, rig, o):
        self.rig, self.o, self.rng = rig, o, random.Random(o.seed)
        self.systems = ["You are number %d. " % i + rig.text(60 + 90 * i) for i in range(5)]
        self.chats = [Chat(self, n) for n in range(o.chats)]
        self.waiting, self.open = collections.deque(self.chats), []
        self.lock, self.idle = threading.Condition(), 0
        self.held, self.phase, self.done, self.errors, self.rows = False, "at first", 0, collections.Counter(), []

    def take(self):
        """A chat whose turn it is, out of those that are open at once; None: all have ended."""
        with self.lock:
            self.idle += 1
            self.lock.notify_all()
            while True:
                while len(self.open) < self.o.open and self.waiting:
                    self.open.append(self.waiting.popleft())
                free = [c for c in self.open if not c.busy]
                if not self.open:
                    return None
                if free and not self.held:
                    break
                self.lock.wait(1)
            c = self.rng.choice(free)
            c.busy = True
            self.idle -= 1
            return c

    def give(self, c):
        with self.lock:
            c.busy = False
            self.done += 1
            if c.turn >= self.o.turns:
                self.open.remove(c)
            self.lock.notify_all()

    def ask(self, c):
        body, phase = c.body(), self.phase
        a = self.rig.g.post(body, "/v1/chat/completions", ["x-kvsteer-explain: 1"], timeout=120)
        if a.status != 200 or not a.complete:
            self.errors["%s: status %d%s" % (phase, a.status, "" if a.complete else ", cut off")] += 1
            return
        if body["stream"]:
            events = [json.loads(e) for e in a.events()[:-1]]
            usage, text = events[-1]["usage"], "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])
        else:
            usage, text = a.json()["usage"], a.json()["choices"][0]["message"]["content"] or ""
        why = json.loads(a.headers["x-kvsteer-decision"])
        row = argparse.Namespace(chat=c.n, turn=c.turn, phase=phase, pod=a.headers["x-kvsteer-pod"], mode=why["mode"], predicted=why["predicted_tokens"],
                                 tokens=usage["prompt_tokens"], reported=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0), at=time.time())
        row.off = row.predicted - row.reported
        with self.lock:
            self.rows.append(row)
        if abs(row.off) >= self.rig.block:
            print("OFF chat %d turn %d, %s: %s %s, %d tokens, predicted %d, reported %d" % (
                c.n, c.turn, phase, row.pod, row.mode, row.tokens, row.predicted, row.reported), flush=True)
            if self.o.keep:
                with open(os.path.join(self.o.keep, "chat-%d-%d.json" % (c.n, c.turn)), "w") as f:
                    json.dump({"request": body, "decision": why, "usage": usage, "said": text, "row": vars(row)}, f, indent=1)
        c.answered(text)

    def work(self):
        while True:
            c = self.take()
            if not c:
                return
            try:
                self.ask(c)
            except (OSError, ValueError, KeyError, Fail) as e:
                self.errors["%s: %r" % (self.phase, e)] += 1
            self.give(c)

    def alone(self):
        """No request is under way until go()."""
        with self.lock:
            self.held = True
            while self.idle < self.o.clients:
                self.lock.wait(1)

    def go(self, phase):
        with self.lock:
            self.held, self.phase = False, phase
            self.lock.notify_all()
        print("%s (%d answers so far)" % (phase, self.done), flush=True)

    def gateway_again(self, sig):
        r = self.rig
        r.g.stop(sig)
        addr, admin = r.g.addr, r.g.admin
        r.g = r.gateway(addr[1])
        until(lambda: all(p["index"] == "live" for p in r.g.cli("pod", "list")), "events flow", 60)

    def incidents(self):
        e = self.rig.engines[0]
        yield "after a reset", lambda: e.call("/reset_prefix_cache", {})
        yield "after the gateway's restart", lambda: self.gateway_again(signal.SIGTERM)
        yield "after the gateway's kill -9", lambda: self.gateway_again(signal.SIGKILL)
        if hasattr(e, "p"):
            yield "an engine killed", lambda: os.killpg(e.p.pid, signal.SIGKILL)
            yield "the engine back", lambda: self.engine_again(e)

    def engine_again(self, e):
        e.p.wait()
        new = start_engine(self.o.dir, e.port, *self.o.engine)
        e.p = new.p
        wait_for(e)

    def all(self):
        threads = [threading.Thread(target=self.work, daemon=True) for _ in range(self.o.clients)]
        for t in threads:
            t.start()
        todo = list(self.incidents())
        for i, (phase, what) in enumerate(todo):
            at = self.o.chats * self.o.turns * (i + 1) // (len(todo) + 1)
            while self.done < at and any(t.is_alive() for t in threads):
                time.sleep(0.2)
            if "gateway" in phase or "back" in phase:
                self.alone()
            what()
            self.go(phase)
        for t in threads:
            t.join()

    def tell(self):
        block, rows = self.rig.block, self.rows
        phases = ["at first"] + [p for p, _ in self.incidents()]
        print("\n%-28s %8s %8s %8s %8s %9s %10s %10s" % ("PHASE", "ANSWERS", "EXACT", "IN BLOCK", "OFF", "APPROX.", "PREDICTED", "REPORTED"))
        for p in phases + [None]:
            s = [r for r in rows if p in (None, r.phase)]
            print("%-28s %8d %8d %8d %8d %9d %10d %10d" % (
                p or "all", len(s), sum(r.off == 0 for r in s), sum(0 < abs(r.off) < block for r in s), sum(abs(r.off) >= block for r in s),
                sum(r.mode != "precise" for r in s), sum(r.predicted for r in s), sum(r.reported for r in s)))
        for k, n in self.errors.items():
            print("error: %s (%d)" % (k, n))
        good = 100 * sum(abs(r.off) < block for r in rows) / max(1, len(rows))
        print("%d chats, %d prompt tokens, %d of them cached; blocks evicted: %d; %.2f %% within a block of %d tokens" % (
            self.o.chats, sum(r.tokens for r in rows), sum(r.reported for r in rows), self.rig.g.metric("kv_events_total{type=\"removed\""), good, block))
        return good


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("engines", nargs="*", metavar="URL,events=…,replay=…")
    ap.add_argument("--model-path", metavar="DIR", help="the engines' tokenizer.json and template")
    ap.add_argument("--serve", nargs=2, type=int, default=(18040, 18050), metavar="PORT")
    ap.add_argument("--blocks", type=int, default=320, help="of an engine's cache (of 32 tokens)")
    ap.add_argument("--chats", type=int, default=int(os.environ.get("KVS_CHATS", "200")))
    ap.add_argument("--turns", type=int, default=6)
    ap.add_argument("--open", type=int, default=40, help="chats under way at once")
    ap.add_argument("--clients", type=int, default=2, help="requests under way at once")
    ap.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    ap.add_argument("--need", type=float, default=99)
    ap.add_argument("--port", type=int, default=28700, help="the gateway's; above it its own pages'")
    ap.add_argument("--keep", metavar="DIR", help="where requests go whose prediction was off")
    o = ap.parse_args()
    o.dir = os.environ.get("KVS_REALENGINE")
    o.engine = ["--num-gpu-blocks-override", str(o.blocks), "--max-model-len", "4096", "--max-num-seqs", "8"]
    engines, started, rig, good = [Engine(u.split(",")[0], **dict(x.split("=", 1) for x in u.split(",")[1:])) for u in o.engines], [], None, 0
    if not engines and not o.dir:
        print("skip chats.py - no engine: neither URLs nor KVS_REALENGINE=DIR are given")
        sys.exit(77)
    print("seed %d" % o.seed, flush=True)
    try:
        if not engines:
            o.dir = os.path.abspath(o.dir)
            engines = started = [start_engine(o.dir, p, *o.engine) for p in o.serve]
            for e in started:
                wait_for(e)
        rig = Rig(engines, o.model_path or os.path.join(o.dir or ".", "model"), o.port)
        run = Run(rig, o)
        run.all()
        good = run.tell()
    finally:
        if rig:
            rig.w.close()
        for e in started:
            os.killpg(e.p.pid, signal.SIGTERM)
        for e in started:
            e.p.wait(60)
    sys.exit(good < o.need)


if __name__ == "__main__":
    main()
