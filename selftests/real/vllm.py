#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real vLLM engines behind kvsteerd: is what is predicted what they report?

    vllm.py --model-path DIR URL[,events=tcp://…,replay=tcp://…] …     engines that run already
    KVS_REALENGINE=DIR vllm.py                                         starts two: DIR/venv/bin/vllm serve DIR/model
    vllm.py --serve PORT …                                             … on these ports, with events and replay above

Cases as in selftests/e2e: "ok NAME", "not ok NAME - why", "skip NAME - why"; exit 77 when there is no engine. Ends with a
table. The SDK's case runs where this Python has the module openai. Nothing here is part of make check: two engines take
4 GB and some minutes on a CPU.
"""
import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
import lib
from lib import Fail, Skip, need, until

rng = random.Random()
WORDS = ("river stone light house garden paper window morning letter winter music bread water table road bird horse green silver "
         "quiet small round early north south glass iron wood ship lamp sound story number market island summer").split()
table = []
CHATS = int(os.environ.get("KVS_CHATS", "25"))


class Engine:
    def __init__(self, url, events=None, replay=None):
        u = urllib.parse.urlsplit(url if "//" in url else "http://" + url)
        self.host, self.port, self.events, self.replay = u.hostname, u.port or 80, events, replay

    name = property(lambda self: "%s:%d" % (self.host, self.port))

    def spec(self):
        return "{address: \"%s\"%s%s}" % (self.name, self.events and ", events: \"%s\"" % self.events or "", self.replay and ", replay: \"%s\"" % self.replay or "")

    def call(self, path, body=None, timeout=30):
        c = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            c.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            r = c.getresponse()
            data = r.read()
        finally:
            c.close()
        need(r.status == 200, "%s answers %s with %d: %s" % (self.name, path, r.status, data[:200]))
        return json.loads(data) if data[:1] in (b"{", b"[") else data.decode()

    def block_size(self):
        """What vllm:cache_config_info says."""
        text = self.call("/metrics")
        at = text.index("block_size=\"")
        return int(text[at + 12:text.index("\"", at + 12)])


def start_engine(d, port, *more):
    env = dict(os.environ, HOME=d, XDG_CACHE_HOME=os.path.join(d, "cache"), HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", VLLM_NO_USAGE_STATS="1",
               DO_NOT_TRACK="1", VLLM_HOST_IP="127.0.0.1", VLLM_SERVER_DEV_MODE="1", VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind",
               OMP_NUM_THREADS="1")
    e = Engine("127.0.0.1:%d" % port, "tcp://127.0.0.1:%d" % (port + 1), "tcp://127.0.0.1:%d" % (port + 2))
    kv = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": "tcp://*:%d" % (port + 1), "replay_endpoint": "tcp://127.0.0.1:%d" % (port + 2),
          "topic": "kv@%s@tiny" % e.name}
    argv = [os.path.join(d, "venv/bin/vllm"), "serve", os.path.join(d, "model"), "--load-format", "dummy", "--served-model-name", "tiny",
            "--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--dtype", "float32", "--max-model-len", "8192", "--max-num-seqs", "32",
            "--block-size", "32", "--num-gpu-blocks-override", "1024", "--enable-prefix-caching", "--prefix-caching-hash-algo", "sha256_cbor",
            "--enable-prompt-tokens-details", "--enable-scale-out", "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--kv-events-config", json.dumps(kv), *more]
    log = open(os.path.join(d, "vllm-%d.log" % port), "w")
    e.p = subprocess.Popen(argv, env=env, cwd=d, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    return e


def answers(e):
    try:
        e.call("/health", timeout=2)
        return True
    except (OSError, Fail, http.client.HTTPException):
        return False


def wait_for(e, timeout=400):
    end = time.time() + timeout
    while not answers(e):
        need(e.p.poll() is None, "the engine on %s ended; see vllm-%d.log" % (e.name, e.port))
        need(time.time() < end, "the engine on %s does not answer after %d s" % (e.name, timeout))
        time.sleep(1)


class Rig:
    """The gateway before the engines, and what a case asks of them."""

    def __init__(self, engines, model_path, port=28600):
        self.engines, self.w, self.asked, self.model_path = engines, lib.World(), 0, model_path
        self.w.next_port = port
        self.model = engines[0].call("/v1/models")["data"][0]["id"]
        self.block = engines[0].block_size()
        self.g = self.gateway()
        until(lambda: all(p["index"] == "live" for p in self.g.cli("pod", "list")), "events flow", 30)
        until(lambda: all(self.g.pod_state(e)["version"] for e in engines), "versions are known", 30)

    def gateway(self, port=None):
        return self.w.gateway(self.engines, pool="model-path: " + self.model_path, port=port)

    def tokens(self, text):
        return self.engines[0].call("/tokenize", {"model": self.model, "prompt": text})["count"]

    def text(self, n):
        """A prompt of exactly n tokens like which there is no other."""
        words = [rng.choice(WORDS) for _ in range(n)]
        while True:
            have = self.tokens(" ".join(words))
            if have == n:
                return " ".join(words)
            if have > n:
                del words[-(have - n):]
            else:
                words += [rng.choice(WORDS) for _ in range(n - have)]

    def quiet(self):
        seen = [self.g.metric("kv_event_batches_total"), time.time()]

        def still():
            n = self.g.metric("kv_event_batches_total")
            if n != seen[0]:
                seen[:] = n, time.time()
            return time.time() - seen[1] > 0.3
        until(still, "events come to an end", 30)

    def settled(self):
        """All that is believed comes from events. (What was sent less than two seconds ago is known as a guess too, in chunks of
        text, which may be some tokens more than the engine's blocks.)"""
        self.quiet()
        time.sleep(max(0.0, self.asked + 2.3 - time.time()))

    def ask(self, name, prompt, path="/v1/completions", **more):
        body = dict({"model": self.model, "max_tokens": 1, "temperature": 0}, **more)
        body["messages" if "chat" in path else "prompt"] = prompt
        a = self.g.post(body, path, ["x-kvsteer-explain: 1"], timeout=60)
        need(a.status == 200 and a.complete, "%s: status %d: %s" % (name, a.status, a.body[:300]))
        usage = json.loads(a.events()[-2])["usage"] if more.get("stream") else a.json()["usage"]
        r = self.seen(name, a.headers["x-kvsteer-pod"], json.loads(a.headers["x-kvsteer-decision"]), usage, a.headers["x-request-id"])
        r.said = a.json()["choices"][0]["message"]["content"] if "chat" in path and not more.get("stream") else None
        return r

    def seen(self, name, pod, why, usage, rid):
        self.asked = time.time()
        r = argparse.Namespace(pod=pod, mode=why["mode"], predicted=why["predicted_tokens"], tokens=usage["prompt_tokens"],
                               reported=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))
        d = until(lambda: self.decision(rid), "the decision is kept")
        need(d["reported_tokens"] == r.reported, "%s: kvsteer saw %s cached tokens reported, the client %d" % (name, d["reported_tokens"], r.reported))
        table.append((name, r.tokens, r.pod, r.mode, r.predicted, r.reported, "%.1f" % d["ttft_ms"]))
        return r

    def decision(self, rid):
        try:
            return self.g.cli("decision", "show", rid)
        except Fail:
            return None

    def twice(self, prompts, **more):
        """Each new, then known: the second on the same pod, predicted as reported. {name: prompt} → {name: pod}"""
        pods = {}
        for name, p in prompts.items():
            first = self.ask(name + ", new", p, **more)
            need(first.reported == 0 and first.predicted == 0, "%s: a new prompt: %r" % (name, first))
            pods[name] = first.pod
        self.settled()
        for name, p in prompts.items():
            second = self.ask(name + ", again", p, **more)
            self.agrees(name, second)
            need(second.reported == (second.tokens - 1) // self.block * self.block, "%s: the engine had not kept all of it: %r" % (name, second))
            need(second.pod == pods[name] or second.reported == 0, "%s: first on %s, then on %s" % (name, pods[name], second.pod))
        return pods

    def agrees(self, name, r):
        need(abs(r.predicted - r.reported) < self.block, "%s: %r" % (name, r))
        need(r.mode == "precise", "%s: %r" % (name, r))


# --- cases ---

def case_models_are_the_engines(r):
    with r.g.connect() as c:
        c.send(lib.request(b"", "/v1/models", method="GET"))
        need([m["id"] for m in c.answer().json()["data"]] == [r.model], "not listed")


def case_completions_of_many_lengths(r):
    b, prompts = r.block, {}
    for n in (b - 1, b, b + 1, 2 * b, 10 * b - 1, 10 * b, 10 * b + 1, 500, 32 * b, 2000, 4000):
        prompts["completion of %d" % n] = r.text(n)
    r.twice(prompts)


def case_one_token_more_than_whole_blocks(r):
    p = r.text(16 * r.block)
    r.twice({"whole blocks": p})
    r.settled()
    s = r.ask("whole blocks and a word", p + " river stone")
    r.agrees("whole blocks and a word", s)
    need(s.reported == 16 * r.block, "%r" % s)


def case_prompts_that_part(r):
    p = r.text(900)
    pod = r.twice({"parting, root": p})["parting, root"]
    words = p.split(" ")
    for k in (700, 333):
        r.settled()
        s = r.ask("parting at %d" % k, " ".join(words[:k]) + " Zebra " + r.text(60))
        r.agrees("parting at %d" % k, s)
        need(s.pod == pod and s.reported > 0, "%r" % s)


def case_any_text(r):
    p = "Grüße aus Zürich — 東京の天気は晴れ。🙂 def f(x):\n\treturn x ** 2\n\n\n   'quoted'  \u00a0 \u200b " * 25
    r.twice({"many scripts": p + str(rng.random())})


def case_token_ids(r):
    p = r.text(640)
    pod = r.twice({"ids, as text": p})["ids, as text"]
    ids = r.engines[0].call("/tokenize", {"model": r.model, "prompt": p})["tokens"]
    s = r.ask("ids, as ids", ids)
    r.agrees("ids", s)
    need(s.pod == pod and s.reported > 0, "%r" % s)


def case_tenants(r):
    p = r.text(700)
    for salt in ("red", "blue"):
        r.twice({"tenant " + salt: p}, cache_salt=salt)
    s = r.ask("no tenant", p)
    need(s.predicted == s.reported == 0, "%r" % s)


def case_streams(r):
    p = r.text(800)
    r.twice({"stream": p}, stream=True, stream_options={"include_usage": True}, max_tokens=8)


def case_generated_text(r):
    """What was generated may tokenize otherwise when it comes back as text: never more predicted than a block over what is there."""
    p = r.text(300)
    a = r.g.post({"model": r.model, "prompt": p, "max_tokens": 100, "temperature": 0, "ignore_eos": True}, timeout=60)
    r.settled()
    s = r.ask("next turn", p + a.json()["choices"][0]["text"] + " river")
    need(s.reported >= 288 // r.block * r.block, "%r" % s)
    print("NOTE: next turn after 100 generated tokens: predicted %d, reported %d" % (s.predicted, s.reported), flush=True)


def tool(name):
    return {"type": "function", "function": {"name": name, "description": "What the %s \"says\" – é" % name, "parameters": {
        "type": "object", "required": ["place"], "properties": {"place": {"type": "string"}, "n": {"type": "integer", "default": 1.0}}}}}


def case_chats_share_a_system_text_and_tools(r):
    """Rendered as the engine does: tools, calls and their answers, parts of content, generated text fed back."""
    tools, system = [tool("weather"), tool("tide")], r.text(200)
    misses = 0
    for n in range(CHATS):
        chat = [{"role": "system", "content": system}, {"role": "user", "content": [{"type": "text", "text": "%d " % n}, {"type": "text", "text": r.text(30)}]}]
        for turn in range(4):
            a = r.ask("chat %d, turn %d" % (n, turn), chat, "/v1/chat/completions", max_tokens=12, tools=tools, tool_choice="none")
            need(a.mode == "precise", "chat %d, turn %d: %r" % (n, turn, a))
            misses += abs(a.predicted - a.reported) >= r.block
            if turn == 1:
                chat.append({"role": "assistant", "content": None, "tool_calls": [
                    {"id": "c%d" % n, "type": "function", "function": {"name": "tide", "arguments": "{\"place\":\"north  sea\", \"n\": 1e2}"}}]})
                chat.append({"role": "tool", "tool_call_id": "c%d" % n, "content": "high: 3.0 m"})
            else:
                chat += [{"role": "assistant", "content": a.said}, {"role": "user", "content": r.text(40)}]
        r.settled()
    need(misses <= CHATS * 4 // 100, "%d of %d answers were predicted wrong by a block or more" % (misses, CHATS * 4))


def render(r, api, body):
    """The text that kvsteer makes of it; None: none."""
    names = {n: os.path.join(r.w.dir.name, n) for n in ("template", "request")}
    config = os.path.join(r.model_path, "tokenizer_config.json")
    with open(config) as f, open(names["template"], "w") as t:
        t.write(json.load(f)["chat_template"])
    with open(names["request"], "w") as f:
        json.dump(body, f)
    p = subprocess.run([os.path.join(lib.BIN, "kvsteer"), "model", "render", "--template", names["template"], "--tokenizer-config", config, "--api", api,
                        names["request"]], capture_output=True, timeout=20)
    need(p.returncode in (0, 3), "render: %r" % p)
    return p.stdout.decode() if p.returncode == 0 else None


def case_other_apis_render_as_the_engine_says(r):
    """Every recorded body of /v1/messages and /v1/responses, against the engine's render endpoints."""
    with open(os.path.join(lib.TOP, "selftests/data/templates/apis.json")) as f:
        cases = [c for c in json.load(f) if c["api"] != "chat" and not c.get("unsure")]
    same = refused = 0
    for c in cases:
        body = {"model": r.model, **c["request"], **({"max_tokens": 3000} if c["api"] == "messages" else {})}
        try:
            want = r.engines[0].call("/v1/%s/render" % c["api"], body)["token_ids"]
        except Fail as e:
            need("404" not in str(e), "%s" % e)
            refused += 1
            continue
        text = render(r, c["api"], body)
        need(text is not None, "%s: the engine has a text" % c["name"])
        got = r.engines[0].call("/tokenize", {"model": r.model, "prompt": text, "add_special_tokens": c["api"] == "responses"})["tokens"]
        need(got == want, "%s %s: %r is %r to the engine" % (c["api"], c["name"], text, r.engines[0].call("/detokenize", {"model": r.model, "tokens": want})))
        same += 1
    print("NOTE: %d bodies rendered as the engine does, %d are refused by it" % (same, refused), flush=True)
    need(same > 100, "only %d" % same)


def ask_api(r, name, path, body):
    a = r.g.post({"model": r.model, "temperature": 0, **body}, path, ["x-kvsteer-explain: 1"], timeout=60)
    need(a.status == 200 and a.complete, "%s: status %d: %s" % (name, a.status, a.body[:300]))
    u = a.json()["usage"]
    cached = u.get("cache_read_input_tokens", 0) if "messages" in path else u["input_tokens_details"]["cached_tokens"]
    total = u["input_tokens"] + (cached + u.get("cache_creation_input_tokens", 0) if "messages" in path else 0)
    usage = {"prompt_tokens": total, "prompt_tokens_details": {"cached_tokens": cached}}
    return r.seen(name, a.headers["x-kvsteer-pod"], json.loads(a.headers["x-kvsteer-decision"]), usage, a.headers["x-request-id"]), a.json()


def turns(r, what, path, first, limit, answered, asked):
    """Some conversations of three turns, the answers fed back; their first halves are one text."""
    misses = n = 0
    for k in range(3):
        body = first(k)
        for turn in range(3):
            s, said = ask_api(r, "%s %d, turn %d" % (what, k, turn), path, {**body, **limit})
            need(s.mode == "precise", "%r" % s)
            misses += abs(s.predicted - s.reported) >= r.block
            n += 1
            need(s.reported > 0 or k + turn == 0, "nothing was cached: %r" % s)
            r.settled()
            answered(body, said, turn)
            asked(body, r.text(40))
    need(misses <= n // 9, "%d of %d answers were predicted wrong by a block or more" % (misses, n))


def case_messages_of_anthropics_api(r):
    system = [{"type": "text", "text": "x-anthropic-billing-header: cch=%s" % rng.random()}, {"type": "text", "text": r.text(200), "cache_control": {"type": "ephemeral"}}]
    tools = [{"name": "tide", "description": "high \"water\"", "input_schema": {"properties": {"place": {"type": "string"}, "n": {"default": 1.0}}}}]

    def answered(body, said, turn):
        if turn == 1:
            body["messages"] += [{"role": "assistant", "content": [{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "t1", "name": "tide", "input": {"place": "north  sea", "n": 1e2}}]},
                                 {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "high: 3.0 m"}]}]}]
        else:
            body["messages"].append({"role": "assistant", "content": said["content"] or "…"})

    turns(r, "messages", "/v1/messages", lambda k: {"system": system, "tools": tools, "tool_choice": {"type": "none"}, "messages": [{"role": "user", "content": "%d %s" % (k, r.text(60))}]},
          {"max_tokens": 12}, answered, lambda body, text: body["messages"].append({"role": "user", "content": [{"type": "text", "text": text}]}))


def case_responses_of_openais_api(r):
    system = r.text(200)
    tools = [{"type": "function", "name": "tide", "description": "high \"water\"", "parameters": {"type": "object", "properties": {"n": {"default": 1.0}}}, "strict": True}]

    def answered(body, said, turn):
        body["input"] += [o for o in said["output"] if o["type"] == "message"]
        if turn == 1:
            body["input"] += [{"type": "function_call", "call_id": "c1", "name": "tide", "arguments": "{\"n\":1e2}"}, {"type": "function_call_output", "call_id": "c1", "output": "3.0 m"}]

    turns(r, "responses", "/v1/responses", lambda k: {"instructions": system, "tools": tools, "tool_choice": "none", "input": [{"role": "user", "content": "%d %s" % (k, r.text(60))}]},
          {"max_output_tokens": 12}, answered, lambda body, text: body["input"].append({"role": "user", "content": [{"type": "input_text", "text": text}]}))


def examine(r, *args):
    out = subprocess.run([os.path.join(lib.BIN, "kvsteer"), "--control", r.g.ctl, "-j", "doctor", "--cache-dir", r.w.path("cache"), *args],
                         capture_output=True, text=True, timeout=120)
    need(out.returncode in (0, 1) and out.stdout, "kvsteer doctor: exit %d %s" % (out.returncode, out.stderr))
    return [f for p in json.loads(out.stdout)["pods"] for f in p["findings"]]


def case_doctor_finds_nothing_wrong(r):
    found = examine(r)
    need(not [f for f in found if f["result"] != "ok"], "%s" % [f for f in found if f["result"] != "ok"])
    need(len([f for f in found if f["check"] in ("template", "tokenizer") and "the same" in f["what"]]) == 5 * len(r.engines), "%s" % found)


def case_predictions_hold(r):
    """What the meter says of all that was asked until now."""
    time.sleep(1.2)
    pods = [r.g.ask("pod.show", pod=e.name) for e in r.engines]
    need(all(p["predictions"] == "hold" for p in pods), "%s" % [(p["predictions"], p["doubts"], p["compared"]) for p in pods])
    print("NOTE: %d answers compared, %d of the last ones off" % (sum(c["compared"] for p in pods for c in p["compared"]),
                                                                sum(c["recent_off"] for p in pods for c in p["compared"])), flush=True)


def case_curl(r):
    p = r.text(480)
    got = []
    for name in ("curl, new", "curl, again"):
        head = os.path.join(r.w.dir.name, "head")
        out = subprocess.run(["curl", "-sS", "--noproxy", "*", "-D", head, "-H", "Content-Type: application/json", "-H", "x-kvsteer-explain: 1",
                              "-d", json.dumps({"model": r.model, "prompt": p, "max_tokens": 4}), "http://%s:%d/v1/completions" % r.g.addr],
                             capture_output=True, text=True, timeout=60)
        need(out.returncode == 0, "curl: " + out.stderr)
        h = {k.lower(): v.strip() for k, v in (l.split(":", 1) for l in open(head) if ":" in l)}
        got.append(r.seen(name, h["x-kvsteer-pod"], json.loads(h["x-kvsteer-decision"]), json.loads(out.stdout)["usage"], h["x-request-id"]))
        r.settled()
    r.agrees("curl", got[1])
    need(got[0].pod == got[1].pod and got[1].reported > 0, "%r" % got)


def case_openai_sdk(r):
    try:
        import openai
    except ImportError:
        raise Skip("this Python has no module openai")
    c = openai.OpenAI(base_url="http://%s:%d/v1" % r.g.addr, api_key="none", default_headers={"x-kvsteer-explain": "1"})
    need([m.id for m in c.models.list()] == [r.model], "models")
    p, got = r.text(512), []
    for name in ("SDK, new", "SDK, again"):
        raw = c.completions.with_raw_response.create(model=r.model, prompt=p, max_tokens=4)
        a = raw.parse()
        got.append(r.seen(name, raw.headers["x-kvsteer-pod"], json.loads(raw.headers["x-kvsteer-decision"]), a.usage.model_dump(), raw.headers["x-request-id"]))
        r.settled()
    r.agrees("SDK", got[1])
    need(got[0].pod == got[1].pod and got[1].reported > 0, "%r" % got)
    with c.chat.completions.with_streaming_response.create(
            model=r.model, messages=[{"role": "user", "content": r.text(300)}], max_tokens=20, stream=True, stream_options={"include_usage": True},
            extra_body={"ignore_eos": True}) as raw:
        usage, n = None, 0
        for chunk in raw.parse():
            usage, n = chunk.usage or usage, n + 1
    need(usage and usage.completion_tokens == 20 and n >= 20, "a stream of %d chunks, %r" % (n, usage))


def case_eviction(r):
    """One pod gets more than it can keep; what it has lost is not predicted."""
    text = r.engines[0].call("/metrics")
    at = text.index("num_gpu_blocks=\"")
    blocks = int(text[at + 16:text.index("\"", at + 16)])
    n = min(6000, blocks * r.block // 5)
    if blocks * r.block > 100000:
        raise Skip("the cache has room for %d tokens: too much to fill here" % (blocks * r.block))
    for e in r.engines[1:]:
        r.g.cli("pod", "drain", e.name)
    try:
        prompts = [r.text(n) for _ in range(blocks * r.block // n + 2)]
        for i, p in enumerate(prompts):
            r.ask("filling, %d" % i, p)
        r.settled()
        need(r.g.metric("kv_events_total{type=\"removed\"") > 0, "nothing was evicted")
        for name, i in (("evicted", 0), ("the last kept", -1), ("half evicted", 2)):
            s = r.ask(name, prompts[i])
            r.agrees(name, s)
            r.settled()
    finally:
        for e in r.engines[1:]:
            r.g.cli("pod", "undrain", e.name)


def case_reset_is_heard_with_the_next_request(r):
    p = r.text(600)
    pod = r.twice({"before the reset": p})["before the reset"]
    e = next(e for e in r.engines if e.name == pod)
    try:
        e.call("/reset_prefix_cache", {})
    except Fail as f:
        raise Skip("the engine has no /reset_prefix_cache: %s" % f)
    e.call("/v1/completions", {"model": r.model, "prompt": "one two three", "max_tokens": 1})
    r.quiet()
    s = r.ask("after the reset", p)
    need(s.predicted == s.reported == 0, "%r" % s)


def case_a_new_gateway_knows_it_by_replay(r):
    p = r.text(1000)
    pod = r.twice({"before the restart": p})["before the restart"]
    r.g.stop(signal.SIGTERM)
    r.g = r.gateway()
    until(lambda: all(x["index"] == "live" for x in r.g.cli("pod", "list")), "events flow", 30)
    r.quiet()
    s = r.ask("after the restart", p)
    r.agrees("after the restart", s)
    need(s.pod == pod and s.reported > 0, "%r" % s)


def print_table(block):
    heads = ("REQUEST", "TOKENS", "POD", "MODE", "PREDICTED", "REPORTED", "TTFT ms")
    rows = [heads] + [tuple(map(str, t)) for t in table]
    w = [max(len(r[i]) for r in rows) for i in range(len(heads))]
    print()
    for r in rows:
        print("  ".join(c.ljust(w[i]) if i in (0, 2, 3) else c.rjust(w[i]) for i, c in enumerate(r)))
    precise = [t for t in table if t[3] == "precise"]
    print("\n%d precise requests: %d tokens predicted, %d reported; %d predicted exactly, %d more within a block" % (
        len(precise), sum(t[4] for t in precise), sum(t[5] for t in precise), sum(t[4] == t[5] for t in precise), sum(0 < abs(t[4] - t[5]) < block for t in precise)))


def run_cases(rig, only):
    failed = 0
    for name, f in list(globals().items()):
        if not name.startswith("case_") or only not in name:
            continue
        try:
            f(rig)
            print("ok %s" % name[5:], flush=True)
        except Skip as e:
            print("skip %s - %s" % (name[5:], e), flush=True)
        except Exception as e:
            failed += 1
            print("not ok %s - %s" % (name[5:], " ".join(str(e).split()) or repr(e)), flush=True)
            if not isinstance(e, Fail):
                traceback.print_exc()
    return failed


def main():
    ap = argparse.ArgumentParser(description="real vLLM engines behind kvsteerd")
    ap.add_argument("engines", nargs="*", metavar="URL[,events=…,replay=…]")
    ap.add_argument("--model-path", metavar="DIR", help="the engines' tokenizer.json")
    ap.add_argument("--serve", nargs=2, type=int, default=(18000, 18010), metavar="PORT")
    ap.add_argument("--only", default="", help="cases whose name has this")
    o = ap.parse_args()
    d, started, rig = os.environ.get("KVS_REALENGINE"), [], None
    engines = [Engine(u.split(",")[0], **dict(x.split("=", 1) for x in u.split(",")[1:])) for u in o.engines]
    if not engines and not d:
        print("skip vllm.py - no engine: neither URLs nor KVS_REALENGINE=DIR are given")
        sys.exit(77)
    try:
        if not engines:
            d = os.path.abspath(d)
            engines = started = [start_engine(d, p) for p in o.serve]
            for e in started:
                wait_for(e)
        path = o.model_path or os.path.join(d or ".", "model")
        rig = Rig(engines, path)
        failed = run_cases(rig, o.only)
        print_table(rig.block)
    finally:
        if rig:
            rig.w.close()
        for e in started:
            os.killpg(e.p.pid, signal.SIGTERM)
        for e in started:
            try:
                e.p.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(e.p.pid, signal.SIGKILL)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
