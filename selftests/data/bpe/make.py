#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the small tokenizers beside it, one of each family, trained on this repository's own documents, and what the
package makes of some strings: NAME/tokenizer.json, NAME/vectors.json.

    pip install tokenizers==0.23.3 && selftests/data/bpe/make.py
"""
import glob
import json
import os
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(ROOT, "selftests", "real"))
import bpe  # noqa: E402

C = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LEAD = r"[^\r\n\p{L}\p{N}]?"
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def llama(n):
    return rf"{C}|{LEAD}\p{{L}}+|{n}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{TAIL}"


def o200k(c, n):
    return rf"{LEAD}{UP}*{LOW}+{c}|{LEAD}{UP}+{LOW}*{c}|{n}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{TAIL}"


DEEPSEEK = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
WORDS = ["日本語のテキスト、中文文本。", "Привет, как дела?", "שלום עולם", "한국어 텍스트 입니다", "Crème brûlée à la façon d’Élodie", "ไทย ภาษา",
         "don't I'LL you've", "int main(void)\n{\n\treturn 0;\n}\n", "12345 67 8.9", "    \n\n  x", "नमस्ते दुनिया", "👩‍👩‍👧 🎉🎉"] * 12


def texts():
    for path in sorted(glob.glob(os.path.join(ROOT, "docs", "internals", "*.md")))[:12]:
        with open(path, encoding="utf-8") as f:
            yield f.read()
    yield from WORDS


def byte_level(pattern=None, normalizer=None, behavior="isolated", invert=False, splits=()):
    t = Tokenizer(models.BPE())
    if normalizer:
        t.normalizer = normalizer
    parts = [pre_tokenizers.Split(Regex(p), behavior, invert) for p in ([pattern] if pattern else splits)]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not parts)
    t.pre_tokenizer = pre_tokenizers.Sequence(parts + [last]) if parts else last
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                       show_progress=False))
    return t


def sentencepiece(normalizer=None, pre=None):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    corpus = (piece for text in texts() for piece in text.splitlines(True))
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=800, limit_alphabet=140, max_token_length=12,
                                                      special_tokens=["<unk>", "<s>", "</s>"] + bytes_, show_progress=False))
    o = json.loads(t.to_str())
    o["added_tokens"] = o["added_tokens"][:3]
    return Tokenizer.from_str(json.dumps(o))


def bos(t, token):
    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, t.token_to_id(token))])


def add_all(t, chat):
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in chat])
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<tool_call>x", normalized=False),
                  AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
                  AddedToken("Å<norm>", normalized=True), AddedToken("two words", normalized=True)])


def unmergeable(t):
    """Some words that are tokens though no merge makes them."""
    o = json.loads(t.to_str())
    o["model"]["ignore_merges"] = True
    o["model"]["merges"] = o["model"]["merges"][:-40]
    return Tokenizer.from_str(json.dumps(o))


def main():
    made = {
        "qwen": byte_level(llama(r"\p{N}"), normalizers.NFC()),
        "llama3": unmergeable(byte_level(llama(r"\p{N}{1,3}"))),
        "o200k": byte_level(o200k(C + "?", r"\p{N}{1,3}"), behavior="removed", invert=True),
        "tekken": unmergeable(byte_level(o200k("", r"\p{N}"))),
        "deepseek": byte_level(splits=[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK]),
        "gpt2": byte_level(),
        "gemma": sentencepiece(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous")),
        "llama2": sentencepiece(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])),
        "metaspace": sentencepiece(pre=pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)),
        "metaspace-split": sentencepiece(pre=pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True)),
    }
    for name, t in made.items():
        add_all(t, ["<|begin|>", "<|im_start|>", "<|im_end|>"])
        if name in ("llama3", "tekken", "gemma", "llama2"):
            t.post_processor = bos(t, "<|begin|>")
        where = os.path.join(HERE, name)
        os.makedirs(where, exist_ok=True)
        with open(os.path.join(where, "tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(json.loads(t.to_str()), f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        t = Tokenizer.from_file(os.path.join(where, "tokenizer.json"))
        rng = random.Random(name)
        added = [a.content for a in t.get_added_tokens_decoder().values()]
        strings = ["", " ", "x", " x"] + WORDS[:12] + bpe.BITS + [bpe.fuzz(rng, added) for _ in range(120)]
        strings += ["a" * 300, "ab" * 200, " " * 150 + "x", "x  <left>  y", "<right> \n z", "a<tool_call>xy", "A\u030a<norm>two words"]
        rows = [{"text": s, "ids": t.encode(s, add_special_tokens=False).ids, "special": t.encode(s).ids} for s in strings]
        for r in rows:
            if r["special"] == r["ids"]:
                del r["special"]
        with open(os.path.join(where, "vectors.json"), "w", encoding="utf-8") as f:
            f.write("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]\n")


main()
