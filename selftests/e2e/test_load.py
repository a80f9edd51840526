#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many streams at once: all of them whole."""
import json
import os
import signal
import subprocess

import lib
from lib import need, until

VOCAB = "model-path: " + os.path.join(lib.TOP, "selftests/data/bytes-tokenizer")


def rig(w, *sim):
    sims = [w.sim("--inter-token-latency", "5", *sim, ip="127.0.0.%d" % i) for i in (3, 4, 5)]
    g = w.gateway(sims, pool=VOCAB)
    until(lambda: all(p["index"] == "live" for p in g.cli("pod", "list")), "events flow")
    return g, sims


def load(g, *args):
    r = subprocess.run([os.path.join(lib.BIN, "kvload"), "--url", "http://%s:%d" % g.addr, "--model", "m", "--exact", "--json", *args],
                       capture_output=True, text=True, timeout=60)
    need(r.stdout.startswith("{"), "kvload: exit %d: %s%s" % (r.returncode, r.stdout[:500], r.stderr[:500]))
    return r.returncode, json.loads(r.stdout)


def all_done(g, v):
    """What kvload has cut at its end is what the gateway has seen going; all else came to its end."""
    until(lambda: g.cli("status")["streams"] == 0, "all streams are accounted for")
    need(all(p["inflight"] == 0 for p in g.cli("pod", "list")), "%s" % g.cli("pod", "list"))
    gone, done = g.metric("requests_done_total{end=\"client_gone\""), g.metric("requests_done_total{end=\"complete\"")
    need(gone <= v["cut"] and gone + done == g.metric("requests_total"), "%d gone, %d done of %d" % (gone, done, g.metric("requests_total")))


def test_300_streams_at_once_are_whole(w):
    g, _ = rig(w)
    code, v = load(g, "--streams", "300", "--ramp", "0.5", "--duration", "5", "--output-tokens", "40", "--prompt-bytes", "600", "--shared-prefix", "400",
                   "--prefixes", "12")
    need(code == 0 and v["complete"] >= 900, "exit %d: %s" % (code, v))
    all_done(g, v)
    reqs = [p["requests"] for p in g.cli("pod", "list")]
    need(min(reqs) > max(reqs) / 5, "the pods got %s" % reqs)
    predicted, reported = g.metric("prefix_predicted_tokens_total"), g.metric("prefix_reported_tokens_total")
    print("NOTE: 300 streams: %d answers, %d cached tokens reported, %d predicted" % (v["complete"], reported, predicted), flush=True)


def test_whole_answers_at_a_rate_are_whole(w):
    g, _ = rig(w)
    code, v = load(g, "--rate", "150", "--duration", "4", "--stream=false", "--output-tokens", "8", "--prompt-bytes", "2000")
    need(code == 0 and v["complete"] > 400, "exit %d: %s" % (code, v))
    all_done(g, v)


def test_a_pod_killed_under_load_costs_its_own_streams_only(w):
    g, sims = rig(w)
    p = subprocess.Popen([os.path.join(lib.BIN, "kvload"), "--url", "http://%s:%d" % g.addr, "--model", "m", "--exact", "--json", "--streams", "60",
                          "--duration", "4", "--output-tokens", "40", "--prompt-bytes", "500"], stdout=subprocess.PIPE, text=True)
    until(lambda: all(x["inflight"] > 3 for x in g.cli("pod", "list")), "all pods are busy")
    mine = next(x["inflight"] for x in g.cli("pod", "list") if x["name"] == sims[0].name)
    sims[0].stop(signal.SIGKILL)
    v = json.loads(p.communicate(timeout=60)[0])
    # Between the count and the kill some more have gone there; what comes later is sent elsewhere.
    need(v["errors"] <= mine + 10 and v["complete"] > 300, "%d streams broke, %d were on the pod: %s" % (v["errors"], mine, v))
    # Who was sent to the dead pod and had no answer yet is told so (502); who could not be sent there goes elsewhere (no 503).
    tail = subprocess.run(["timeout", "2", os.path.join(lib.BIN, "kvsteer"), "--control", g.ctl, "-j", "decision", "tail", "-n", "1000"],
                          capture_output=True, text=True).stdout.splitlines()
    need(len(tail) > 300 and not [l for l in tail if json.loads(l)["status"] == 503], "requests were not sent elsewhere")
    until(lambda: g.cli("status")["streams"] == 0, "all streams are accounted for")
    need(all(x["inflight"] == 0 for x in g.cli("pod", "list")), "%s" % g.cli("pod", "list"))


lib.main(globals())
