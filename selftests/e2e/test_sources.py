#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where pods come from, and what the gateway asks them on its own account: files, DNS, keys, metrics."""
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import lib
from lib import need, until

METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} %s
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} %s
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} %s
"""


def ok(c, r):
    r.read_body()
    c.reply({"pod": 1})


def names(g):
    return sorted(p["name"] for p in g.cli("pod", "list"))


def pods_are(g, pods, timeout=5.0):
    want = sorted(p if isinstance(p, str) else p.name for p in pods)
    until(lambda: names(g) == want, "the pods are %s" % want, timeout)


def served_by(g, n=6):
    out = set()
    for i in range(n):
        a = g.post({"model": "m", "prompt": "%d %s" % (i, os.urandom(40).hex())})
        need(a.status == 200, "status %d %s" % (a.status, a.body[:200]))
        out.add(a.headers["x-kvsteer-pod"])
    return out


def warnings(g):
    return " | ".join(g.cli("status")["warnings"])


ROUND = "\nscheduling: {policy: round-robin}"


# --- files ---

def write(path, text, rename=True):
    to = path + ".new" if rename else path
    with open(to, "w") as f:
        f.write(text)
    if rename:
        os.rename(to, path)


def listed(*pods):
    return "".join("- %s\n" % p.spec() for p in pods)


def test_a_pods_file_is_followed_and_a_broken_one_changes_nothing(w):
    a, b, c = (w.pod(ok, "127.0.0.%d" % i) for i in (2, 3, 4))
    path = w.path("pods.yaml")
    write(path, listed(a, b))
    g = w.gateway(None, pool="discovery: {file: %s}" % path + ROUND)
    pods_are(g, [a, b])
    until(lambda: served_by(g) == {a.name, b.name}, "both serve")

    write(path, listed(b, c))
    pods_are(g, [b, c])
    until(lambda: served_by(g) == {b.name, c.name}, "the new set serves")

    write(path, listed(b) + "- {address: \"127.0.0.5:80\", rol: both}\n")
    until(lambda: path + ":2:" in warnings(g), "status names file and line")
    need("rol" in warnings(g) and names(g) == sorted([b.name, c.name]), "the pods are %s; %s" % (names(g), warnings(g)))
    need(served_by(g) == {b.name, c.name}, "the last good set does not serve")

    write(path, "- [", rename=False)
    until(lambda: path + ":1:" in warnings(g) or path + ":2:" in warnings(g), "status names the other mistake")
    need(names(g) == sorted([b.name, c.name]), "a file that is no YAML empties the pool")

    os.unlink(path)
    until(lambda: "No such file" in warnings(g), "status says that the file is gone")
    need(names(g) == sorted([b.name, c.name]), "a file that is gone empties the pool")

    write(path, listed(a), rename=False)
    pods_are(g, [a])
    until(lambda: path not in warnings(g), "the warning ends")


def test_a_file_behind_a_link_that_is_swapped_is_followed(w):
    """As Kubernetes mounts a ConfigMap: ..data is a link that is renamed over."""
    a, b = (w.pod(ok, "127.0.0.%d" % i) for i in (2, 3))
    d = w.path("map")
    for v, pod in (("v1", a), ("v2", b)):
        os.makedirs(os.path.join(d, v))
        write(os.path.join(d, v, "pods.yaml"), listed(pod))
    os.symlink("v1", os.path.join(d, "..data"))
    os.symlink("..data/pods.yaml", os.path.join(d, "pods.yaml"))
    g = w.gateway(None, pool="discovery: {file: %s}" % os.path.join(d, "pods.yaml"))
    pods_are(g, [a])
    os.symlink("v2", os.path.join(d, "..tmp"))
    os.rename(os.path.join(d, "..tmp"), os.path.join(d, "..data"))
    pods_are(g, [b], 12)


def test_a_pod_that_leaves_ends_its_streams_by_itself(w):
    go = threading.Event()

    def slow(c, r):
        r.read_body()
        c.start_stream()
        c.event({"n": 0})
        go.wait(10)
        for i in range(20):
            c.event({"n": 1 + i})
        c.end()
    a, b = w.pod(slow), w.pod(ok, "127.0.0.3")
    path = w.path("pods.yaml")
    write(path, listed(a))
    g = w.gateway(None, pool="discovery: {file: %s}" % path + ROUND)
    until(lambda: g.cli("pod", "list")[0]["state"] == "up" and g.cli("pod", "list")[0]["models"], "the pod is up")
    with g.connect() as c:
        c.send(lib.request({"model": "m", "prompt": "x", "stream": True}))
        until(lambda: a.requests, "the stream has begun")
        write(path, listed(b))
        pods_are(g, [b])
        until(lambda: g.cli("pod", "list")[0]["models"], "the other pod is known")
        need(served_by(g, 2) == {b.name}, "the pod that left takes requests")
        go.set()
        r = c.answer()
    need(r.complete and r.body.count(b"data:") == 21, "the stream broke: %d events" % r.body.count(b"data:"))


# --- DNS ---

class Dns:
    """A name server of a few records; change them while it runs. Counts questions."""

    def __init__(self, w):
        self.records, self.asked, self.rcode, self.mute, self.errors = {}, 0, 3, False, []
        self.s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.s.bind(("127.0.0.53", 53))
        self.s.settimeout(0.1)
        self.open = True
        w.pods.append(self)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self):
        self.open = False
        self.thread.join()
        self.s.close()
        subprocess.run(["umount", os.path.realpath("/etc/resolv.conf")], check=True)

    def set(self, name, kind, *values):
        self.records[(name.lower(), kind)] = values

    def serve(self):
        while self.open:
            try:
                q, peer = self.s.recvfrom(4096)
            except socket.timeout:
                continue
            self.asked += 1
            if not self.mute:
                self.s.sendto(self.answer(q), peer)

    @staticmethod
    def name(text):
        return b"".join(bytes([len(p)]) + p.encode() for p in text.split(".")) + b"\0"

    def answer(self, q):
        at, labels = 12, []
        while q[at]:
            labels.append(q[at + 1:at + 1 + q[at]].decode().lower())
            at += 1 + q[at]
        name, kind = ".".join(labels), struct.unpack("!H", q[at + 1:at + 3])[0]
        values = self.records.get((name, kind), ())
        known = any(n == name for n, _ in self.records)
        rrs = b""
        for v in values:
            if kind == 1:
                data = socket.inet_pton(socket.AF_INET, v)
            elif kind == 28:
                data = socket.inet_pton(socket.AF_INET6, v)
            else:
                data = struct.pack("!HHH", 0, 0, v[1]) + self.name(v[0])
            rrs += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(data)) + data
        flags = 0x8580 | (0 if known else self.rcode)
        return q[:2] + struct.pack("!HHHHH", flags, 1, len(values), 0, 0) + q[12:at + 5] + rrs


A, AAAA, SRV = 1, 28, 33


def resolver(w):
    with open(w.path("resolv.conf"), "w") as f:
        f.write("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", w.path("resolv.conf"), os.path.realpath("/etc/resolv.conf")], check=True)
    return Dns(w)


def dns_pool(name, port):
    return "discovery: {dns: {name: %s, port: %s, interval: 200ms}}" % (name, port) + ROUND


def test_addresses_of_a_name_are_followed(w):
    d = resolver(w)
    port = w.port()
    pods = []
    for i in (3, 4, 5):
        w.next_port = port - 1
        pods.append(w.pod(ok, "127.0.0.%d" % i))
    d.set("pods.test", A, "127.0.0.3", "127.0.0.4")
    g = w.gateway(None, pool=dns_pool("pods.test", port))
    pods_are(g, pods[:2])
    until(lambda: served_by(g) == {p.name for p in pods[:2]}, "both serve")

    d.set("pods.test", A, "127.0.0.5", "127.0.0.4")
    pods_are(g, pods[1:])

    d.mute = True
    until(lambda: "pods.test" in warnings(g), "status tells that nobody answers", 15)
    need(names(g) == sorted(p.name for p in pods[1:]), "a silent name server empties the pool")
    need(served_by(g) <= {p.name for p in pods[1:]}, "requests are not served")
    d.mute = False
    until(lambda: "pods.test" not in warnings(g), "the warning ends", 10)

    d.records.clear()
    until(lambda: "pods.test" in warnings(g), "status tells that the name is gone", 10)
    need(names(g) == sorted(p.name for p in pods[1:]), "a name that is gone empties the pool")
    d.set("pods.test", A, "127.0.0.3")
    pods_are(g, pods[:1], 10)


def test_a_name_with_ipv6_addresses_only(w):
    d = resolver(w)
    port = w.port()
    s = w.start([os.path.join(lib.BIN, "kvsim"), "--listen", "[::1]:%d" % port, "--model", "m", "--enable-prompt-tokens-details"], "sim")
    d.set("six.test", AAAA, "::1")
    g = w.gateway(None, pool=dns_pool("six.test", port))
    pods_are(g, ["[::1]:%d" % port])
    until(lambda: g.cli("pod", "list")[0]["models"] == ["m"], "the pod's models are known")
    need(s.alive() and served_by(g, 2) == {"[::1]:%d" % port}, "not served")


def test_srv_records_bring_their_ports(w):
    d = resolver(w)
    a, b = w.pod(ok, "127.0.0.3"), w.pod(ok, "127.0.0.4")
    d.set("one.test", A, a.ip)
    d.set("two.test", A, b.ip)
    d.set("_http._tcp.pods.test", SRV, ("one.test", a.port), ("two.test", b.port))
    g = w.gateway(None, pool=dns_pool("pods.test", "_http._tcp"))
    pods_are(g, [a, b])
    until(lambda: served_by(g) == {a.name, b.name}, "both serve")
    d.set("_http._tcp.pods.test", SRV, ("two.test", b.port))
    pods_are(g, [b])
    # A target that is not known yet does not hide the others.
    d.set("_http._tcp.pods.test", SRV, ("three.test", 80), ("one.test", a.port))
    pods_are(g, [a])


def test_pods_found_by_dns_give_exact_matches(w):
    d = resolver(w)
    at, sims = w.next_port, []
    for ip in ("127.0.0.3", "127.0.0.4"):
        w.next_port = at
        sims.append(w.sim("--zmq-bind", "--zmq-endpoint", "tcp://%%h:%d" % (at + 2), "--kv-events-replay-endpoint", "tcp://%%h:%d" % (at + 3), ip=ip))
    d.set("pods.test", A, *(s.ip for s in sims))
    g = w.gateway(None, pool="model-path: %s\ndiscovery: {dns: {name: pods.test, port: %d, interval: 200ms, events: \"tcp://*:%d\", replay: \"tcp://*:%d\"}}" % (
        os.path.join(lib.TOP, "selftests/data/bytes-tokenizer"), sims[0].port, sims[0].ev, sims[0].rp))
    pods_are(g, sims)
    until(lambda: all(p["index"] == "live" for p in g.cli("pod", "list")), "events flow")
    prompts = [os.urandom(200).hex() for _ in range(4)]
    on = [g.post({"model": "m", "prompt": p, "max_tokens": 1}).headers["x-kvsteer-pod"] for p in prompts]
    until(lambda: all(g.pod_state(s)["speculative"] == 0 and g.pod_state(s)["blocks"] for s in sims if s.name in on), "guesses expire")
    for p, pod in zip(prompts, on):
        a = g.post({"model": "m", "prompt": p, "max_tokens": 1}, headers=["x-kvsteer-explain: 1"])
        why = json.loads(a.headers["x-kvsteer-decision"])
        need(why["mode"] == "precise" and why["predicted_tokens"] == 384, "%s" % why)
        need(a.headers["x-kvsteer-pod"] == pod and a.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 384, "%s" % a.body)


# --- keys ---

def test_a_pod_that_wants_a_key_is_not_taken_for_a_broken_one(w):
    pod = w.pod(ok)
    pod.key = "k1"
    g = w.gateway([pod], wait=False)
    until(lambda: "401" in g.pod_state(pod)["last_error"], "pod show says 401")
    s = g.pod_state(pod)
    need("API key" in s["last_error"] and s["models"] == [] and s["running"] is None, "%s" % s)


def test_the_gateways_key_opens_models_and_metrics_and_stays_its_own(w):
    pod = w.pod(ok, models=("alias-a", "alias-b"))
    pod.key, pod.metrics_text = "k1", METRICS % (3, 5, 0.25)
    with open(w.path("key"), "w") as f:
        f.write("k1\n")
    g = w.gateway([pod], pool="api-key-file: " + w.path("key"))
    s = until(lambda: g.pod_state(pod)["running"] == 3 and g.pod_state(pod), "the metrics are read")
    need(s["models"] == ["alias-a", "alias-b"] and s["engine_waiting"] == 5, "%s" % s)
    for m in ("alias-a", "alias-b"):
        need(g.post({"model": m, "prompt": "x"}, headers=["Authorization: Bearer client"]).status == 200, m)
    g.post({"model": "alias-a", "prompt": "x"})
    got = [r.headers.get("authorization") for r in pod.requests]
    need(got == ["Bearer client", "Bearer client", None], "the pod got %s" % got)


def test_a_wrong_key_is_told_from_a_missing_one(w):
    pod = w.pod(ok)
    pod.key = "k1"
    with open(w.path("key"), "w") as f:
        f.write("other\n")
    g = w.gateway([pod], pool="api-key-file: " + w.path("key"), wait=False)
    until(lambda: "not accepted" in g.pod_state(pod)["last_error"], "pod show says that the key is not accepted")


# --- metrics ---

def metrics_pod(w, text, ip="127.0.0.2"):
    pod = w.pod(ok, ip)
    pod.metrics_text = text
    return pod


def test_metrics_on_another_port_are_read_there(w):
    side = metrics_pod(w, METRICS % (2, 7, 0.5))
    pod = metrics_pod(w, METRICS % (0, 0, 0))
    g = w.gateway([pod], pool="metrics: {port: %d}" % side.port)
    until(lambda: g.pod_state(pod)["engine_waiting"] == 7 and g.pod_state(pod)["kv_usage"] == 0.5, "the other port's values")


def test_a_pod_may_name_its_own_metrics(w):
    side = metrics_pod(w, METRICS % (2, 9, 0.5), "127.0.0.3")
    pod = metrics_pod(w, METRICS % (0, 0, 0))
    g = w.gateway(["{address: \"%s\", metrics: \"%s/metrics\"}" % (pod.name, side.name)])
    until(lambda: g.pod_state(pod)["engine_waiting"] == 9, "the values of the address that the pod names")


def test_metrics_that_are_not_there_are_unknown_and_not_zero(w):
    gone = []

    def handler(c, r):
        r.read_body()
        if r.target != "/elsewhere":
            c.reply()
        elif gone:
            c.reply(b"no", status="404 Not Found")
        else:
            c.reply((METRICS % (6, 0, 0.5)).encode(), ctype="text/plain")
    pod = w.pod(handler)
    g = w.gateway([pod], pool="metrics: {path: /elsewhere}")
    until(lambda: g.pod_state(pod)["running"] == 6, "they are read while they are there")
    gone.append(1)
    until(lambda: "404" in g.pod_state(pod)["last_error"], "pod show says 404")
    s = g.pod_state(pod)
    need("/elsewhere" in s["last_error"] and s["running"] is None and s["kv_usage"] is None and s["state"] == "up", "%s" % s)
    need(g.post({"model": "m", "prompt": "x"}).status == 200, "the pod does not serve")


def test_garbage_instead_of_metrics_does_no_harm(w):
    pods = [metrics_pod(w, t, "127.0.0.%d" % (3 + i)) for i, t in enumerate([
        "<html><body>hello</body></html>", "vllm:num_requests_running{engine=\"0\" 3\n", "vllm:num_requests_running NaN\nvllm:num_requests_waiting -5\n",
        "\x00\xff" * 1000, "x" * 100000, ""])]
    good = metrics_pod(w, METRICS % (1, 0, 0.1), "127.0.0.20")
    g = w.gateway(pods + [good], pool=ROUND)
    until(lambda: g.pod_state(good)["running"] == 1, "the good one is read")
    time.sleep(0.3)
    for p in pods:
        s = g.pod_state(p)
        need(not s["running"] and (s["engine_waiting"] or 0) >= 0 and s["state"] == "up", "%s" % s)
    need(g.alive(), "the gateway has ended")
    need(len(served_by(g, 30)) == 7, "not all of them serve")


def test_series_of_all_ranks_are_added(w):
    two = ["vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 9.0", "vllm:num_requests_waiting{engine=\"1\",model_name=\"m\"} 3.0",
           "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 4.0", "vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 0.0",
           "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.91", "vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"m\"} 0.05"]
    a = metrics_pod(w, "\n".join(two) + "\n", "127.0.0.3")
    b = metrics_pod(w, "\n".join(reversed(two)) + "\n", "127.0.0.4")
    g = w.gateway([a, b])
    for p in (a, b):
        s = until(lambda: g.pod_state(p)["running"] == 4 and g.pod_state(p), "four run")
        need(s["engine_waiting"] == 12 and s["kv_usage"] == 0.91, "%s" % s)


def test_adapters_that_run_and_wait_are_shown(w):
    s = w.sim("--lora-modules", "sql=/a/sql", "food=/a/food", "--max-loras", "1", "--inter-token-latency", "20ms")
    g = w.gateway([s])
    until(lambda: g.pod_state(s).get("max_adapters") == 1, "they are read")
    need(g.pod_state(s)["running_adapters"] == [] and set(g.pod_state(s)["models"]) >= {"sql", "food"}, "%s" % g.pod_state(s))

    def run(model):
        g.post({"model": model, "prompt": "x", "max_tokens": 60, "ignore_eos": True})
    threads = [threading.Thread(target=run, args=(m,)) for m in ("sql", "food")]
    for t in threads:
        t.start()
        time.sleep(0.2)
    until(lambda: g.pod_state(s)["running_adapters"] == ["sql"] and g.pod_state(s)["waiting_adapters"] == ["food"], "one runs, one waits")
    for t in threads:
        t.join()
    until(lambda: g.pod_state(s)["running_adapters"] == [], "none runs")


def test_plain_triton_tells_what_waits(w):
    with open(os.path.join(lib.TOP, "selftests/data/metrics/triton_metrics.txt")) as f:
        pod = metrics_pod(w, f.read())
    g = w.gateway([pod])
    s = until(lambda: g.pod_state(pod)["engine"] == "triton" and g.pod_state(pod), "it is known")
    need(s["engine_waiting"] == 5 and s["running"] is None and s["last_error"] == "", "%s" % s)


# A mount namespace too: /etc/resolv.conf is replaced in it.
if os.geteuid() == 0 and not os.environ.get("KVS_E2E_NS"):
    os.environ["KVS_E2E_NS"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable] + sys.argv)
lib.main(globals())
