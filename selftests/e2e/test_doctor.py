#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kvsteer doctor: one thing wrong at a time is found and named, with what to do; and nothing is found where nothing is wrong."""
import json
import os
import subprocess
import time

import lib
from lib import need, until

VOCAB = os.path.join(lib.TOP, "selftests/data/bytes-tokenizer")
CHATML = os.path.join(lib.TOP, "tools/sim/chatml.jinja")
KVSTEER = os.path.join(lib.BIN, "kvsteer")
EVENTLESS, POOL = "", "model-path: %s\nchat-template: %s" % (VOCAB, CHATML)


def kvsteer(w, *args, env=None):
    r = subprocess.run([KVSTEER, *args, "--cache-dir", w.path("cache")], capture_output=True, text=True, timeout=60, env=dict(os.environ, **(env or {})))
    return r.returncode, r.stdout, r.stderr


def rig(w, *pods, pool=POOL, live=True):
    g = w.gateway(pods, pool=pool)
    if live:
        until(lambda: all(g.pod_state(p)["index"] == "live" for p in pods), "events flow")
    return g


def doctor(w, g, *pods, code=0):
    """Findings by check, of the pods named or of the only one."""
    got, out, err = kvsteer(w, "--control", g.ctl, "-j", "doctor", *[p.name for p in pods])
    need(got == code and not err, "exit %d, not %d: %s%s" % (got, code, out, err))
    v = json.loads(out)
    all_of = {}
    for s in v["pods"]:
        for f in s["findings"]:
            all_of.setdefault(f["check"], []).append(f)
            need((f["result"] == "ok") <= (f["fix"] is None), "what is well needs no fix: %s" % f)
    counts = [sum(f["result"] == k for fs in all_of.values() for f in fs) for k in ("ok", "warn", "fail")]
    need(counts == [v["ok"], v["warn"], v["fail"]] and (v["fail"] > 0) == (code == 1), "%s, %s" % (counts, v))
    return all_of


def finds(fs, check, result, what, fix=None):
    hit = [f for f in fs.get(check, []) if f["result"] == result]
    need(hit, "no %s of %s: %s" % (result, check, json.dumps(fs, indent=1)))
    need(any(what in f["what"] for f in hit), "\"%s\" is not in %s" % (what, [f["what"] for f in hit]))
    need(not fix or any(fix in (f["fix"] or "") for f in hit), "\"%s\" is not in %s" % (fix, [f["fix"] for f in hit]))


def only(fs, *checks):
    bad = [f for c, l in fs.items() for f in l if f["result"] != "ok" and c not in checks]
    need(not bad, "also found: %s" % bad)


def test_nothing_is_found_where_nothing_is_wrong(w):
    sim = w.sim()
    g = rig(w, sim)
    need(g.post({"model": "m", "prompt": "x" * 100, "max_tokens": 1}).status == 200, "refused")
    until(lambda: g.pod_state(sim)["event_block_size"], "an event has come")
    fs = doctor(w, g)
    only(fs)
    for check, what in (("reach", "/health"), ("keep-alive", "kept"), ("clock", "within"), ("models", "m"), ("engine", "vllm 0.32.0"),
                        ("events", "last number 0, 0 gaps"), ("block size", "16 tokens, by metrics and events"), ("cached tokens", "reported"),
                        ("tokenizer", "the same"), ("template", "a question: the same"), ("template", "a tool's result: the same"), ("predictions", "not compared")):
        finds(fs, check, "ok", what)
    got, out, err = kvsteer(w, "--control", g.ctl, "doctor")
    need(got == 0 and out.startswith(sim.name + "\n  ok    reach") and out.endswith(" ok, 0 to look at, 0 wrong\n"), out)


def test_each_pod_is_examined_or_the_one_that_is_named(w):
    a, b = w.sim(), w.sim(ip="127.0.0.4")
    g = rig(w, a, b)
    got, out, _ = kvsteer(w, "--control", g.ctl, "-j", "doctor")
    need([p["pod"] for p in json.loads(out)["pods"]] == [a.name, b.name], out)
    got, out, _ = kvsteer(w, "--control", g.ctl, "-j", "doctor", b.name)
    need(got == 0 and [p["pod"] for p in json.loads(out)["pods"]] == [b.name], out)
    need(kvsteer(w, "--control", g.ctl, "doctor", "9.9.9.9:1")[0] == 4, "a pod that is none")
    need(kvsteer(w, "--control", w.path("none"), "doctor")[0] == 3, "a daemon that is none")


def test_another_template_is_shown_at_the_first_byte_that_differs(w):
    sim = w.sim("--chat-prelude", "<|im_start|>Be kind. ")
    fs = doctor(w, rig(w, sim), code=1)
    only(fs, "template")
    finds(fs, "template", "fail", "a question: parts at byte 12, token 12 of 74 (here) and 95: here \"user\\nWhere", "--chat-template")
    finds(fs, "template", "fail", "the pod \"Be kind. <|im_start|>user", "--chat-template")


