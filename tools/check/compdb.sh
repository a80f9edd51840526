#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# compile_commands.json on stdout: compdb.sh 'COMMAND WITH FLAGS' FILE…
set -eu
command=${1//\"/\\\"}
shift
echo '['
sep=
version='-DKVS_VERSION=\\\"0\\\"' # a string, for a shell within JSON
for f in "$@"; do
	printf '%s{"directory":"%s","file":"%s","command":"%s %s -c %s"}' "$sep" "$PWD" "$f" "$command" "$version" "$f"
	sep=$',\n'
done
printf '\n]\n'
