#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`kvsteer model render` against jinja2: the same bytes, or both fail. A refusal where jinja2 has a text is rare, and other
text is never right.

KVS_SEED=N KVS_CASES=N: other random templates, or more of them. KVS_TEMPLATES=DIR: these instead of the public ones."""
import collections
import concurrent.futures
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile

import lib
from lib import Skip, need

try:
    import template_reference as reference
except ImportError as e:
    print("no python3-jinja2 here: %s" % e)
    sys.exit(77)
import template_grammar

KVSTEER = os.path.join(lib.BIN, "kvsteer")
DATA = os.path.join(lib.TOP, "selftests/data/templates")
NOW = 1772352000  # 2026-03-01 08:00 UTC
CONFIGS = {
    "plain": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "model_max_length": 10 ** 30},
    "added": {"bos_token": {"__type": "AddedToken", "content": "<|begin▁of▁text|>"}, "eos_token": {"content": "<|end|>"}, "pad_token": None},
    "bare": {"bos_token": None, "eos_token": "<|im_end|>"},
}
ADDRESS = re.compile(rb" at 0x[0-9a-f]+>|<class '|<function |<TemplateReference")


def expand(x):
    if isinstance(x, dict):
        return x["$repeat"][0] * x["$repeat"][1] if x.keys() == {"$repeat"} else {k: expand(v) for k, v in x.items()}
    return [expand(v) for v in x] if isinstance(x, list) else x


def conversations():
    with open(os.path.join(DATA, "conversations.json")) as f:
        out = json.load(f)
    for c in out:
        c["text"] = json.dumps(expand(c["request"]), ensure_ascii=c.get("ascii", False))
    return out


def expected(source, text, config, now):
    try:
        return reference.render(source, json.loads(text), config, now).encode()
    except (reference.Refused, UnicodeEncodeError):
        return None


class Judge:
    """What was seen, by kind: equal, refused or failed where jinja2 has a text, and what must not be."""

    def __init__(self, folder):
        self.folder, self.seen, self.wrong = folder, collections.Counter(), []
        self.texts = 0

    def file(self, name, data):
        path = os.path.join(self.folder, re.sub(r"[^\w.-]", "_", name))
        with open(path, "wb") as f:
            f.write(data.encode())
        return path

    def one(self, name, template, config, request, now, want, api="chat"):
        self.texts += want is not None
        r = subprocess.run([KVSTEER, "model", "render", "--template", template, "--tokenizer-config", config, "--api", api, request],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20, env={**os.environ, "KVS_FAKE_TIME": str(now)})
        if r.returncode == 0 and r.stdout == want or r.returncode in (3, 4) and (want is None or ADDRESS.search(want)) and r.stderr:
            self.seen["equal"] += 1
        elif r.returncode in (3, 4) and r.stderr:
            self.seen["refused"] += 1
            if os.environ.get("V"):
                print("# %s: %s" % (name, r.stderr.decode().strip()))
        else:
            at = next((i for i, (a, b) in enumerate(zip(want or b"", r.stdout)) if a != b), 0)
            self.wrong.append("%s: exit %d, at byte %d: %r, not %r" % (name, r.returncode, at, r.stdout[max(0, at - 40):at + 60],
                                                                      want and want[max(0, at - 40):at + 60]))

    def verdict(self, share):
        total = sum(self.seen.values()) + len(self.wrong)
        print("NOTE: %d renderings, %d of them with a text; %d equal, %d refused where jinja2 has a text" %
              (total, self.texts, self.seen["equal"], self.seen["refused"]))
        need(not self.wrong, "%d of %d are wrong; %s" % (len(self.wrong), total, " | ".join(self.wrong[:3])))
        need(total and self.seen["refused"] <= share * total, "%d of %d are refused" % (self.seen["refused"], total))


def compare(templates):
    convs = conversations()
    with tempfile.TemporaryDirectory(prefix="kvs-templates-") as d, concurrent.futures.ThreadPoolExecutor(2) as pool:
        judge = Judge(d)
        configs = {n: judge.file("config-" + n, json.dumps(c)) for n, c in CONFIGS.items()}
        requests = {c["name"]: judge.file("request-" + c["name"], c["text"]) for c in convs}
        runs = []
        for name, source in templates.items():
            path = judge.file("template-" + name, source)
            for c in convs:
                config, now = c.get("config", "plain"), c.get("time", NOW)
                want = expected(source, c["text"], CONFIGS[config], now)
                runs.append(pool.submit(judge.one, name + "/" + c["name"], path, configs[config], requests[c["name"]], now, want))
        for r in runs:
            r.result()
    judge.verdict(0.01)


def own(folder):
    out = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as f:
            out[os.path.basename(path)] = f.read()
    return out


def test_templates_in_the_styles_of_the_families_render_as_in_jinja2(w):
    compare(own(DATA))


DUMP = ("{# content #}{{ messages }}|{{ tools }}|{{ tools is none }}{{ add_generation_prompt }}{{ documents }}|{{ reasoning_effort }}{{ enable_thinking }}"
        "{{ bos_token }}{{ a is defined }}{{ b is defined }}{{ x }}{{ c }}")
DUMPS = {
    "dump": DUMP,
    "dump-parts": "{% if zero %}{% for m in messages %}{% for p in m.content %}{% endfor %}{% endfor %}{% endif %}" + DUMP,
    "dump-developer": DUMP + "{% if messages[0].role == 'developer' %}!{% endif %}",
    "system-first": "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('no') }}{% endif %}{% endfor %}" + DUMP,
    "dated": "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}" + DUMP,
    "dated-always": "{{ strftime_now('%Y') }}" + DUMP,
    "generation": DUMP + "{% generation %}{{ messages[0] }}{% endgeneration %}",
    "no-effort": "{{ messages }}{{ tools }}",
    "late-effort": "{{ reasoning_effort if messages[-1].content != 'Hi' }}{{ messages }}",
    "efforts": "{% if reasoning_effort == 'none' %}{{ raise_exception('never') }}{% endif %}" + DUMP,
}


def test_requests_of_other_apis_render_as_vllm_makes_chats_of_them(w):
    """apis.json: what vLLM 0.32's own code made of each (make_apis.py beside it)."""
    with open(os.path.join(DATA, "apis.json")) as f:
        cases = json.load(f)
    templates = {**DUMPS, **own(DATA)}
    with tempfile.TemporaryDirectory(prefix="kvs-apis-") as d, concurrent.futures.ThreadPoolExecutor(2) as pool:
        judge = Judge(d)
        config = judge.file("config", json.dumps(CONFIGS["plain"]))
        bodies = {c["api"] + c["name"]: judge.file("%(api)s-%(name)s" % c, json.dumps(c["request"])) for c in cases}
        runs = []
        for name, source in templates.items():
            path = judge.file("template-" + name, source)
            for c in cases:
                try:
                    want = reference.render_recorded(source, c, CONFIGS["plain"], NOW).encode()
                except reference.Refused:
                    want = None
                if want is None and c.get("refused", "").split(":")[0] in ("ValidationError", "media"):
                    continue  # the engine says 400, and what we would have rendered is nobody's; of media there is more than the text
                runs.append(pool.submit(judge.one, "%s/%s/%s" % (name, c["api"], c["name"]), path, config, bodies[c["api"] + c["name"]], NOW, want,
                                        c["api"]))
        for r in runs:
            r.result()
    judge.verdict(0.01)


