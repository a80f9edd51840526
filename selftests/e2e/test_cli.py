#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every verb of kvsteer against a running daemon, as text and as JSON, and its exit codes."""
import json
import os
import signal
import subprocess
import sys
import threading
import time

import lib
from lib import Skip, need, until

VOCAB = "model-path: " + os.path.join(lib.TOP, "selftests/data/bytes-tokenizer")
KVSTEER = os.path.join(lib.BIN, "kvsteer")
OK, FAILED, USAGE, UNREACHABLE, NOT_FOUND = range(5)


def run(g, *args, control=None, text=None):
    ctl = control or (g.ctl if g else "/nonexistent/kvsteer.sock")
    return subprocess.run([KVSTEER, "--control", ctl, *args], capture_output=True, text=True, timeout=20, input=text)


def out(g, *args, code=OK, **kw):
    r = run(g, *args, **kw)
    need(r.returncode == code, "kvsteer %s: exit %d, not %d: %s%s" % (" ".join(args), r.returncode, code, r.stdout, r.stderr))
    need(code != OK or not r.stderr, "kvsteer %s complains: %s" % (" ".join(args), r.stderr))
    return r.stdout if code == OK else r.stderr


def js(g, *args, code=OK, **kw):
    r = run(g, "-j", *args, **kw)
    need(r.returncode == code and not r.stderr, "kvsteer -j %s: exit %d: %s%s" % (" ".join(args), r.returncode, r.stdout, r.stderr))
    t = r.stdout
    need(t.count("\n") == 1, "kvsteer -j %s: %d lines" % (" ".join(args), t.count("\n")))
    return json.loads(t)


def rig(w):
    sims = [w.sim(ip="127.0.0.%d" % i) for i in (3, 4)]
    g = w.gateway(sims, pool=VOCAB)
    until(lambda: all(p["index"] == "live" for p in g.cli("pod", "list")), "events flow")
    return g, sims


def ask(g, prompt="p" * 400):
    a = g.post({"model": "m", "prompt": prompt, "max_tokens": 1})
    need(a.status == 200, "status %d" % a.status)
    return a.headers["x-request-id"], a.headers["x-kvsteer-pod"]


def known(g, rid):
    return until(lambda: run(g, "decision", "show", rid).returncode == 0, "the decision is kept")


def test_status_is_one_screen_and_one_value(w):
    g, _ = rig(w)
    rid, _ = ask(g)
    known(g, rid)
    time.sleep(1.1)
    s, v = out(g, "status"), js(g, "status")
    need(v["pods"] == {"total": 2, "usable": 2} and v["requests"] == 1 and v["pid"] == g.pid and v["warnings"] == [], "%s" % v)
    for word in ("pid %d" % g.pid, "2 usable of 2", "relay", "1 requests", "%s:%d" % g.addr):
        need(word in s, "\"%s\" is not in: %s" % (word, s))
    need("up 0m0s" not in s, "the uptime stands still")
    need(s.count("\n") < 24, "more than a screen")


def test_pods_are_listed_and_shown(w):
    g, sims = rig(w)
    s, v = out(g, "pod", "list"), js(g, "pod", "list")
    need([p["name"] for p in v] == [x.name for x in sims] and all(p["state"] == "up" for p in v), "%s" % v)
    need(s.split()[0] == "POD" and all(x.name in s for x in sims) and s.count(" live ") == 2, s)
    s, v = out(g, "pod", "show", sims[0].name), js(g, "pod", "show", sims[0].name)
    need(v["name"] == sims[0].name and v["block_size"] == 16 and v["events"] == "tcp://127.0.0.3:%d" % sims[0].ev, "%s" % v)
    need("block size" in s and "tcp://127.0.0.3:%d" % sims[0].ev in s, s)
    need(out(g, "p", "l").split()[0] == "POD", "verbs cannot be shortened")