def test_another_tokenizer_is_found_before_templates_are_compared(w):
    sim = w.sim()
    fs = doctor(w, rig(w, sim, pool="model-path: %s\nchat-template: %s" % (os.path.join(lib.TOP, "selftests/data/bpe/qwen"), CHATML)), code=1)
    only(fs, "tokenizer")
    finds(fs, "tokenizer", "fail", "a text: parts at byte 0", "model-path")
    need("template" not in fs, "%s" % fs)


def test_blocks_that_differ_are_found(w):
    sim = w.sim("--event-block-size", "8")
    g = rig(w, sim)
    need(g.post({"model": "m", "prompt": "x" * 100, "max_tokens": 1}).status == 200, "refused")
    until(lambda: g.pod_state(sim)["event_block_size"], "an event has come")
    fs = doctor(w, g, code=1)
    only(fs, "block size")
    finds(fs, "block size", "fail", "16 tokens by its metrics, 8 by its events")


def test_a_pod_without_events_details_or_caching_is_told_the_flags(w):
    sim = w.sim("--no-enable-prompt-tokens-details", "--no-enable-prefix-caching", events=False)
    fs = doctor(w, rig(w, sim, live=False), code=1)
    only(fs, "events", "cached tokens", "caching")
    finds(fs, "events", "warn", "no KV events are configured", "--kv-events-config")
    finds(fs, "cached tokens", "warn", "not reported", "--enable-prompt-tokens-details")
    finds(fs, "caching", "fail", "switched off", "--enable-prefix-caching")


def test_events_that_cannot_be_reached_or_replayed_are_found(w):
    sim = w.sim(events=False)
    spec = "{address: \"%s\", events: \"tcp://%s:%d\"}" % (sim.name, sim.ip, w.port())
    fs = doctor(w, w.gateway([spec], pool=POOL), code=1)
    only(fs, "events", "replay")
    finds(fs, "events", "fail", "cannot be connected to", "--kv-events-config")
    finds(fs, "replay", "warn", "without replay", "replay_endpoint")


def test_a_pool_without_the_models_files_is_told_so(w):
    sim = w.sim()
    fs = doctor(w, rig(w, sim, pool="", live=False), code=1)
    only(fs, "events", "model")
    finds(fs, "model", "warn", "no model-path", "model-path")
    finds(fs, "events", "fail", "cannot be read", "kvsteer model pull")


def test_a_name_that_the_pod_does_not_serve_is_found(w):
    sim = w.sim()
    fs = doctor(w, rig(w, sim, pool=POOL + "\nmodels: [m, other]"), code=1)
    only(fs, "models")
    finds(fs, "models", "fail", "\"other\" is in the pool's models, the pod serves \"m\"", "--served-model-name")


def test_a_pod_that_is_gone_is_found_and_nothing_else_is_asked(w):
    sim = w.sim()
    g = rig(w, sim)
    sim.stop()
    fs = doctor(w, g, code=1)
    need(list(fs) == ["reach"], "%s" % fs)
    finds(fs, "reach", "fail", "onnect", "is the engine up")


def test_a_version_whose_rules_are_not_known_is_named(w):
    sim = w.sim("--vllm-version", "9.99.0")
    g = rig(w, sim)
    until(lambda: g.pod_state(sim)["version"], "the version is known")
    fs = doctor(w, g)
    only(fs, "engine")
    finds(fs, "engine", "warn", "vLLM 9.99.0: ")


def test_what_predictions_show_is_shown(w):
    sim = w.sim()
    g = rig(w, sim, pool=POOL + "\nprefix: {drift-samples: 4}")
    ps = ["%d" % i * 600 for i in range(4)]
    for p in ps:
        need(g.post({"model": "m", "prompt": p, "max_tokens": 1}).status == 200, "refused")
    until(lambda: g.pod_state(sim)["speculative"] == 0, "guesses expire")
    sim.admin(cached_tokens_factor=0)
    for p in ps:
        g.post({"model": "m", "prompt": p, "max_tokens": 1})
    until(lambda: g.pod_state(sim)["predictions"] == "doubted", "it is doubted")
    fs = doctor(w, g, code=1)
    only(fs, "predictions")
    finds(fs, "predictions", "fail", "completions of m (salt)", "see what else")


def scripted(w, clock=0, close=False, tokenize=404, key=None):
    def handler(c, r):
        r.read_body()
        if r.target == "/tokenize":
            c.reply({"error": {"message": "no such thing"}} if tokenize != 200 else {"tokens": "none"}, "%d X" % tokenize)
        else:
            c.reply({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})

    class Odd(lib.Pod):
        def own_question(self, c, r):
            if r.target == "/health" and (close or clock):
                day = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + clock))
                c.reply(b"", headers=["Date: " + day] + ["Connection: close"] * close)
                if close:
                    c.s.shutdown(2)
                return True
            return lib.Pod.own_question(self, c, r)
    ns, ip = w.place("127.0.0.2")
    p = Odd(handler, ip, w.port(), ("m",), ns)
    p.key = key
    w.pods.append(p)
    return p


