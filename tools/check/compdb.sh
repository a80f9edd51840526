#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# compile_commands.json on stdout: compdb.sh 'COMMAND WITH FLAGS' FILE…
set -eu
command=${1//\"/\\\"}
shift
echo '['
sep=
for f in "$@"; do
	printf '%s{"directory":"%s","file":"%s","command":"%s -DKVS_VERSION=0 -c %s"}' "$sep" "$PWD" "$f" "$command" "$f"
	sep=$',\n'
done
printf '\n]\n'
