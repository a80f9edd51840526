#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What it takes to make a chat's text: kvsteer, and jinja2 as engines call it, on the same requests and templates.

    bench_render.py [TEMPLATE.jinja]…        default: chatml-tools.jinja of the selftests

Both begin with the body's bytes and end with the text: JSON, the engine's rules, the template. A line of Markdown each."""
import json
import os
import re
import subprocess
import sys
import tempfile
import time

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
sys.path.insert(0, os.path.join(TOP, "selftests/e2e"))
import template_reference as reference

UNITS = {"user": "The quick brown fox jumps over the lazy dog, and then it sleeps again.\n",
         "assistant": "I look at \"it\" — one moment, please, while the file is read.\n\n",
         "tool": "\tif (x == \"abc\")\n\t\treturn f(x, y, z + 1);\n"}
CONFIG = {"bos_token": "<s>", "eos_token": "</s>"}


def agent(size, messages):
    """An agent's turn: tools, a system text, then questions, calls and their results; about <size> bytes."""
    tools = [{"type": "function", "function": {"name": "tool_%d" % i, "description": "Does what tool %d does." % i, "parameters": {
        "type": "object", "properties": {"path": {"type": "string"}, "limit": {"type": "integer", "default": 10}}}}} for i in range(20)]
    out = [{"role": "system", "content": "You are careful."}]
    for i in range(1, messages):
        role = ("tool", "user", "assistant")[i % 3]
        m = {"role": role, "content": (UNITS[role] * (size // messages // len(UNITS[role]) + 1))[:size // messages]}
        if role == "assistant":
            m["tool_calls"] = [{"id": "c", "type": "function", "function": {"name": "tool_1", "arguments": "{\"path\": \"/etc/x\", \"limit\": 5}"}}]
        if role == "tool":
            m["tool_call_id"] = "c"
        out.append(m)
    return json.dumps({"model": "m", "stream": True, "tools": tools, "messages": out})


def main():
    paths = sys.argv[1:] or [os.path.join(TOP, "selftests/data/templates/chatml-tools.jinja")]
    print("| template | JSON | text | kvsteer, ms (least, most) | jinja2, ms (least, most) | times |\n|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as d:
        config, body = os.path.join(d, "config"), os.path.join(d, "body")
        with open(config, "w") as f:
            json.dump(CONFIG, f)
        for path in paths:
            with open(path, encoding="utf-8", newline="") as f:
                source = f.read()
            for size, messages in (100000, 20), (1000000, 40), (1000000, 1000):
                text = agent(size, messages)
                with open(body, "w") as f:
                    f.write(text)
                r = subprocess.run([os.path.join(TOP, ".output/bin/kvsteer"), "model", "render", "--template", path, "--tokenizer-config", config, "--repeat",
                                    "200", "--time", body], capture_output=True, env={**os.environ, "KVS_FAKE_TIME": "1772352000"}, check=True)
                mid, low, high = map(float, re.findall(r"([\d.]+) ms", r.stderr.decode()))
                times, want = [], None
                for _ in range(15):
                    began = time.perf_counter()
                    want = reference.render(source, json.loads(text), CONFIG, 1772352000)
                    times.append((time.perf_counter() - began) * 1e3)
                assert want.encode() == r.stdout, "the texts differ"
                times.sort()
                print("| %s | %d | %d | %.3f (%.3f–%.3f) | %.1f (%.1f–%.1f) | %.0f |" % (
                    os.path.basename(path), len(text), len(want.encode()), mid, low, high, times[7], times[0], times[-1], times[7] / mid), flush=True)


if __name__ == "__main__":
    main()
