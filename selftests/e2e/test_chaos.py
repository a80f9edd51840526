#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A slice of `make soak`, which chaos.py is: each case is one run of it, in namespaces of its own."""
import os
import subprocess
import sys

import lib


def chaos(*args):
    env = {k: v for k, v in os.environ.items() if k != "KVS_E2E_NS"}
    r = subprocess.run([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "chaos.py"), *args], env=env,
                       capture_output=True, text=True)
    lines = r.stdout.splitlines() or [""]
    for l in lines:
        if l.startswith("NOTE: "):
            print(l, flush=True)
    if r.returncode == 77:
        raise lib.Skip(lines[-1].partition(" - ")[2])
    if r.returncode:
        sys.stderr.write(r.stderr[-20000:])
        raise lib.Fail(lines[-1].partition(" - ")[2] or "chaos.py ends with %d" % r.returncode)


def test_no_answer_is_wrong_and_nothing_is_left_whatever_happens(w):
    chaos("--seconds", "36", "--streams", "24")


def test_kill_9_under_200_streams_breaks_none(w):
    chaos("--kill-under", "200")


lib.main(globals())