def test_a_server_that_closes_and_whose_clock_is_off_is_found(w):
    p = scripted(w, clock=-3600, close=True)
    fs = doctor(w, rig(w, p, live=False))
    finds(fs, "keep-alive", "warn", "closed the connection", "keep connections")
    finds(fs, "clock", "warn", "3600 s off", "NTP")
    finds(fs, "engine", "warn", "none that are known", "metrics")
    finds(fs, "block size", "warn", "not known")
    finds(fs, "tokenizer", "warn", "it has no /tokenize")
    finds(fs, "cached tokens", "warn", "not reported")


def test_an_answer_that_makes_no_sense_is_told_as_such(w):
    finds(doctor(w, rig(w, scripted(w, tokenize=200), live=False)), "tokenizer", "warn", "no list of tokens")
    finds(doctor(w, rig(w, scripted(w, tokenize=500), live=False)), "tokenizer", "warn", "refuses it (500): no such thing")


def test_a_key_is_used_and_asked_for(w):
    p = scripted(w, key="k1")
    g = w.gateway([p], pool=POOL, wait=False)
    until(lambda: g.pod_state(p)["last_error"], "the daemon is refused")
    fs = doctor(w, g, code=1)
    finds(fs, "models", "fail", "says 401", "api-key-file")
    with open(w.path("key"), "w") as f:
        f.write("k1\n")
    g = rig(w, p, pool=POOL + "\napi-key-file: " + w.path("key"), live=False)
    finds(doctor(w, g), "models", "ok", "m")


# --- model render ---

def render(w, *args, code=0, request='{"messages":[{"role":"user","content":"Hi \\u00fc\\n"}]}', **kw):
    with open(w.path("q.json"), "w") as f:
        f.write(request)
    got, out, err = kvsteer(w, "model", "render", *args, w.path("q.json"), **kw) if args[0] != "-j" else kvsteer(w, "-j", "model", "render", *args[1:], w.path("q.json"), **kw)
    need(got == code, "exit %d, not %d: %s%s" % (got, code, out, err))
    return out if not code else out + err


TEXT = "<|im_start|>user\nHi ü\n<|im_end|>\n<|im_start|>assistant\n"


def test_a_rendered_text_is_all_there_is_unless_tokens_are_asked_for(w):
    need(render(w, "--template", CHATML) == render(w, "--template", CHATML, "--model", VOCAB) == TEXT, "another text")
    lines = render(w, "--template", CHATML, "--model", VOCAB, "--tokens").splitlines()
    raw = TEXT.encode()
    need(len(lines) == len(raw) + 1 and lines[-1] == "%d bytes, %d tokens" % (len(raw), len(raw)), "%s" % lines[-1])
    need(lines[12].split() == ["12", "117", "\"u\""] and lines[16].split() == ["16", "10", "\"\\n\""], "%s" % lines[10:18])
    v = json.loads(render(w, "-j", "--template", CHATML, "--model", VOCAB, "--tokens"))
    need(bytes.fromhex("".join(t["hex"] for t in v["tokens"])) == raw and v["bytes"] == len(raw), "%s" % v)
    need([t["byte"] for t in v["tokens"]] == list(range(len(raw))), "offsets")
    need("--model DIR" in render(w, "--template", CHATML, "--tokens", code=2), "no directory")
    need("no chat template" in render(w, "--model", VOCAB, code=1), "no template")
    need("--template FILE is needed" in render(w, "--tokens", code=2), "nothing given")


def test_a_pod_that_makes_other_tokens_is_shown_where(w):
    a, b = w.sim(events=False), w.sim("--chat-prelude", "<|im_start|>\n", ip="127.0.0.4", events=False)
    args = "--template", CHATML, "--model", VOCAB
    need(render(w, *args, "--pod", a.name) == "%s: the same %d tokens\n" % (a.name, len(TEXT.encode())), "the same")
    need("parts at byte 12, token 12 of" in render(w, *args, "--pod", "http://%s/" % b.name, code=1), "elsewhere")
    v = json.loads(render(w, "-j", *args, "--pod", b.name, code=1))
    need((v["parity"], v["byte"], v["token"]) == ("differs", 12, 12), "%s" % v)
    need("onnect" in render(w, *args, "--pod", "127.0.0.9:1", code=1), "nobody there")
    p = scripted(w, key="k2")
    need("(401)" in render(w, *args, "--pod", p.name, code=1), "without a key")
    need("no /tokenize" in render(w, *args, "--pod", p.name, code=1, env={"KVSTEER_API_KEY": "k2"}), "with a key")


if __name__ == "__main__":
    lib.main(globals())
