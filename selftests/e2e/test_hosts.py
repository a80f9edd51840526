#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pods on hosts of their own (network namespaces behind veth pairs), which vanish without a word, and come back."""
import os
import subprocess
import threading
import time

import lib
from lib import need, until


class Host:
    """A pod on a host. vanish() takes its address away: nothing answers any more, not even with a reset."""

    def __init__(self, w, net, *args):
        self.hold = w.start(["unshare", "--net", "sleep", "100"], "host")
        until(lambda: os.readlink("/proc/%d/ns/net" % self.hold.pid) != os.readlink("/proc/self/ns/net"), "a namespace")
        self.ip, self.dev, self.errors = net + ".2", "kvs-h%d" % w.port(), []
        subprocess.run(["ip", "link", "add", self.dev, "type", "veth", "peer", "name", "up0", "netns", str(self.hold.pid)], check=True)
        subprocess.run(["ip", "addr", "add", net + ".1/24", "dev", self.dev], check=True)
        subprocess.run(["ip", "link", "set", self.dev, "up"], check=True)
        w.pods.append(self)
        self.inside("ip", "link", "set", "up0", "up")
        self.come()
        self.name = self.ip + ":8000"
        self.sim = w.start(["nsenter", "--target", str(self.hold.pid), "--net", os.path.join(lib.BIN, "kvsim"), "--host", self.ip, "--model", "m", *args], "sim")

    def inside(self, *argv):
        subprocess.run(["nsenter", "--target", str(self.hold.pid), "--net", *argv], check=True)

    def vanish(self):
        self.inside("ip", "addr", "flush", "dev", "up0")

    def come(self):
        self.inside("ip", "addr", "add", self.ip + "/24", "dev", "up0")

    def close(self):
        subprocess.run(["ip", "link", "del", self.dev], stderr=subprocess.DEVNULL)

    def spec(self):
        return "{address: \"%s\"}" % self.name


def rig(w, health, *args):
    hosts = [Host(w, "10.99.%d" % i, *args) for i in (1, 2)]
    g = w.gateway(hosts, pool="scheduling: {policy: round-robin}", health=health)
    return g, hosts


def test_a_request_on_a_pooled_connection_to_a_host_that_vanished_goes_elsewhere(w):
    g, hosts = rig(w, "60s")
    for _ in range(8):
        need(g.post({"model": "m", "prompt": "x", "max_tokens": 1}).status == 200, "not served")
    hosts[0].vanish()
    for i in range(4):
        t = time.time()
        a = g.post({"model": "m", "prompt": "y" * 3000, "max_tokens": 1})
        took = time.time() - t
        need(a.status == 200 and a.headers["x-kvsteer-pod"] == hosts[1].name, "request %d: %d from %s" % (i, a.status, a.headers.get("x-kvsteer-pod")))
        need(took < 4, "request %d took %.1f s" % (i, took))
    need(g.metric("retries_total{reason=\"connect\"") >= 1, "not counted")


def test_a_slow_pod_is_not_taken_for_a_host_that_vanished(w):
    g, hosts = rig(w, "60s", "--time-to-first-token", "4s")
    for _ in range(2):
        a = g.post({"model": "m", "prompt": "z" * 3000, "max_tokens": 1})
        need(a.status == 200, "status %d" % a.status)
    need(g.metric("retries_total") == 0 and g.metric("timeouts_total") == 0, "a slow answer was taken for none")


def test_a_host_that_vanished_is_left_out_and_taken_back(w):
    g, hosts = rig(w, "200ms")
    hosts[0].vanish()
    until(lambda: g.pod_state(hosts[0])["state"] == "down", "it is seen down")
    for _ in range(4):
        need(g.post({"model": "m", "prompt": os.urandom(50).hex(), "max_tokens": 1}).headers["x-kvsteer-pod"] == hosts[1].name, "a pod that is down got a request")
    hosts[0].come()
    until(lambda: g.pod_state(hosts[0])["state"] == "up", "it is back", 10)
    until(lambda: g.post({"model": "m", "prompt": os.urandom(50).hex(), "max_tokens": 1}).headers["x-kvsteer-pod"] == hosts[0].name, "it serves again")


lib.main(globals())
