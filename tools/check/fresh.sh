#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The README's promise, tried on a machine that has nothing: fresh.sh [bookworm|trixie] [FOLDER] [COMMAND…]
#
# Makes a minimal Debian in FOLDER (default /var/tmp/kvsteer-fresh-SUITE) with git and make, clones the committed state of
# this repository into it and runs the README's two commands there, or COMMAND. Packages come from where this host's apt
# takes them. KEEP=1 leaves the folder, and a folder that is there is used again.
#
# All mounts are made in a mount namespace, and all processes run in a PID namespace, of their own: both end with this
# script, however it ends.
set -eu
repo=$(cd "$(dirname "$0")/../.." && pwd)
suite=${1:-bookworm}
root=${2:-/var/tmp/kvsteer-fresh-$suite}
shift $(($# < 2 ? $# : 2))

if [ "$(id -u)" != 0 ]; then
	echo "fresh.sh: needs root for debootstrap and chroot" >&2
	exit 77
fi
"$repo/tools/check/deps.sh" fresh

# The mirror of the host's first Debian source that is not the security archive, in either format of sources.
sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
mirror=$(echo "$sources" | grep -v '^#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ')
security=$(echo "$sources" | grep -v '^#' | grep -oE 'https?://[^ ]+/debian-security/?( |$)' | head -n 1 | tr -d ' ')
mirror=${mirror:-http://deb.debian.org/debian}

if [ ! -e "$root/etc/debian_version" ]; then
	echo "fresh.sh: making a minimal $suite in $root"
	mkdir -p "$root"
	debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >"$root.log" 2>&1 || {
		tail -n 20 "$root.log" >&2
		exit 1
	}
	rm -f "$root.log"
	{
		echo "deb $mirror $suite main"
		echo "deb $mirror $suite-updates main"
		echo "deb ${security:-http://deb.debian.org/debian-security} $suite-security main"
	} >"$root/etc/apt/sources.list"
	# Proxies and the like, but nothing that names files of this host.
	grep -lE '^ *Acquire::' /etc/apt/apt.conf.d/* /etc/apt/apt.conf 2>/dev/null |
		xargs -r cp -t "$root/etc/apt/apt.conf.d" || true
	for f in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
		[ ! -e "$f" ] || cp -L "$f" "$root$f"
	done
fi
rm -rf "$root/root/kvsteer"
git clone -q --no-hardlinks "$repo" "$root/root/kvsteer"
git -C "$root/root/kvsteer" remote remove origin
git -C "$root/root/kvsteer" log -1 --format='fresh.sh: trying %h (%s)'

command="make demo && make check"
[ $# -eq 0 ] || command="$*"
rc=0
# shellcheck disable=SC2016 # expanded by the shell inside
unshare --mount --pid --fork --kill-child --propagation private bash -euc '
	root=$1
	mount --bind "$root" "$root" # so that / is a mount there, as it is on a machine
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/run"
	mount -t bpf bpf "$root/sys/fs/bpf" 2>/dev/null || true
	exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
		${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
		DEBIAN_FRONTEND=noninteractive bash -euc "
			command -v git make >/dev/null || {
				apt-get -q update >/dev/null
				apt-get -q -y --no-install-recommends install git make >/dev/null
			}
			cd /root/kvsteer
			$2"
' - "$root" "$command" </dev/null || rc=$?
[ -n "${KEEP:-}" ] || rm -rf --one-file-system "$root"
exit $rc
