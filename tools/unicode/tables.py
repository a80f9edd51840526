#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes user/model/template_unicode_tables.c: what this Python's str methods know of each character.

usage: tools/unicode/tables.py > user/model/template_unicode_tables.c && clang-format -i …

A record holds flags and the distances to the upper, lower, title and folded character; where a case is several
characters, the distance's place says where they are in a list of sequences. Runs of characters share a record."""
import sys, unicodedata

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


def main():
    records, several, starts, runs = {}, [], {}, []

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
            runs.append(cp << 11 | records.setdefault(rec, len(records)))
            last = rec
    assert len(records) < 1 << 11
    out = sys.stdout.write
    out("/* SPDX-License-Identifier: Apache-2.0\n * Made by tools/unicode/tables.py from Unicode %s; do not edit.\n */\n" % unicodedata.unidata_version)
    out('#include "model/template_unicode.h"\n\n')

    def table(decl, values, per):
        out("%s = {\n" % decl)
        for i in range(0, len(values), per):
            out("\t" + ", ".join(values[i:i + per]) + ",\n")
        out("};\n\n")

    table("const struct uni_record uni_records[]", ["{ %d, { %d, %d, %d, %d } }" % r for r in records], 3)
    table("const uint32_t uni_runs[]", ["0x%x" % r for r in runs], 9)
    out("const unsigned uni_nruns = %d;\n\n" % len(runs))
    table("const uint32_t uni_several[]", ["0x%x" % i for i in several], 12)
    print("%d records, %d runs, %d of sequences" % (len(records), len(runs), len(several)), file=sys.stderr)


main()
