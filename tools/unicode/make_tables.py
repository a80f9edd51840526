#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes user/model/unicode_data.c: what the regular expressions and the NFC of the PyPI package `tokenizers` know of
Unicode. Both have tables of their own, of different ages, so the package itself is asked and no table of Unicode's:

    pip install tokenizers==0.23.3 && tools/unicode/make_tables.py > user/model/unicode_data.c

Python's unicodedata only proposes combining classes; each is put to the package, which may know the character as none.
"""
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CLASSES = [("L", r"\p{L}"), ("N", r"\p{N}"), ("M", r"\p{M}"), ("P", r"\p{P}"), ("S", r"\p{S}"), ("SPACE", r"\s"),
           ("UPPER", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"), ("LOWER", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]")]
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def members(pattern):
    """Code points that match, found by splitting a text of all of them."""
    found = set()
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    for at in range(0, len(SCALARS), 4096):
        text = "".join(map(chr, SCALARS[at:at + 4096]))
        for piece, _ in split.pre_tokenize_str(text):
            found.update(map(ord, piece))
    return found


def runs(value):
    """(first code point, value) wherever the value changes."""
    out, last = [], 0
    for c in range(0x110000):
        if value.get(c, 0) != last:
            last = value.get(c, 0)
            out.append((c, last))
    return out


def class_runs():
    value = {}
    for bit, (_, pattern) in enumerate(CLASSES):
        for c in members(pattern):
            value[c] = value.get(c, 0) | 1 << bit
    return runs(value)


NFC, NFD = normalizers.NFC(), normalizers.NFD()


def combining(c):
    """Its combining class, if the package puts it where that belongs: behind U+0334 (1), before U+0345 (240)."""
    k = unicodedata.combining(chr(c))
    if k == 0:
        return 0
    if k > 1 and NFD.normalize_str("a" + chr(c) + "\u0334") != NFD.normalize_str("a\u0334" + chr(c)):
        return 0
    if k < 240 and NFD.normalize_str("a\u0345" + chr(c)) != NFD.normalize_str("a" + chr(c) + "\u0345"):
        return 0
    return k


def decompositions():
    """(c, a, b, composes): c is a + b, or a alone (b 0); in one step, as composition needs it."""
    out = []
    for c in SCALARS:
        if 0xAC00 <= c < 0xD7A4 or NFD.normalize_str(chr(c)) == chr(c):
            continue
        parts = [int(x, 16) for x in unicodedata.decomposition(chr(c)).split()]
        full = NFD.normalize_str("".join(map(chr, parts)))
        if full != NFD.normalize_str(chr(c)) or len(parts) > 2:
            sys.exit(f"U+{c:04X}: this Python's Unicode differs from the package's")
        a, b = parts + [0] * (2 - len(parts))
        out.append((c, a, b, int(b != 0 and NFC.normalize_str(chr(a) + chr(b)) == chr(c))))
    return out


def rows(name, ctype, cells):
    print(f"\nconst {ctype} {name}[] = {{")
    line = "\t"
    for cell in cells:
        if len(line.expandtabs(8)) + len(cell) > 118:
            print(line.rstrip())
            line = "\t"
        line += cell + " "
    print(line.rstrip() + "\n};")
    print(f"const unsigned {name}_n = sizeof({name}) / sizeof({name}[0]);")


def main():
    ccc = {c: combining(c) for c in SCALARS}
    print("/* SPDX-License-Identifier: Apache-2.0\n"
          f" * Made by tools/unicode/make_tables.py from tokenizers {tokenizers.__version__}; not to be edited. */\n"
          '#include "model/unicode.h"\n\n/* clang-format off */')
    rows("unicode_class_runs", "uint32_t", [f"0x{c << 8 | v:x}," for c, v in class_runs()])
    rows("unicode_combining_runs", "uint32_t", [f"0x{c << 8 | v:x}," for c, v in runs(ccc)])
    rows("unicode_decompositions", "struct decomposition",
         [f"{{0x{c:x},0x{a:x},0x{b:x},{k}}}," for c, a, b, k in decompositions()])


main()
