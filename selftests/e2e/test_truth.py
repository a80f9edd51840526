#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Is what is predicted what the pods report? Pods that lie, one lie each: found, named, lived with, and forgiven.

The pods are kvsim's, whose token i is the byte i. Guesses live for two seconds, and what is only guessed is no prediction:
so each case asks a first time for some prompts, waits, and asks again."""
import json
import os
import time

import lib
from lib import need, until
from test_steering import BLOCK, VOCAB, ask, cached, gateway, no_guesses, quiet, tell, text

CHATML = "chat-template: " + os.path.join(lib.TOP, "tools/sim/chatml.jinja")
QUICK = "prefix: {drift-samples: 6}"
N = 8


def rig(w, sims, *pool):
    return gateway(w, sims, "\n".join((*pool, QUICK)))


def chat(t):
    return [{"role": "user", "content": t}]


def prompts(chats=False, n=N):
    return [(chat(text(700)), "/v1/chat/completions") if chats else (text(700), "/v1/completions") for _ in range(n)]


def ask_all(g, ps, **more):
    return [ask(g, p, path, **more) for p, path in ps]


def known(g, sims, ps):
    """They have been computed, and nothing of them is a mere guess any more."""
    ask_all(g, ps)
    quiet(g)
    for s in sims:
        if not g.pod_state(s)["predictions"] == "doubted":
            no_guesses(g, [s])


def state(g, sim):
    return g.pod_state(sim)


def rows(g, sim):
    return {(r["model"], r["of"]): r for r in state(g, sim)["compared"]}


def becomes(g, sim, what, timeout=4):
    try:
        until(lambda: state(g, sim)["predictions"] == what, "", timeout)
    except lib.Fail:
        raise lib.Fail("predictions are not \"%s\" but %s" % (what, state(g, sim))) from None


def falls(g, sim, cause, of="completions", model="m"):
    becomes(g, sim, "doubted")
    r = until(lambda: next((r for r in state(g, sim)["compared"] if r["doubted"]), None), "a row is doubted")
    need((r["model"], r["of"], r["cause"]) == (model, of, cause), "%s" % state(g, sim)["compared"])
    label = "pod=\"%s\",pool=\"p\",model=\"%s\",of=\"%s\",cause=\"%s\"" % (sim.name, model, of, cause)
    need(g.metric("prediction_doubted{" + label) == 1, "no metric %s" % label)
    need("(%s)" % cause in state(g, sim)["doubts"], state(g, sim)["doubts"])
    told = [x for x in g.status()["warnings"] if sim.name in x and "(%s)" % cause in x]
    need(told, "no warning: %s" % g.status()["warnings"])
    line = [l for l in g.output().splitlines() if "level=warn" in l and "predictions do not agree" in l and "cause=%s" % cause in l]
    need(line and "pod=%s" % sim.name in line[-1] and "fix=" in line[-1] and " off, " in line[-1], g.output()[-2000:])


def rises(g, sim):
    becomes(g, sim, "hold")
    need(g.metric("prediction_doubted") == 0 and not [x for x in g.status()["warnings"] if sim.name in x], "%s" % g.status()["warnings"])
    need("predictions agree with the pod's reports again" in g.output(), "it is not said")


def recovers(g, sim, chats=False, ps=None):
    """What is right again is found right, of prompts that it has not seen."""
    ps = ps or prompts(chats)
    known(g, [sim], ps)
    ask_all(g, ps)
    ask_all(g, ps)
    rises(g, sim)
    known(g, [sim], ps)
    got = ask_all(g, ps)
    need(all(r.mode == "precise" and r.predicted == r.reported for r in got), "%s" % got)


def test_a_pod_that_tells_the_truth_is_never_doubted(w):
    sims = [w.sim(ip="127.0.0.%d" % i) for i in (3, 4)]
    g = rig(w, sims, CHATML)
    for chats in (False, True):
        ps = prompts(chats)
        known(g, sims, ps)
        ask_all(g, ps)
        ask_all(g, ps, stream=True, stream_options={"include_usage": True})
    # What chats begin with is one block.
    until(lambda: sum(r["compared"] for s in sims for r in state(g, s)["compared"]) in range(5 * N - 2, 5 * N), "all are compared")
    need(all(state(g, s)["predictions"] == "hold" for s in sims), "doubted")
    need(g.metric("prediction_checks_total{result=\"right\"") == 6 * N and g.metric("prediction_doubted") == 0, g.page("/metrics"))
    need(g.metric("prediction_off_ratio") == 0, "off")


@lib.also("tc")
def test_a_pod_that_reports_nothing_is_taken_for_uncached(w):
    sim = w.sim(wires=True)
    g = rig(w, [sim])
    ps = prompts()
    known(g, [sim], ps)
    sim.admin(cached_tokens_factor=0)
    got = ask_all(g, ps, stream=True, stream_options={"include_usage": True}, max_tokens=40)
    need(all(r.reported == 0 and r.predicted == cached(700) and r.mode == "precise" for r in got), "%s" % got)
    falls(g, sim, "salt")
    r = ask(g, *ps[0])
    need(r.mode == "approximate" and r.predicted == 0, "%r: it is believed" % r)
    d = g.decision(r.a.headers["x-request-id"])
    need(d["candidates"][0]["doubted"], "%s" % d)
    sim.admin(cached_tokens_factor=1)
    recovers(g, sim)


def test_a_pod_that_counts_in_other_units_is_scaled(w):
    sim = w.sim()
    g = rig(w, [sim])
    ps = prompts()
    known(g, [sim], ps)
    sim.admin(cached_tokens_factor=0.5)
    ask_all(g, ps)
    falls(g, sim, "block_size")
    r = ask(g, *ps[0])
    need(abs(r.predicted - r.reported) <= BLOCK and r.reported == cached(700) // 2, "%r" % r)
    sim.admin(cached_tokens_factor=1)
    recovers(g, sim)


def test_events_of_other_blocks_are_named(w):
    sim = w.sim("--event-block-size", "8")
    g = rig(w, [sim])
    ps = prompts()
    known(g, [sim], ps)
    ask_all(g, ps)
    falls(g, sim, "block_size")
    need(state(g, sim)["event_block_size"] == 8 and state(g, sim)["block_size"] == 16, "%s" % state(g, sim))
    sim.admin(event_block_size=0)
    tell(sim, "/reset_prefix_cache")
    recovers(g, sim)


def test_another_template_is_found_by_its_chats_alone(w):
    sims = [w.sim(), w.sim("--chat-prelude", "Be kind. ", ip="127.0.0.4")]
    g = rig(w, sims[1:], CHATML)
    sim = sims[1]
    for chats in (False, True):
        ps = prompts(chats)
        known(g, [sim], ps)
        ask_all(g, ps)
    falls(g, sim, "template", "chats")
    need(not rows(g, sim)["m", "completions"]["doubted"], "completions are doubted too")
    p = prompts(n=1)
    known(g, [sim], p)
    need(ask(g, *p[0]).mode == "precise", "completions suffer for the chats")
    # What was sent there counts instead.
    p = prompts(True, 1)
    ask_all(g, p)
    time.sleep(2.5)
    r = ask(g, *p[0])
    need(r.mode == "approximate" and r.predicted > 600, "%r: what was sent to the pod is forgotten" % r)
    sim.admin(chat_prelude="")
    tell(sim, "/reset_prefix_cache")
    recovers(g, sim, True)


def test_a_foreign_vocabulary_is_named(w):
    sim = w.sim()
    g = w.gateway([sim], pool="model-path: %s\n%s" % (os.path.join(lib.TOP, "selftests/data/bpe", "qwen"), QUICK))
    until(lambda: state(g, sim)["index"] == "live", "events flow")
    ps = prompts()
    known(g, [sim], ps)
    ask_all(g, ps)
    falls(g, sim, "tokenizer")


def test_events_that_do_not_tell_what_is_stored_are_missed(w):
    sim = w.sim()
    g = rig(w, [sim])
    good = prompts()
    known(g, [sim], good)
    ask_all(g, good)
    sim.admin(mute_stored=True)
    time.sleep(1.1)
    ps = prompts()
    known(g, [sim], ps)
    got = ask_all(g, ps)
    need(all(r.predicted == 0 and r.reported == cached(700) for r in got), "%s" % got)
    falls(g, sim, "events")
    r = ask(g, *ps[0])
    need(r.mode == "approximate", "%r" % r)
    r = ask(g, *ps[0])
    need(r.predicted > 640, "%r: what was sent to the pod is not believed" % r)
    sim.admin(mute_stored=False)
    recovers(g, sim)


def test_events_that_do_not_tell_what_is_removed_are_missed(w):
    sim = w.sim("--kv-cache-size", "300", "--mute-removed")
    g = rig(w, [sim])
    old = prompts(n=6)
    shared = old[0][0][:160]
    ps = [(shared + text(600), "/v1/completions") for _ in range(N)]
    known(g, [sim], ps)
    for p in ps:
        ask(g, shared + text(300))
    for i in range(4):
        ask(g, text(1000))
    known(g, [sim], [(shared, "/v1/completions")])
    got = ask_all(g, ps)
    need(sum(r.predicted > r.reported + BLOCK for r in got) >= 5, "%s" % got)
    becomes(g, sim, "doubted")
    cause = next(r for r in state(g, sim)["compared"] if r["doubted"])["cause"]
    need(cause in ("events", "salt", "block_size"), cause)


def test_one_pod_or_model_does_not_suffer_for_another(w):
    sims = [w.sim("--lora-modules", "ad=/a", ip="127.0.0.%d" % i) for i in (3, 4)]
    g = rig(w, sims)
    ps = prompts(n=2 * N)
    known(g, sims, ps)
    sims[0].admin(cached_tokens_factor=0)
    for _ in range(3):
        ask_all(g, ps)
    falls(g, sims[0], "salt")
    need(state(g, sims[1])["predictions"] == "hold", "%s" % state(g, sims[1])["compared"])
    need(all(m == "m" for m, of in rows(g, sims[0])), "%s" % rows(g, sims[0]))
    # Whoever tells the truth gets the prompt once it has it.
    p = prompts(n=1)
    for s in sims:
        g.cli("pod", "drain", s.name)
        ask_all(g, p)
        g.cli("pod", "undrain", s.name)
    quiet(g)
    r = ask(g, *p[0])
    need(r.pod == sims[1].name and r.mode == "precise", "%r" % r)


def test_only_what_means_the_same_is_compared(w):
    """Not: several answers or prompts of one request, a prompt cut short, what is not told, a pod whose events do not flow."""
    sim = w.sim()
    g = rig(w, [sim])
    ps = prompts()
    known(g, [sim], ps)
    sim.admin(cached_tokens_factor=0)
    for more in ({"n": 2}, {"truncate_prompt_tokens": 650}, {"echo": True}):
        ask_all(g, ps, **more)
    for p, _ in ps:
        need(g.post({"model": "m", "prompt": [p, p], "max_tokens": 1}).status == 200, "refused")
    sim.admin(enable_prompt_tokens_details=False)
    for p, _ in ps:
        need(g.post({"model": "m", "prompt": p, "max_tokens": 1}).status == 200, "refused")
    until(lambda: g.metric("prediction_checks_total{result=\"request\"") == 4 * N, "%d" % g.metric("prediction_checks_total{result=\"request\""))
    g.counts("prediction_checks_total{result=\"unreported\"", N)
    time.sleep(1.2)
    need(state(g, sim)["predictions"] == "not compared", "%s" % state(g, sim)["compared"])
    need(g.metric("prediction_checks_total{result=\"over\"") == 0, "compared all the same")


def test_while_a_guess_stands_for_events_nothing_is_missed(w):
    sim = w.sim("--mute-stored")
    g = rig(w, [sim])
    ps = prompts()
    ask_all(g, ps)
    time.sleep(0.4)  # guesses are looked for now and then
    got = ask_all(g, ps)
    need(all(r.reported == cached(700) and r.predicted > 100 for r in got), "%s" % got)
    g.counts("prediction_checks_total{result=\"guess\"", N)
    time.sleep(1.2)
    need(state(g, sim)["predictions"] == "not compared" and g.metric("prediction_checks_total{result=\"under\"") == 0, "%s" % state(g, sim))


def test_a_warning_alone_if_so_configured(w):
    sim = w.sim()
    g = gateway(w, [sim], "prefix: {drift-samples: 6, drift-fall-back: false}")
    ps = prompts()
    known(g, [sim], ps)
    sim.admin(cached_tokens_factor=0)
    ask_all(g, ps)
    falls(g, sim, "salt")
    r = ask(g, *ps[0])
    need(r.mode == "precise" and r.predicted == cached(700), "%r" % r)


def test_a_few_surprises_are_none(w):
    """Less than a quarter of the answers may be off."""
    sim = w.sim()
    g = rig(w, [sim])
    ps = prompts()
    known(g, [sim], ps)
    for i in range(5):
        ask_all(g, ps)
        sim.admin(cached_tokens_factor=0)
        ask(g, *ps[0])
        sim.admin(cached_tokens_factor=1)
    time.sleep(1.2)
    r = rows(g, sim)["m", "completions"]
    need(r["recent_off"] == 5 and not r["doubted"], "%s" % r)


if __name__ == "__main__":
    lib.main(globals())
