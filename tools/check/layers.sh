#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Includes point one way: checks every #include "folder/file.h" below user/ against layers.txt, and that no private
# header (…_int.h) is used outside of its folder.
set -u
cd "$(dirname "$0")/../.." || exit 1

awk '
FNR == NR {
	sub(/#.*/, "")
	if (NF == 0)
		next
	level++
	only = 0
	for (i = 1; i <= NF; i++) {
		if ($i == "<") { only = 1; continue }
		if (only)
			allowed[$1] = allowed[$1] " " $i " "
		else
			at[$i] = level
	}
	next
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
	split(FILENAME, part, "/")
	from = part[2]
	split($0, quoted, "\"")
	n = split(quoted[2], inc, "/")
	to = inc[1]
	why = ""
	if (n == 1 || !(to in at) && to != "kvsteer")
		next # generated, or of its own folder
	if (!(from in at))
		why = "folder " from " has no line in tools/check/layers.txt"
	else if (to == from || to == "kvsteer")
		next
	else if (from in allowed && index(allowed[from], " " to " ") == 0)
		why = from " may include only" allowed[from]
	else if (at[to] >= at[from])
		why = from " stands below " to
	else if (quoted[2] ~ /_int\.h$/)
		why = quoted[2] " is private to " to
	if (why != "") {
		printf "%s:%d: includes %s: %s\n", FILENAME, FNR, quoted[2], why
		bad = 1
	}
}
END { exit bad }' tools/check/layers.txt user/*/*.[ch]
