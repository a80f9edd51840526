#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Format, clang-tidy, shellcheck, commit messages. A tool that is not installed is named and left out.
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=0

tool()
{
	local t

	for t in "$1-19" "$1-18" "$1"; do
		command -v "$t" >/dev/null && { echo "$t"; return; }
	done
	echo "lint: no $1 here: left out (make deps)" >&2
	return 1
}

fail()
{
	echo "lint: $1"
	bad=1
}

mapfile -t sources < <(git ls-files 'user/*.[ch]' 'tools/*.[ch]' 'selftests/*.[ch]' 'bpf/*.[ch]' 'include/*.h')
mapfile -t units < <(git ls-files 'user/*.c' 'tools/*.c')

if f=$(tool clang-format); then
	"$f" --dry-run -Werror "${sources[@]}" || fail "format: run $f -i on the files above"
fi
for s in "${sources[@]}"; do
	head -n 2 "$s" | grep -q SPDX-License-Identifier || fail "$s: no SPDX-License-Identifier line"
	[ "$(wc -l <"$s")" -le 900 ] || fail "$s: more than 900 lines"
done
if t=$(tool clang-tidy); then
	make -s compile_commands.json
	printf '%s\n' "${units[@]}" | xargs -P 2 -n 4 "$t" -p . --quiet 2>/dev/null || fail "clang-tidy"
fi
if command -v shellcheck >/dev/null; then
	git ls-files | while read -r s; do head -c 64 "$s" | head -n 1 | grep -aqE '^#!.*(ba)?sh$' && echo "$s"; done |
		xargs -r shellcheck || fail "shellcheck"
else
	echo "lint: no shellcheck here: left out (make deps)" >&2
fi
# SINCE=REF: only the commits after it.
while read -r h; do
	subject=$(git log -1 --format=%s "$h")
	[[ $subject =~ ^[a-z0-9/_-]+(,\ [a-z0-9/_-]+)*:\ [^\ ] ]] || fail "commit ${h:0:10}: '$subject' is not of the form 'module: what changed'"
	[ ${#subject} -le 66 ] || fail "commit ${h:0:10}: subject of ${#subject} characters, at most 66"
	[ -n "$(git log -1 --format=%b "$h")" ] || fail "commit ${h:0:10}: no body"
done < <(git rev-list --no-merges ${SINCE:+"$SINCE.."}HEAD)
exit $bad
