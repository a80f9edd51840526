#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing of tools/check/packages.txt: deps.sh [dev|fresh] (the build group always).
# Says nothing and takes no time when all is there. Without root it names what is missing and goes on: the build itself
# says what it cannot do without.
set -u
cd "$(dirname "$0")" || exit 1

command -v dpkg-query >/dev/null || exit 0
groups="build ${*:-}"

installed()
{
	dpkg-query -W -f '${Status}' "${1%%:*}" 2>/dev/null | grep -q '^install ok installed$' &&
		{ [ "$1" = "${1%%:*}" ] || [ -e "${1#*:}" ]; }
}

available()
{
	apt-cache policy "${1%%:*}" 2>/dev/null | grep -q '^  Candidate: [^(]'
}

# The lines of which no alternative is installed.
missing_lines()
{
	local group names n

	while read -r group names; do
		case " $groups " in *" $group "*) ;; *) continue ;; esac
		for n in ${names//|/ }; do
			installed "$n" && continue 2
		done
		echo "$names"
	done < <(grep -v '^#' packages.txt)
}

missing=$(missing_lines)
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "kvsteer: missing packages: $(echo "$missing" | cut -d'|' -f1 | tr '\n' ' ')(run as root: make deps)" >&2
	exit 0
fi

export DEBIAN_FRONTEND=noninteractive
first=$(echo "$missing" | head -n 1)
if ! available "${first%%|*}"; then
	echo "kvsteer: reading the package lists"
	apt-get -q update >/dev/null || { echo "kvsteer: apt-get update failed" >&2; exit 1; }
fi
packages=
for names in $missing; do
	found=
	for n in ${names//|/ }; do
		if available "$n"; then
			found=${n%%:*}
			break
		fi
	done
	[ -n "$found" ] || echo "kvsteer: no package of ${names//|/, } is to be had here" >&2
	packages="$packages $found"
done
echo "kvsteer: installing$packages"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list of names
install="apt-get -q -y --no-install-recommends install $packages"
if ! $install >"$log" 2>&1 && ! { apt-get -q update >>"$log" 2>&1 && $install >>"$log" 2>&1; }; then
	tail -n 20 "$log" >&2
	echo "kvsteer: $install failed" >&2
	exit 1
fi
