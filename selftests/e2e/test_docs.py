#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the programs offer is in their man pages, and what the documents point at is there."""
import os
import re
import subprocess

import lib
from lib import need


def read(path):
    with open(os.path.join(lib.TOP, path)) as f:
        return f.read()


def out(*argv):
    return subprocess.run([os.path.join(lib.BIN, argv[0]), *argv[1:]], capture_output=True, text=True, check=True).stdout


def options(text):
    """Long options at the beginning of lines of a help text, with short ones before them or not."""
    return re.findall(r"^ +(?:-\w, |  *)?(--[\w-]+)", text, re.M)


def test_each_command_has_its_paragraph(w):
    man = read("docs/man/kvsteer.8.rst")
    verbs = re.findall(r"^  ([a-z]+(?: [a-z-]+)?)(?= |$)", out("kvsteer", "--help").split("Options:")[0], re.M)
    need(len(verbs) > 20, "only %d commands were found" % len(verbs))
    for verb in verbs:
        need("**%s**" % verb in man, "\"kvsteer %s\" is not in kvsteer.8.rst" % verb)


def test_each_option_has_its_paragraph(w):
    for prog, page in (("kvsteer", "docs/man/kvsteer.8.rst"), ("kvsteerd", "docs/man/kvsteerd.8.rst")):
        man = re.findall(r"^(-.*)$", read(page), re.M)
        found = options(out(prog, "--help").split("\nConfiguration:")[0])
        need(len(found) > 8, "only %d options of %s were found" % (len(found), prog))
        for o in found:
            need(any(re.search(r"%s\b" % o, line) for line in man), "%s %s is not in %s" % (prog, o, page))


def test_the_tools_help_is_in_their_pages(w):
    for prog in ("kvsim", "kvload"):
        now = "".join(line.rstrip() + "\n" for line in out(prog, "--help").splitlines())
        need(now == read("docs/man/%s.help.inc" % prog), "docs/man/%s.help.inc is old: %s --help | sed 's/ *$//' >it" % (prog, prog))


def test_links_lead_somewhere(w):
    docs = subprocess.run(["git", "ls-files", "*.md"], cwd=lib.TOP, capture_output=True, text=True).stdout.split()
    for doc in docs or ["README.md", "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(doc)):
            at = os.path.join(lib.TOP, os.path.dirname(doc), link)
            need(os.path.exists(at), "%s points at %s, which is not there" % (doc, link))


def test_the_tour_names_what_there_is(w):
    named = re.findall(r"`((?:user|bpf|include|tools|selftests|docs)/[\w./-]*)`", read("README.md"))
    for path in named:
        need(os.path.exists(os.path.join(lib.TOP, path)), "README.md names %s" % path)
    for module in sorted(os.listdir(os.path.join(lib.TOP, "user"))):
        need("user/%s/" % module in named, "the tour has no line for user/%s/" % module)
        need(module in ("agent", "cli", "base") or os.path.exists(os.path.join(lib.TOP, "docs/internals/%s.md" % module)),
             "there is no docs/internals/%s.md" % module)


lib.main(globals())
