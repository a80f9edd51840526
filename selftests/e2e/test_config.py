#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What kvsteerd says of a configuration that is wrong, and what it does with one that changes."""
import os
import signal
import subprocess

import lib
from lib import need, until

KVSTEERD = os.path.join(lib.BIN, "kvsteerd")
POOL = "pools:\n  - name: p\n    discovery: {static: [{address: \"127.0.0.1:9\"}]}\n"


def ok(c, r):
    r.read_body()
    c.reply()


def check(w, text, *args):
    path = w.path("c.yaml")
    with open(path, "w") as f:
        f.write(text)
    r = subprocess.run([KVSTEERD, "--check", "--config", path, *args], capture_output=True, text=True, timeout=10)
    return r.returncode, (r.stdout + r.stderr).replace(path, "FILE")


def test_each_mistake_is_told_with_its_place_and_what_is_allowed(w):
    for text, place, words in (
            ("pools:\n  - name: p\n    limitz: {}\n", "FILE:3:5:", ["limitz", "limits"]),
            (POOL + "datapath: {mode: fast}\n", "FILE:4:18:", ["fast", "auto", "relay"]),
            (POOL + "workers: many\n", "FILE:4:10:", ["many", "62"]),
            (POOL + "workers: 99\n", "FILE:4:10:", ["99", "62"]),
            (POOL + "memory: {max: 3 bananas}\n", "FILE:4:15:", ["3 bananas"]),
            (POOL + "admin: {adress: \"\"}\n", "FILE:4:9:", ["adress", "address"]),
            (POOL + "listeners: [{address: \"localhost\"}]\n", "FILE:4:23:", ["localhost"]),
            (POOL + "    scheduling: {policy: p2}\n", "FILE:4:26:", ["p2", "p2c"]),
            (POOL + "    limits: {first-byte: -1s}\n", "FILE:4:26:", ["-1s"]),
            (POOL + "  - name: p\n", "FILE:4:", ["p"]),
            ("pools: [\n", "FILE:", []),
            (POOL + "log: {level: info\n", "FILE:", []),
            ("", "FILE", ["pool"]),
            ("- a\n", "FILE:1:1:", []),
    ):
        code, said = check(w, text)
        need(code == 1, "%r: exit %d: %s" % (text, code, said))
        first = said.splitlines()[0] if said else ""
        need(first.startswith(place), "%r: %s" % (text, said))
        need(all(x in said for x in words), "%r: %s; %s are missing" % (text, said, [x for x in words if x not in said]))


def test_all_mistakes_of_a_file_are_told_at_once(w):
    code, said = check(w, POOL + "workers: 99\nlog: {levle: info}\n")
    need(code == 1 and "FILE:4:" in said and "FILE:5:" in said, said)


def test_a_good_file_is_silent(w):
    code, said = check(w, POOL)
    need(code == 0 and not said, "exit %d: %s" % (code, said))


def test_a_file_that_is_not_there_is_named(w):
    r = subprocess.run([KVSTEERD, "--config", w.path("nothing.yaml")], capture_output=True, text=True, timeout=10)
    need(r.returncode == 1 and w.path("nothing.yaml") in r.stderr, "exit %d: %s" % (r.returncode, r.stderr))


def test_options_of_the_command_line_are_checked_alike(w):
    for args, code, word in ((["--pod", "nohost"], 1, "nohost"), (["--pod", "127.0.0.1:9", "--datapath", "warp"], 1, "warp"), (["--nope"], 2, "nope"),
                             (["stray"], 2, "stray"), ([], 1, "pool"), (["--pod", "127.0.0.1:9,role=both,wieght=2"], 1, "wieght"),
                             (["--pod", "127.0.0.1:9", "--set", "pools[0].limits.retries=9"], 1, "9"),
                             (["--pod", "127.0.0.1:9", "--set", "pools[0].limits.retrys=1"], 1, "retrys")):
        r = subprocess.run([KVSTEERD, "--check", *args], capture_output=True, text=True, timeout=10)
        need(r.returncode == code and word in r.stderr, "%s: exit %d: %s" % (args, r.returncode, r.stderr))


