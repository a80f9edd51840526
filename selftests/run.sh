#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs suites and counts their cases: run.sh [unit] [bpf] [e2e] [fuzz]. `make check` calls it.
#
# A program is run alone, with a time limit. How it tells its cases:
#   C tests      cmocka's own lines; the reason of a skip is a line "SKIP: why" before it
#   e2e          "ok NAME", "not ok NAME - why", "skip NAME - why" on stdout; exit 0, 1, or 77 when all of it is skipped,
#                with the reason as the last line
#   fuzz         one case per fuzzer: its whole corpus
# A line "NOTE: text" is shown in any case: a figure worth seeing.
# A program that ends badly without naming a failed case is one failed case. Output is shown for what failed (V=1: all).
# Exit 0 only if nothing failed. The last line is the sum.
set -u
cd "$(dirname "$0")/.." || exit 1

OUT=${OUT:-.output}
SAN=$OUT/san-${CHECK_SAN:-address-undefined}
passed=0 failed=0 skipped=0
log=$(mktemp) && cases=$(mktemp) || exit 1
trap 'rm -f "$log" "$cases"' EXIT

# cmocka's output → "ok|not ok|skip NAME[ - why]". The summary at the end repeats the failures: it is left out.
cmocka_cases()
{
	sed -e 's/.*\r//' -e 's/\x1b\[[0-9;]*[A-Za-z]//g' "$1" | awk '
	/^SKIP: /                         { why = substr($0, 7) }
	/^\[=+\].*Running/                { on = 1 }
	/^\[=+\].*test\(s\) run/          { on = 0 }
	!on                               { next }
	/^\[ RUN      \] /                { run = $NF; why = "" }
	/^\[       OK \] /                { print "ok " $NF; run = "" }
	/^\[  FAILED  \] /                { if (run != "") print "not ok " run; run = "" }
	/^\[  ERROR   \] --- / && run=="" { print "not ok group fixture" }
	/^\[  SKIPPED \] /                { print "skip " $NF " - " (why == "" ? "no reason given" : why); run = "" }
	END                               { if (run != "") print "not ok " run " - the program ended in it" }'
}

# run NAME FORMAT LIMIT COMMAND…: one program.
run()
{
	local name=$1 format=$2 limit=$3 rc ok bad skip line
	shift 3

	{ timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null; } 2>/dev/null
	rc=$?
	case $format in
	cmocka) cmocka_cases "$log" >"$cases" ;;
	lines) grep -aE '^(ok|not ok|skip) ' "$log" >"$cases" ;;
	whole) : >"$cases" && [ $rc -eq 0 ] && echo "ok $name" >"$cases" ;;
	esac
	if [ $rc -eq 77 ]; then
		grep -aq '^skip ' "$cases" || echo "skip $name - $(tail -n 1 "$log")" >>"$cases"
	elif [ $rc -eq 124 ]; then
		echo "not ok $name - not finished after $limit s" >>"$cases"
	elif [ $rc -ne 0 ] && ! grep -aq '^not ok ' "$cases"; then
		echo "not ok $name - exit status $rc" >>"$cases"
	elif [ ! -s "$cases" ]; then
		echo "not ok $name - it ran no case" >>"$cases"
	fi
	ok=$(grep -ac '^ok ' "$cases") bad=$(grep -ac '^not ok ' "$cases") skip=$(grep -ac '^skip ' "$cases")
	passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
	if [ "$bad" -gt 0 ] || [ -n "${V:-}" ]; then
		echo "--- $name"
		cat "$log"
	fi
	grep -a '^NOTE: ' "$log" | sed "s/^NOTE: /$name: /"
	while IFS= read -r line; do
		case $line in
		"not ok "*) echo "FAILED  $name: ${line#not ok }" ;;
		"skip "*) echo "SKIPPED $name: ${line#skip }" ;;
		esac
	done <"$cases"
}

suite()
{
	printf '%-5s %d passed, %d failed, %d skipped (%d s)\n' "$1:" $((passed - p0)) $((failed - f0)) \
		$((skipped - s0)) $((SECONDS - t0))
}

skip_suite()
{
	echo "SKIPPED $1: $2"
	skipped=$((skipped + 1))
}

# gcc 12's and clang 14's thread sanitizer cannot live with the address randomisation of newer kernels.
fixed_addresses=()
setarch -R true 2>/dev/null && fixed_addresses=(setarch -R)

suite_unit()
{
	local t

	for t in "$SAN"/unit/test_*; do
		[ -x "$t" ] && [ -e "selftests/unit/${t##*/}.c" ] && run "${t##*/}" cmocka 300 "$t"
	done
	for t in "$OUT"/san-thread/unit/test_*; do
		[ -x "$t" ] && [ -e "selftests/unit/${t##*/}.c" ] && grep -q pthread_create "selftests/unit/${t##*/}.c" &&
			run "${t##*/} (thread sanitizer)" cmocka 300 "${fixed_addresses[@]}" "$t"
	done
}

suite_bpf()
{
	local t

	if [ -n "${BPF_MISSING:-}" ]; then
		skip_suite bpf "built without BPF: missing $BPF_MISSING"
		return
	fi
	for t in "$OUT"/bpftest/test_*; do
		[ -x "$t" ] && [ -e "selftests/bpf/${t##*/}.c" ] && run "${t##*/}" cmocka 120 "$t"
	done
}

suite_e2e()
{
	local t

	for t in selftests/e2e/test_*; do
		[ -x "$t" ] && run "${t##*/}" lines 600 "$t"
	done
}

suite_fuzz()
{
	local t n

	for t in "$SAN"/fuzz/fuzz_*; do
		n=${t##*/fuzz_}
		[ -x "$t" ] && [ -e "selftests/fuzz/fuzz_$n.c" ] && run "fuzz_$n" whole 300 "$t" "selftests/fuzz/corpus/$n"
	done
}

for s in "$@"; do
	case $s in
	unit | bpf | e2e | fuzz) ;;
	*)
		echo "run.sh: unknown suite '$s'; there are unit, bpf, e2e, fuzz" >&2
		exit 2
		;;
	esac
	p0=$passed f0=$failed s0=$skipped t0=$SECONDS
	"suite_$s"
	suite "$s"
done
[ $((passed + failed + skipped)) -gt 0 ] || failed=1
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
