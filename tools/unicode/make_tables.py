#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what is known of Unicode here, by asking those whose opinion counts:

    pip install tokenizers==0.23.3 && tools/unicode/make_tables.py user/model      (with Python 3.11)

unicode_data.c     the regular expressions and the NFC of the PyPI package `tokenizers`. Both have tables of their own, of
                   different ages, so the package itself is asked and no table of Unicode's. Python's unicodedata only
                   proposes combining classes; each is put to the package, which may know the character as none.
unicode_python.c   the str methods of this Python, as templates see them. A record holds flags and the distances to the
                   upper, lower, title and folded character; where a case is several characters, the distance's place
                   says where they are in a list of sequences. Runs of characters share a record.
"""
import os
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


def rows(out, name, ctype, cells):
    print(f"\nconst {ctype} {name}[] = {{", file=out)
    line = "\t"
    for cell in cells:
        if len(line.expandtabs(8)) + len(cell) > 118:
            print(line.rstrip(), file=out)
            line = "\t"
        line += cell + " "
    print(line.rstrip() + "\n};", file=out)
    print(f"const unsigned {name}_n = sizeof({name}) / sizeof({name}[0]);", file=out)


def begin(name, source):
    out = open(os.path.join(sys.argv[1], name), "w")
    print("/* SPDX-License-Identifier: Apache-2.0\n"
          f" * Made by tools/unicode/make_tables.py from {source}; not to be edited. */\n"
          '#include "model/unicode.h"\n\n/* clang-format off */', file=out)
    return out


# --- Python's own ---

SPACE, PRINTABLE, UPPER, LOWER, TITLE, ALPHA, DECIMAL, DIGIT, NUMERIC, IGNORABLE = (1 << i for i in range(10))
SEVERAL = 1 << 24


def ignorable(c):
    """Case_Ignorable is not to be asked for; a final sigma looks back over such characters."""
    if c.islower() or c.isupper() or c.istitle():
        return (c + "\u03a3").lower()[-1] == "\u03c3"
    return ("A\u03a3" + c + "A").lower()[1] == "\u03c3"


def flags(c):
    return (SPACE * c.isspace() | PRINTABLE * c.isprintable() | UPPER * c.isupper() | LOWER * c.islower() |
            TITLE * (unicodedata.category(c) == "Lt") | ALPHA * c.isalpha() | DECIMAL * c.isdecimal() |
            DIGIT * c.isdigit() | NUMERIC * c.isnumeric() | IGNORABLE * ignorable(c))


def python_records():
    """(records, runs, sequences of several characters)"""
    records, several, starts, runs_ = {}, [], {}, []

    def distance(cp, text):
        if len(text) == 1:
            return ord(text) - cp
        if text not in starts:
            starts[text] = len(several)
            several.extend([len(text), *map(ord, text)])
        return SEVERAL + starts[text]

    last = None
    for cp in range(0x110000):
        c = chr(cp)
        lower = "\u03c3" if cp == 0x3a3 else c.lower()
        rec = (0 if 0xd800 <= cp < 0xe000 else flags(c),
               *(distance(cp, text) for text in (c.upper(), lower, c.title(), c.casefold())))
        if rec != last:
            runs_.append(cp << 11 | records.setdefault(rec, len(records)))
            last = rec
    assert len(records) < 1 << 11
    return records, runs_, several


def main():
    out = begin("unicode_data.c", "tokenizers " + tokenizers.__version__)
    rows(out, "unicode_class_runs", "uint32_t", [f"0x{c << 8 | v:x}," for c, v in class_runs()])
    rows(out, "unicode_combining_runs", "uint32_t", [f"0x{c << 8 | v:x}," for c, v in runs({c: combining(c) for c in SCALARS})])
    rows(out, "unicode_decompositions", "struct decomposition",
         [f"{{0x{c:x},0x{a:x},0x{b:x},{k}}}," for c, a, b, k in decompositions()])
    out = begin("unicode_python.c", "Python's Unicode " + unicodedata.unidata_version)
    records, runs_, several = python_records()
    rows(out, "python_records", "struct python_record", ["{%d,{%d,%d,%d,%d}}," % r for r in records])
    rows(out, "python_runs", "uint32_t", [f"0x{r:x}," for r in runs_])
    rows(out, "python_several", "uint32_t", [f"0x{i:x}," for i in several])


main()