def test_pods_are_drained_and_undrained(w):
    g, sims = rig(w)
    out(g, "pod", "drain", sims[0].name)
    need(js(g, "pod", "show", sims[0].name)["state"] == "draining", "not drained")
    need({ask(g, os.urandom(200).hex())[1] for _ in range(6)} == {sims[1].name}, "a drained pod got a request")
    need(js(g, "pod", "undrain", sims[0].name)["state"] == "up", "not undrained")
    out(g, "pod", "drain", sims[1].name)
    need(ask(g, os.urandom(200).hex())[1] == sims[0].name, "it does not serve again")


def test_decisions_are_shown(w):
    g, sims = rig(w)
    rid, pod = ask(g)
    known(g, rid)
    s, v = out(g, "decision", "show", rid), js(g, "decision", "show", rid)
    need(v["request"] == rid and v["pod"] == pod and len(v["candidates"]) == 2 and v["status"] == 200, "%s" % v)
    need(rid in s and "CANDIDATE" in s and all(x.name in s for x in sims), s)


def tail(g, *args):
    return subprocess.Popen([KVSTEER, "--control", g.ctl, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_decisions_are_tailed(w):
    g, _ = rig(w)
    old = [ask(g)[0] for _ in range(4)]
    for rid in old:
        known(g, rid)
    p = tail(g, "-j", "decision", "tail", "-n", "2")
    got = [json.loads(p.stdout.readline())["request"] for _ in range(2)]
    need(got == old[2:], "the last two: %s of %s" % (got, old))
    new = ask(g)[0]
    need(json.loads(p.stdout.readline())["request"] == new, "the new one does not follow")
    p.send_signal(signal.SIGINT)
    p.wait(5)
    p = tail(g, "decision", "tail", "-n", "1")
    head, row = p.stdout.readline(), p.stdout.readline()
    need(head.split()[:3] == ["TIME", "REQUEST", "POD"] and new in row, "%r %r" % (head, row))
    g.stop(signal.SIGKILL)
    need(p.wait(5) in (FAILED, UNREACHABLE), "exit %d when the daemon ends" % p.returncode)


def test_the_index_is_shown(w):
    g, _ = rig(w)
    prompt = "The index knows this text by its hash. " * 20
    _, pod = ask(g, prompt)
    v = until(lambda: (lambda x: x and x[0]["exact"] and x)(js(g, "index", "lookup", prompt)), "the prompt is known")
    need(v == [{"pod": pod, "tokens": 768, "cpu_tokens": 0, "disk_tokens": 0, "blocks": 48, "bytes": 768, "exact": True}], "%s" % v)
    with open(w.path("prompt"), "w") as f:
        f.write(prompt)
    for args, text in ((("index", "lookup", w.path("prompt")), None), (("index", "lookup", "-"), prompt), (("index", "lookup", "-m", "m", prompt), None)):
        s = out(g, *args, text=text)
        need(pod in s and "768" in s, "%s: %s" % (args, s))
    need(js(g, "index", "lookup", "-m", "other", prompt) == [], "another model's prefix")
    s, v = out(g, "index", "stats"), js(g, "index", "stats")
    need(v["stored"] > 0 and v["nodes"] > 0 and v["bytes"] < v["max_bytes"] and "stored" in s, "%s" % v)


def test_the_configuration_is_shown_checked_and_reloaded(w):
    g, sims = rig(w)
    y = out(g, "config", "show")
    need("127.0.0.3:%d" % sims[0].port in y and "stream-idle" in y, y)
    need(js(g, "config", "show")["yaml"] == y, "text and JSON differ")
    with open(w.path("shown.yaml"), "w") as f:
        f.write(y)
    need(out(None, "config", "check", w.path("shown.yaml")) is not None, "what is shown is not a valid configuration")
    d = out(None, "config", "defaults")
    need("# " in d and "retries" in d, "no defaults with docs")
    need(out(None, "config", "defaults", "--rst").startswith("``"), "no reStructuredText")

    bad = w.path("bad.yaml")
    with open(bad, "w") as f:
        f.write("pools:\n  - name: p\n    limits: {retrys: 1}\n")
    e = out(None, "config", "check", bad, code=FAILED)
    need(bad + ":3:" in e and "retries" in e, "no place or no suggestion: " + e)
    v = js(None, "config", "check", bad, code=FAILED)
    need(not v["ok"] and len(v["errors"]) == 1 and v["errors"][0].startswith(bad + ":3:"), "%s" % v)

    with open(g.config) as f:
        good = f.read()
    with open(g.config, "w") as f:
        good = good.replace("        - %s\n" % sims[1].spec(), "")
        f.write(good)
    out(g, "reload")
    until(lambda: [p["name"] for p in js(g, "pod", "list")] == [sims[0].name], "the pod that is left")
    with open(g.config, "w") as f:
        f.write(good.replace("  - name: p\n", "  - name: p\n    models: [m]\n    scheduling: {policy: round-robin}\n"))
    changed = js(g, "reload")["changed"]
    need("pools[0].models (waits for a restart)" in changed and "pools[0].scheduling.policy" in changed, "%s" % changed)
    rid, _ = ask(g)
    known(g, rid)
    need(js(g, "decision", "show", rid)["policy"] == "round-robin", "the new policy does not choose")
    need("round-robin" in out(g, "config", "show"), "the new policy is not shown")
    with open(g.config, "w") as f:
        f.write(good + "nonsense: 1\n")
    e = out(g, "reload", code=FAILED)
    need("%s:%d:1" % (g.config, good.count("\n") + 1) in e, "no place: " + e)
    need(len(js(g, "pod", "list")) == 1, "a bad file changed something")


def js_error(g, *args):
    r = run(g, "-j", *args)
    need(r.returncode != 0 and not r.stdout.strip(), "%s: %d %s" % (args, r.returncode, r.stdout))
    return json.loads(r.stderr.splitlines()[0])


def test_exit_codes_tell_classes(w):
    g, _ = rig(w)
    for args in (("pod", "show", "10.9.9.9:1"), ("pod", "drain", "10.9.9.9:1"), ("decision", "show", "nobody")):
        need("10.9.9.9" in out(g, *args, code=NOT_FOUND) or "nobody" in out(g, *args, code=NOT_FOUND), "%s" % (args,))
        need(js_error(g, *args)["code"] == "not_found", "%s as JSON" % (args,))
    for args in (("pod", "shwo", "x"), ("frobnicate",), ("pod", "show"), ("pod", "list", "more"), ("--nope", "status"), ("status", "-n", "3"), ("decision", "tail", "-n", "many"), ()):
        e = out(g, *args, code=USAGE)
        need(e, "%s: no word" % (args,))
    for args in (("status",), ("pod", "list"), ("decision", "tail"), ("index", "stats"), ("config", "show"), ("reload",), ("drain",)):
        e = out(None, *args, code=UNREACHABLE)
        need("/nonexistent/kvsteer.sock" in e, "%s does not name the socket: %s" % (args, e))
        need(run(None, "-j", *args).returncode == UNREACHABLE and js_error(None, *args)["error"], "%s as JSON" % (args,))
    need(out(g, "status", control=w.path("nothing"), code=UNREACHABLE), "no word")


def test_what_needs_no_daemon_works_without(w):
    need(out(None, "version").startswith("kvsteer "), "version")
    need("complete" in out(None, "completion", "bash"), "completion")
    need(subprocess.run(["bash", "-n"], input=out(None, "completion", "bash"), text=True).returncode == 0, "the completion is no bash")
    need("pod list" in out(None, "--help"), "help")


def test_the_kernels_part_is_shown_with_the_daemon_down(w):
    """In a mount namespace with a bpffs of its own."""
    if not os.path.ismount("/sys/fs/bpf"):
        raise Skip("no bpffs can be mounted here")
    e = out(None, "bpf", "show", code=NOT_FOUND)
    need("pinned" in e or "nothing" in e, e)
    pod = w.sim()
    with open(w.path("bpf.yaml"), "w") as f:
        f.write("listeners: [{address: \"127.0.0.1:22000\"}]\nadmin: {address: \"\"}\ncontrol: %s\ndatapath: {mode: tc}\npools: [{name: p, discovery: {static: [%s]}}]\n" % (
            w.path("c.sock"), pod.spec()))
    g = w.start([os.path.join(lib.BIN, "kvsteerd"), "--config", w.path("bpf.yaml")], "gateway")
    until(lambda: not g.alive() or os.path.exists(w.path("c.sock")), "the daemon serves")
    v = json.loads(out(None, "-j", "status", control=w.path("c.sock")))
    if not v["datapath"]["kernel"]:
        raise Skip("; ".join(v["warnings"]))
    until(lambda: "kvs_pods" in run(None, "bpf", "show").stdout, "the maps are pinned")
    s = out(None, "bpf", "show")
    for word in ("kvs_egress", "kvs_ingress", "kvs_arm", "kvs_pods", "kvs_splices", "kvs_meta"):
        need(word in s, "%s is not shown: %s" % (word, s))
    v = js(None, "bpf", "show")
    need("kvs_pods" in json.dumps(v), "%s" % v)
    need(js(None, "flow", "list", control=w.path("c.sock")) == [], "flows of nobody")
    e = out(None, "flow", "kill", "7", control=w.path("c.sock"), code=NOT_FOUND)
    need("no splice 7" in e, e)
    out(None, "flow", "show", "zero", control=w.path("c.sock"), code=USAGE)
    g.stop(signal.SIGKILL)
    need(js(None, "flow", "list", control=w.path("c.sock")) == [] and "STATE" in out(None, "flow", "list", control=w.path("c.sock")), "from the pins")
    e = out(None, "flow", "show", "7", control=w.path("c.sock"), code=NOT_FOUND)
    need("no splice 7" in e, e)
    need("redirected" in out(None, "bpf", "dump", "rows"), "the rows")
    need("kvs_pods" in out(None, "bpf", "show"), "with the daemon down nothing is shown")
    need(str(pod.port) in out(None, "bpf", "dump", "kvs_pods") and str(pod.port) in json.dumps(js(None, "bpf", "dump", "kvs_pods")), "the map's entry")
    out(None, "bpf", "dump", "kvs_nothing", code=NOT_FOUND)
    out(None, "bpf", "unload")
    out(None, "bpf", "show", code=NOT_FOUND)


def test_drain_ends_the_daemon_with_its_last_stream(w):
    go = threading.Event()

    def slow(c, r):
        r.read_body()
        c.start_stream()
        c.event({"n": 0})
        go.wait(10)
        c.event({"n": 1})
        c.end()
    pod = w.pod(slow)
    g = w.gateway([pod])
    with g.connect() as c:
        c.send(lib.request({"model": "m", "prompt": "x", "stream": True}))
        until(lambda: pod.requests, "the stream has begun")
        out(g, "drain")
        until(lambda: not g.can_connect(), "no new connections are taken")
        need(any("draining" in x for x in js(g, "status")["warnings"]), "status does not tell")
        time.sleep(0.3)
        need(g.alive(), "it ended before its stream")
        go.set()
        a = c.answer()
    need(a.complete and a.body.count(b"data:") == 2, "the stream broke")
    until(lambda: not g.alive(), "it ends")
    need(g.p.returncode == 0, "exit %d" % g.p.returncode)


# A mount namespace too, with a bpffs of its own: what this host has pinned is not ours to unload.
if os.geteuid() == 0 and not os.environ.get("KVS_E2E_NS"):
    os.environ["KVS_E2E_NS"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "sh", "-c", "umount -q /sys/fs/bpf; mount -t bpf bpf /sys/fs/bpf; exec \"$@\"", "sh", sys.executable] + sys.argv)
lib.main(globals())