def test_random_templates_render_as_in_jinja2(w):
    seed, cases = int(os.environ.get("KVS_SEED", 1)), int(os.environ.get("KVS_CASES", 400))
    request = json.dumps({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": template_grammar.VARS})
    print("NOTE: seeds %d to %d (KVS_SEED, KVS_CASES)" % (seed, seed + cases - 1))
    with tempfile.TemporaryDirectory(prefix="kvs-templates-") as d, concurrent.futures.ThreadPoolExecutor(2) as pool:
        judge = Judge(d)
        config, body, runs = judge.file("config", "{}"), judge.file("request", request), []
        for s in range(seed, seed + cases):
            source = template_grammar.gen(s)
            try:
                want = reference.environment(NOW).from_string(source).render(
                    **template_grammar.VARS, messages=[{"role": "user", "content": "x"}], documents=None, add_generation_prompt=True).encode()
            except Exception:
                want = None
            runs.append(pool.submit(judge.one, "seed %d %r" % (s, source), judge.file("t%d" % s, source), config, body, NOW, want))
        for r in runs:
            r.result()
    judge.verdict(0.02)


def fetch():
    """The wheel with the public templates: kept below .output, fetched while there still is a network. A path, or why not."""
    cache = os.path.join(lib.TOP, ".output/templates")
    if not glob.glob(cache + "/trl-*.whl"):
        argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0", "--timeout", "10", "-d", cache, "trl"]
        r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if r.returncode != 0:
            raise Skip("the wheel trl cannot be fetched: %s" % (r.stdout.strip().splitlines() or ["pip says nothing"])[-1])
    return glob.glob(cache + "/trl-*.whl")[0]


def public():
    if os.environ.get("KVS_TEMPLATES"):
        return own(os.environ["KVS_TEMPLATES"])
    with zipfile.ZipFile(fetch()) as z:
        return {os.path.basename(n): z.read(n).decode() for n in sorted(z.namelist()) if n.endswith(".jinja")}


def test_public_templates_render_as_in_jinja2(w):
    if isinstance(PUBLIC, Skip):
        raise PUBLIC
    compare(PUBLIC)


try:
    PUBLIC = public()
except Skip as e:
    PUBLIC = e
lib.main(globals())