def start(w, *args):
    return w.start([KVSTEERD, *args], "gateway")


def ends(p, word):
    until(lambda: not p.alive(), "it ends")
    need(p.p.returncode == 1 and word in p.output(), "exit %s: %s" % (p.p.returncode, p.output()))


def test_a_start_that_cannot_be_says_why(w):
    c = ["--control", w.path("c.sock"), "--set", "admin.address=", "--datapath", "off", "--pod", "127.0.0.1:9"]
    ends(start(w, "--listen", "127.0.0.1:21500", "--model-path", w.path("no-model"), *c), "no-model: No such file")
    os.mkdir(w.path("empty"))
    ends(start(w, "--listen", "127.0.0.1:21500", "--model-path", w.path("empty"), *c), "empty/tokenizer.json")
    os.mkdir(w.path("model"))
    with open(w.path("model/tokenizer.json"), "w") as f:
        f.write("{\"model\": {\"type\": \"WordPiece\"}}")
    ends(start(w, "--listen", "127.0.0.1:21500", "--model-path", w.path("model"), *c), "WordPiece")
    ends(start(w, "--listen", "192.0.2.1:80", *c), "192.0.2.1:80")
    pod = w.pod(ok)
    ends(start(w, "--listen", "%s:%d" % (pod.ip, pod.port), *c), "%s:%d" % (pod.ip, pod.port))
    ends(start(w, "--listen", "127.0.0.1:21500", "--control", "/nonexistent/dir/c.sock", "--set", "admin.address=", "--pod", "127.0.0.1:9"), "/nonexistent/dir")


def test_the_command_line_alone_is_enough(w):
    pod = w.pod(ok)
    start(w, "--listen", "127.0.0.1:21600", "--pod", pod.name, "--control", w.path("c.sock"), "--set", "admin.address=", "--datapath", "off", "--workers", "1")

    def asked():
        try:
            with lib.Conn(("127.0.0.1", 21600)) as c:
                c.send(lib.request({"model": "m", "prompt": "x"}))
                return c.answer().status == 200
        except OSError:
            return False
    until(asked, "a request is served")


def test_a_pod_that_cannot_be_reached_is_shown_and_left_out(w):
    good = w.pod(ok)
    g = w.gateway(["{address: \"127.0.0.77:9\"}", good], wait=False)
    until(lambda: [p["state"] for p in g.cli("pod", "list")] == ["down", "up"], "one is down, one is up")
    until(lambda: any("127.0.0.77:9" in x for x in g.cli("status")["warnings"]), "status warns of it")
    need("onnect" in g.cli("pod", "show", "127.0.0.77:9")["last_error"], "%s" % g.cli("pod", "show", "127.0.0.77:9"))
    for _ in range(5):
        need(g.post({"model": "m", "prompt": "x"}).status == 200, "not served")


def test_sighup_takes_the_new_pods_and_a_bad_file_changes_nothing(w):
    a, b = w.pod(ok), w.pod(ok, "127.0.0.3")
    g = w.gateway([a])
    with open(g.config) as f:
        text = f.read()
    with open(g.config, "w") as f:
        f.write(text.replace(a.spec(), b.spec()))
    g.p.send_signal(signal.SIGHUP)
    until(lambda: [p["name"] for p in g.cli("pod", "list")] == [b.name], "the new pod is there")
    with open(g.config, "w") as f:
        f.write("pools: 3\n")
    g.p.send_signal(signal.SIGHUP)
    until(lambda: g.config + ":1:" in g.output(), "the log names the mistake's place")
    need([p["name"] for p in g.cli("pod", "list")] == [b.name] and g.alive(), "a bad file changed the pods")
    until(lambda: g.post({"model": "m", "prompt": "x"}).headers.get("x-kvsteer-pod") == b.name, "the pod serves")


def test_a_second_daemon_on_the_same_control_socket_is_refused(w):
    g = w.gateway([w.pod(ok)])
    p = start(w, "--config", g.config)
    ends(p, "another kvsteerd")
    need(g.alive() and g.cli("status")["pid"] == g.pid, "the first one suffered")


lib.main(globals())
