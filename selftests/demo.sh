#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kvsteer at work: three simulated pods, the gateway and a client, each in a network namespace of its own, joined by veth
# pairs. Sends the requests of docs/walkthrough.md with curl (and the OpenAI SDK, if python3 has it), says in plain words
# what became of each, and ends with a table. Every claim is checked: exit 1 with the reason when one does not hold.
#
#   client kvs-demo-c 10.130.0.2 ── 10.130.0.1 kvs-demo-g 10.131.N.1 ── 10.131.N.20 pods kvs-demo-p1 … p3
#
# KEEP=1 leaves all of it running and joins it to this host; the next run cleans up what an earlier one has left.
# The gateway has a mount namespace with a bpffs of its own, so a kvsteerd of this host and its pins are not touched. A
# sleep holds that namespace: programs and maps must outlive the kvsteerd that is killed.
set -u
cd "$(dirname "$0")/.." || exit 1

KEEP=${KEEP:-}
BIN=${KVS_BIN:-$PWD/.output/bin}
RUN=/run/kvs-demo
VOCAB=$PWD/selftests/data/bytes-tokenizer
MODEL=kvsim
BLOCK=16
HOST_IF=kvs-demo-host
HOST_NET=169.254.131
GATEWAY=http://10.130.0.1:8080
requests=()

bold='' dim='' off=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'
fi

step()
{
	printf '\n%s%s%s\n' "$bold" "$*" "$off"
}

say()
{
	printf '  %s\n' "$*"
}

# What a user would type, and what it prints, cut to the width of a page.
show()
{
	printf '  %s$ %s%s\n' "$dim" "$*" "$off"
}

indent()
{
	cut -c "1-${1:-150}" | sed 's/^/    /'
}

fail()
{
	printf '\ndemo: %s\n' "$*" >&2
	[ ! -e "$RUN/gateway.log" ] || { echo 'demo: the gateway said last:' && tail -n 5 "$RUN/gateway.log"; } >&2
	exit 1
}

# --- what it starts, and how that ends ---

# Ends what a pid file of ours names, if it still is that program.
end_pid()
{
	local pid name

	read -r pid name <"$1" || return 0
	rm -f "$1"
	[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ] || return 0
	kill "$pid" 2>/dev/null
	for _ in $(seq 50); do
		[ -e "/proc/$pid" ] || return 0
		sleep 0.05
	done
	kill -KILL "$pid" 2>/dev/null
}

clean()
{
	local f n

	for f in "$RUN"/gateway.pid "$RUN"/*.pid; do
		[ ! -e "$f" ] || end_pid "$f"
	done
	ip link del "$HOST_IF" 2>/dev/null
	for n in g c p1 p2 p3; do
		[ ! -e "/run/netns/kvs-demo-$n" ] || ip netns del "kvs-demo-$n"
	done
	rm -rf "$RUN"
}

# at NAMESPACE COMMAND…: `ip netns exec` would hide bpffs.
at()
{
	local ns=$1

	shift
	nsenter --net="/run/netns/kvs-demo-$ns" "$@"
}

pid_of()
{
	cut -d' ' -f1 "$RUN/$1.pid"
}

# start NAME NAMESPACE COMMAND…: in the background, with a pid file.
start()
{
	local name=$1 ns=$2

	shift 2
	(exec nsenter --net="/run/netns/kvs-demo-$ns" "$@") >>"$RUN/$name.log" 2>&1 </dev/null &
	echo "$! $(basename "${COMM:-$1}")" >"$RUN/$name.pid"
	disown
}

# join A ADDRESS B ADDRESS: a veth pair between two namespaces; both addresses are of one /24.
join()
{
	ip link add "kvs-$3" netns "kvs-demo-$1" type veth peer name "kvs-$1" netns "kvs-demo-$3" || fail "no veth pair"
	ip -n "kvs-demo-$1" addr add "$2/24" dev "kvs-$3"
	ip -n "kvs-demo-$3" addr add "$4/24" dev "kvs-$1"
	ip -n "kvs-demo-$1" link set "kvs-$3" up
	ip -n "kvs-demo-$3" link set "kvs-$1" up
	ip -n "kvs-demo-$3" route add default via "$2"
}

start_pod()
{
	start "p$1" "p$1" "$BIN/kvsim" --host "10.131.$1.20" --port 8000 --model "$MODEL" --block-size "$BLOCK" \
		--enable-prompt-tokens-details --zmq-endpoint 'tcp://*:5557' \
		--kv-events-replay-endpoint 'tcp://*:5558' --prefill-overhead 3 --prefill-time-per-token 0.2 \
		--inter-token-latency 8
}

write_config()
{
	local n

	cat <<-EOF
	listeners: [{address: "0.0.0.0:8080"}]
	admin: {address: "0.0.0.0:9090"}
	control: $RUN/kvsteer.sock
	pools:
	  - name: demo
	    model-path: $VOCAB
	    health: {interval: 500ms, timeout: 500ms}
	    discovery:
	      static:
	EOF
	for n in 1 2 3; do
		echo "        - {address: \"10.131.$n.20:8000\", events: \"tcp://10.131.$n.20:5557\"," \
			"replay: \"tcp://10.131.$n.20:5558\"}"
	done
}

start_all()
{
	local n

	mkdir -p "$RUN" || exit 1
	for n in g c p1 p2 p3; do
		ip netns add "kvs-demo-$n" || fail "no network namespace"
		ip -n "kvs-demo-$n" link set lo up
	done
	at g sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
	join g 10.130.0.1 c 10.130.0.2
	for n in 1 2 3; do
		join g "10.131.$n.1" "p$n" "10.131.$n.20"
		start_pod "$n"
	done
	write_config >"$RUN/kvsteer.yaml"
	"$BIN/kvsteerd" --check --config "$RUN/kvsteer.yaml" || fail "the configuration is not right"
	COMM='sleep' start mounts g unshare --mount sh -c \
		'umount -q /sys/fs/bpf; mount -t bpf bpf /sys/fs/bpf 2>/dev/null; exec sleep infinity'
	until_true 5 'the gateway has a mount namespace' mounts_stand
	start_gateway
	until_true 10 'the three pods are up and their KV events flow' all_live
}

mounts_stand()
{
	[ "$(cat "/proc/$(pid_of mounts)/comm")" = sleep ]
}

start_gateway()
{
	COMM=kvsteerd start gateway g nsenter --target "$(pid_of mounts)" --mount --root --wd="$PWD" \
		"$BIN/kvsteerd" --config "$RUN/kvsteer.yaml"
}

join_host()
{
	ip link add "$HOST_IF" type veth peer name kvs-host netns kvs-demo-g || fail "no veth pair to the host"
	ip addr add "$HOST_NET.1/30" dev "$HOST_IF"
	ip link set "$HOST_IF" up
	ip -n kvs-demo-g addr add "$HOST_NET.2/30" dev kvs-host
	ip -n kvs-demo-g link set kvs-host up
}

# --- asking ---

kvsteer()
{
	"$BIN/kvsteer" --control "$RUN/kvsteer.sock" "$@"
}

# In the gateway's namespaces, where its bpffs is. --root: whoever enters a mount namespace is at its root, and this may
# run below another one.
in_gateway()
{
	nsenter --target "$(pid_of mounts)" --mount --root --net --wd="$PWD" "$@"
}

# json EXPRESSION [FILE]: of the JSON value v.
json()
{
	python3 -c "import json, sys; v = json.load(open(sys.argv[1]) if len(sys.argv) > 1 else sys.stdin); print($1)" ${2:+"$2"}
}

until_true()
{
	local end=$((SECONDS + $1)) what=$2

	shift 2
	until "$@" 2>/dev/null; do
		[ "$SECONDS" -lt "$end" ] || fail "this did not come true: $what"
		sleep 0.1
	done
}

all_live()
{
	[ "$(kvsteer -j pod list | json 'sum(p["state"] == "up" and p["index"] == "live" and p["models"] != [] for p in v)')" = 3 ]
}

pod_is()
{
	[ "$(kvsteer -j pod show "$1" | json 'v["state"]')" = "$2" ]
}

# Events take some milliseconds from the engine to the index.
held()
{
	kvsteer -j index lookup "$RUN/prompt" | json 'sys.exit(not v or v[0]["tokens"] < 900)' >/dev/null
}

# body MEMBERS…: a completion's body with the prompt file, and these members besides.
body()
{
	python3 - "$@" <<-EOF
	import json, sys
	b = {"model": "$MODEL", "prompt": open("$RUN/prompt").read(), "max_tokens": 8}
	b.update(json.loads("{%s}" % ", ".join(sys.argv[1:])))
	print(json.dumps(b))
	EOF
}

# ask NAME PATH BODY: sends it from the client; sets pod, id, reported.
ask()
{
	local status

	status=$(at c curl -sS --noproxy '*' --max-time 20 -D "$RUN/head" -o "$RUN/body" -w '%{http_code}' \
		-H 'Content-Type: application/json' -H 'x-kvsteer-explain: 1' --data-binary "$3" "$GATEWAY$2") ||
		fail "$1: curl failed"
	[ "$status" = 200 ] || fail "$1: status $status: $(head -c 300 "$RUN/body")"
	pod=$(header x-kvsteer-pod) id=$(header x-request-id)
	reported=$(json 'v["usage"]["prompt_tokens_details"]["cached_tokens"]' "$RUN/body") ||
		fail "$1: the answer does not tell cached tokens"
	prompt_tokens=$(json 'v["usage"]["prompt_tokens"]' "$RUN/body")
	predicted=$(header x-kvsteer-decision | json 'v["predicted_tokens"]')
	requests+=("$id $prompt_tokens $1")
}

header()
{
	sed -n "s/^$1: //Ip" "$RUN/head" | tr -d '\r'
}

score_line()
{
	grep -F "Got pod scores" "$RUN/gateway.log" | grep -F "$1"
}

# Predicted and reported may differ by less than a block.
check_prediction()
{
	local d=$((predicted - reported))

	[ "${d#-}" -lt "$BLOCK" ] || fail "$1: $predicted cached tokens predicted, $reported reported by the engine"
}

# --- the walk ---

walk_models()
{
	step "1. Which models are there?"
	show "curl $GATEWAY/v1/models"
	at c curl -sS --noproxy '*' "$GATEWAY/v1/models" >"$RUN/body" || fail "curl failed"
	indent <"$RUN/body"
	echo
	[ "$(json '[m["id"] for m in v["data"]]' "$RUN/body")" = "['$MODEL']" ] || fail "the pods' model is not listed"
	say "The pods' models, merged."
}

walk_completions()
{
	local first score

	step "2. A prompt that no pod has seen"
	show "curl $GATEWAY/v1/completions -d '{\"model\": \"$MODEL\", \"prompt\": \"In the harbour of …\", \"max_tokens\": 8}'"
	ask 'completion, new' /v1/completions "$(body)"
	first=$pod
	[ "$prompt_tokens" -gt 200 ] || fail "the prompt is too short to show anything"
	[ "$reported" = 0 ] || fail "a new prompt was cached: $reported tokens"
	show "grep 'Got pod scores' gateway.log"
	score_line "$id" | indent 200
	score_line "$id" | grep -q '"scores": *null' || fail "the first request's scores are not null"
	say "No pod holds any of its $prompt_tokens tokens, so the least loaded one got it: $pod."

	step "3. The same prompt again"
	until_true 5 'the KV events of the prompt reach the index' held
	show "kvsteer index lookup prompt.txt"
	kvsteer index lookup "$RUN/prompt" | indent
	ask 'completion, again' /v1/completions "$(body)"
	score_line "$id" | indent 200
	score=$(score_line "$id" | sed 's/.*Got pod scores //' | json "v['scores'].get('${pod%:*}', 0)")
	[ "$pod" = "$first" ] || fail "the second went to $pod, the first to $first"
	[ "$score" -gt 0 ] || fail "the log line does not name the pod that holds the prompt"
	[ "$reported" -gt 200 ] || fail "the engine has $reported tokens cached"
	check_prediction 'completion, again'
	say "$score blocks of $BLOCK tokens are held by ${pod%:*}: the same pod got it. Predicted: $predicted cached tokens;" \
		"the engine reports $reported of $prompt_tokens."
}

walk_chat()
{
	local first system turn1 turn2

	step "4. A chat of two turns"
	system='{"role": "system", "content": "You are the keeper of a lighthouse. You know every ship of the coast by its lamps, the hours of every tide, and the ways of fog. You answer in one sentence, without hurry, and you never leave a question of a sailor open."}'
	turn1="$system, {\"role\": \"user\", \"content\": \"Keeper, which light is it that turns twice a minute?\"}"
	turn2="$turn1, {\"role\": \"assistant\", \"content\": \"Ours.\"}, {\"role\": \"user\", \"content\": \"And which one is red?\"}"
	ask 'chat, first turn' /v1/chat/completions "{\"model\": \"$MODEL\", \"max_tokens\": 16, \"messages\": [$turn1]}"
	first=$pod
	[ "$reported" = 0 ] || fail "a new chat was cached: $reported tokens"
	sleep 0.3
	ask 'chat, second turn' /v1/chat/completions "{\"model\": \"$MODEL\", \"max_tokens\": 16, \"messages\": [$turn2]}"
	[ "$pod" = "$first" ] || fail "the second turn went to $pod, the first to $first"
	[ "$reported" -gt 200 ] || fail "the second turn found $reported tokens cached"
	say "Both turns went to $pod; the second found $reported of its $prompt_tokens tokens there."
	say "What chat templates make of messages is not computed yet, so for chats the prediction is an estimate: $predicted."
}

walk_tenants()
{
	local home

	step "5. Two tenants with the same prompt"
	show "curl $GATEWAY/v1/completions -d '{…, \"cache_salt\": \"red\"}'"
	ask 'tenant red, new' /v1/completions "$(body '"cache_salt": "red"')"
	home=$pod
	[ "$reported$predicted" = 00 ] || fail "red saw what others have cached"
	sleep 0.3
	ask 'tenant blue, new' /v1/completions "$(body '"cache_salt": "blue"')"
	[ "$reported$predicted" = 00 ] || fail "blue saw what others have cached"
	ask 'tenant red, again' /v1/completions "$(body '"cache_salt": "red"')"
	[ "$pod" = "$home" ] || fail "red's second went to $pod, the first to $home"
	[ "$reported" -gt 200 ] || fail "red's second found $reported tokens cached"
	check_prediction 'tenant red, again'
	say "Neither saw the other's cache, nor that of step 2. Red's second request found its own $reported tokens on $pod."
}

walk_explain()
{
	step "6. Why did it go there?"
	show "curl -i -H 'x-kvsteer-explain: 1' …"
	header x-kvsteer-decision | python3 -c 'import json, sys
d = json.load(sys.stdin)
c = d.pop("candidates")
print(json.dumps(d))
print("candidates:")
for r in c: print(" ", json.dumps(r))' | indent
	[ "$(header x-kvsteer-decision | json 'len(v["candidates"])')" = 3 ] || fail "not all three candidates are shown"
	say "Cost is seconds until the first token, by what the pod has to compute; the lowest one wins."
}

# A stream on another pod runs while the pod that holds the prompt is killed.
walk_pod_lost()
{
	local gone n other stream

	step "7. A pod is taken away"
	ask 'before the loss' /v1/completions "$(body)"
	gone=$pod n=${pod#10.131.} n=${n%%.*}
	kvsteer pod drain "$gone" >/dev/null || fail "drain failed"
	at c curl -sSN --noproxy '*' --max-time 30 -D "$RUN/stream.head" -o "$RUN/stream" -H 'Content-Type: application/json' \
		--data-binary "$(body '"max_tokens": 400' '"stream": true' '"ignore_eos": true' \
			'"stream_options": {"include_usage": true}')" "$GATEWAY/v1/completions" &
	stream=$!
	until_true 5 'a stream flows' test -s "$RUN/stream"
	kvsteer pod undrain "$gone" >/dev/null || fail "undrain failed"
	other=$(sed -n 's/^x-kvsteer-pod: //Ip' "$RUN/stream.head" | tr -d '\r')
	requests+=("$(sed -n 's/^x-request-id: //Ip' "$RUN/stream.head" | tr -d '\r') $prompt_tokens stream meanwhile")
	[ "$other" != "$gone" ] || fail "the stream runs on the pod that was drained"
	say "A stream of 400 tokens runs on $other. $gone holds our prompt, and is killed."
	show "kill -KILL $(pid_of "p$n")"
	kill -KILL "$(pid_of "p$n")"
	ask 'pod lost' /v1/completions "$(body)"
	[ "$pod" != "$gone" ] || fail "the answer came from the pod that is gone"
	say "The same prompt was answered all the same, by $pod."
	until_true 10 'the pod is seen down' pod_is "$gone" down
	ask 'pod known lost' /v1/completions "$(body)"
	[ "$pod" != "$gone" ] || fail "the answer came from the pod that is gone"
	show "kvsteer pod list"
	kvsteer pod list | indent 170
	wait "$stream" || fail "the stream broke"
	[ "$(grep -c '^data: ' "$RUN/stream")" -ge 400 ] || fail "the stream on the other pod lacks events"
	grep -q '^data: \[DONE\]' "$RUN/stream" || fail "the stream on the other pod has no end"
	say "Health checks know it by now. The stream beside it came complete, to its [DONE]."
	start_pod "$n"
	until_true 15 'the pod is back and its events flow' all_live
	[ "$(kvsteer -j pod show "$gone" | json 'v["blocks"]')" = 0 ] || fail "what the killed process had cached is still believed"
	say "A new process is up at the same address; kvsteer has seen that it is another one, whose cache is empty."
}

walk_drain()
{
	local home

	step "8. A pod is drained"
	ask 'before the drain' /v1/completions "$(body)"
	home=$pod
	check_prediction 'before the drain'
	show "kvsteer pod drain $home"
	kvsteer pod drain "$home" >/dev/null || fail "drain failed"
	ask 'drained' /v1/completions "$(body)"
	[ "$pod" != "$home" ] || fail "a drained pod got a request"
	kvsteer pod undrain "$home" >/dev/null || fail "undrain failed"
	say "It takes no new requests although it holds the prompt: $pod served. What runs there would have gone on."
}

walk_sdk()
{
	step "9. The OpenAI SDK"
	if ! python3 -c 'import openai' 2>/dev/null; then
		say "python3 has no module openai here, so this is left out (pip install openai)."
		return
	fi
	at c env -u http_proxy -u https_proxy -u all_proxy python3 - "$GATEWAY/v1" "$MODEL" >"$RUN/sdk" <<-'EOF' || fail "the SDK failed"
	import sys, openai
	client = openai.OpenAI(base_url=sys.argv[1], api_key="none")
	stream = client.chat.completions.create(model=sys.argv[2], max_tokens=24, stream=True, stream_options={"include_usage": True},
	    messages=[{"role": "user", "content": "How far does your light reach?"}])
	text, usage = "", None
	for chunk in stream:
	    text += "".join(c.delta.content or "" for c in chunk.choices)
	    usage = chunk.usage or usage
	assert text and usage.completion_tokens == 24, (text, usage)
	print("%d tokens streamed: %r" % (usage.completion_tokens, text))
	EOF
	indent <"$RUN/sdk"
}

walk_tools()
{
	step "10. What the operator sees"
	show "kvsteer status"
	kvsteer status | indent
	show "kvsteer pod list"
	kvsteer pod list | indent 170
	show "kvsteer decision tail -n 3"
	timeout 1 "$BIN/kvsteer" --control "$RUN/kvsteer.sock" decision tail -n 3 | indent 170
	show "kvsteer bpf show"
	if in_gateway "$BIN/kvsteer" bpf show >"$RUN/bpf" 2>&1; then
		head -n 14 "$RUN/bpf" | indent
		check_counts
	else
		indent <"$RUN/bpf"
		say "Nothing of kvsteer is in the kernel here; the gateway says why: $(kvsteer -j status | json '"; ".join(v["warnings"]) or "-"')"
	fi
}

check_counts()
{
	local tool

	tool=$(PATH=$PATH:/usr/sbin:/sbin type -P bpftool)
	if ! in_gateway "${tool:-false}" version >/dev/null 2>&1; then
		say "bpftool is not installed or not made for this kernel: its view is left out."
		return
	fi
	show "bpftool map dump pinned /sys/fs/bpf/kvsteer/v2/maps/kvs_pods"
	in_gateway "$tool" -j map dump pinned /sys/fs/bpf/kvsteer/v2/maps/kvs_pods >"$RUN/map" || fail "bpftool cannot read the map"
	in_gateway "$tool" map dump pinned /sys/fs/bpf/kvsteer/v2/maps/kvs_pods | head -n 24 | tr -s '\n\t ' ' ' | fold -w 140 | indent
	echo
	[ "$(json 'len(v)' "$RUN/map")" = 3 ] || fail "the kernel counts for another number of pods than three"
	say "The TC programs have counted each pod's bytes, packets and connections in the kernel."
}

table()
{
	local line carrier id tokens name

	step "What became of each request"
	carrier=$(kvsteer -j status | json 'v["datapath"]["carrier"]')
	for line in "${requests[@]}"; do
		read -r id tokens name <<<"$line"
		printf '%s\t%s\t%s\n' "$name" "$tokens" "$(kvsteer -j decision show "$id")"
	done | python3 -c '
import json, sys
rows = [("REQUEST", "POD", "CARRIER", "PROMPT", "PREDICTED", "REPORTED", "TTFT ms")]
for l in sys.stdin:
    name, tokens, d = l.rstrip("\n").split("\t")
    d = json.loads(d)
    rows.append((name, d["pod"], d.get("carrier", sys.argv[1]), tokens, d["predicted_tokens"], d["reported_tokens"], "%.1f" % d["ttft_ms"]))
rows = [["-" if c is None else str(c) for c in r] for r in rows]
w = [max(len(r[i]) for r in rows) for i in range(7)]
for r in rows:
    print("  " + "  ".join(c.ljust(w[i]) if i < 3 else c.rjust(w[i]) for i, c in enumerate(r)))' "$carrier" ||
		fail "a decision is not kept"
	echo
	say "PROMPT is in tokens, as the pod counted them. PREDICTED and REPORTED are cached tokens: what kvsteer expected on"
	say "that pod, and what the pod's usage said. TTFT is from the request's head to the answer's first byte; an answer that"
	say "is not streamed comes whole."
}

# stream NAME NAMESPACE ORIGIN: 400 tokens, 8 ms apart, in the background; sets streaming.
stream()
{
	rm -f "$RUN/$1.head" "$RUN/$1.body"
	at "$2" curl -sSN --noproxy '*' --max-time 30 -D "$RUN/$1.head" -o "$RUN/$1.body" -H 'Content-Type: application/json' \
		--data-binary "$STREAM_BODY" "$3/v1/completions" &
	streaming=$!
}

# The header NAME of a stream's answer.
of()
{
	sed -n "s/^$2: //Ip" "$RUN/$1.head" | tr -d '\r'
}

events_of()
{
	grep -c '^data: {' "$RUN/$1.body"
}

# A stream's bytes without what is another for each request: its id, its time, what was cached.
bytes_of()
{
	sed -E 's/"id": ?"[^"]*"/"id":-/; s/"created": ?[0-9]+/"created":-/; s/"cached_tokens": ?[0-9]+/"cached_tokens":-/' \
		"$RUN/$1.body"
}

# Complete, and the same bytes as those that the pod sends when nobody is in between?
check_stream()
{
	grep -q '^data: \[DONE\]' "$RUN/$1.body" || fail "the $1 stream has no [DONE]"
	cmp -s <(bytes_of "$1") <(bytes_of direct) || fail "the $1 stream differs from what the pod sends: $RUN/$1.body"
}

# decided NAME KEY: of the decision on a stream.
decided()
{
	kvsteer -j decision show "$(of "$1" x-request-id)" | json "v['$2']"
}

# metric REGEX: the sum of those that match.
metric()
{
	at c curl -sS --noproxy '*' http://10.130.0.1:9090/metrics | awk -v r="^$1" '$0 ~ r { n += $2 } END { print n + 0 }'
}

stream_over()
{
	[ "$(kvsteer -j decision show "$(of "$1" x-request-id)" | json 'v["end"]')" = complete ]
}

walk_relayed()
{
	local direct pod

	step "11. A stream that the daemon relays"
	ask 'before the streams' /v1/completions "$(body)"
	stream direct g "http://$pod"
	direct=$streaming
	show "curl -N http://127.0.0.1:8080/v1/completions -d '{…, \"max_tokens\": 400, \"stream\": true}'     # on the gateway's own host"
	stream relayed g http://127.0.0.1:8080
	wait "$streaming" || fail "the relayed stream broke"
	wait "$direct" || fail "the stream straight from the pod broke"
	check_stream relayed
	until_true 3 'the decision on the relayed stream is final' stream_over relayed
	[ "$(decided relayed carrier)$(decided relayed spliced_bytes)" = relay0 ] || fail "a stream over loopback was not relayed"
	say "$(events_of relayed) events and [DONE], $(wc -c <"$RUN/relayed.body") bytes: carrier relay, 0 bytes past user space. Loopback is no" \
		"Ethernet device, so the"
	say "daemon reads and writes each event. Byte for byte what $(of relayed x-kvsteer-pod) sends to one who asks it directly."
}

# kernel_carries STEP: else says why not.
kernel_carries()
{
	[ "$(kvsteer -j status | json 'v["datapath"]["carrier"]')" != tc ] || return 0
	step "$1"
	say "SKIP: the kernel carries no streams here: $(kvsteer -j status | json '"; ".join(v["warnings"]) or "datapath.mode is " + v["datapath"]["mode"]')"
	return 1
}

walk_spliced()
{
	local bytes n sum gaps

	step "12. A stream that the kernel carries"
	gaps=$(metric kvsteer_pod_splice_gap_seconds_count) sum=$(metric kvsteer_pod_splice_gap_seconds_sum)
	show "curl -N $GATEWAY/v1/completions -d '{…, \"max_tokens\": 400, \"stream\": true}'"
	stream spliced c "$GATEWAY"
	until_true 5 'a stream is in the kernel' flow_is active
	sleep 1
	show "kvsteer flow list"
	kvsteer flow list | indent 170
	wait "$streaming" || fail "the spliced stream broke"
	check_stream spliced
	until_true 3 'the decision on the spliced stream is final' stream_over spliced
	bytes=$(decided spliced spliced_bytes)
	show "kvsteer -j decision show $(of spliced x-request-id)"
	kvsteer -j decision show "$(of spliced x-request-id)" |
		json '{k: v[k] for k in ("pod", "carrier", "spliced_bytes", "ttft_ms", "duration_ms", "end")}' | indent
	[ "$(decided spliced carrier)" = tc ] || fail "the carrier of the stream is $(decided spliced carrier)"
	[ "$bytes" -gt "$(($(wc -c <"$RUN/spliced.body") / 2))" ] || fail "only $bytes bytes were spliced"
	say "$(events_of spliced) events and [DONE]. $bytes bytes of the answer, with its chunks' framing, went from the pod to the client" \
		"in TC programs"
	say "and never touched user space. What the client got is byte for byte the stream of step 11."
	n=$(($(metric kvsteer_pod_splice_gap_seconds_count) - gaps))
	[ "$n" -gt 0 ] || fail "the kernel has not told the time between segments"
	show "curl http://10.130.0.1:9090/metrics | grep kvsteer_pod_splice_gap_seconds"
	say "The kernel has kept the time as well: $n gaps between segments of this pod, on average" \
		"$(awk -v a="$sum" -v b="$(metric kvsteer_pod_splice_gap_seconds_sum)" -v n="$n" 'BEGIN { printf "%.1f", (b - a) * 1000 / n }') ms."
}

flow_is()
{
	[ "$(kvsteer -j flow list | json "sum(f['state'] == '$1' for f in v)")" -gt 0 ]
}

# The stream ends before the next kvsteerd starts: nobody but the kernel is there to carry it.
walk_killed()
{
	local had pid

	step "13. kvsteerd is killed, and a stream goes on"
	pid=$(pid_of gateway)
	stream survivor c "$GATEWAY"
	until_true 5 'a stream is in the kernel' flow_is active
	sleep 0.5
	show "kill -KILL $pid     # kvsteerd"
	kill -KILL "$pid"
	while [ -e "/proc/$pid" ]; do
		sleep 0.01
	done
	had=$(events_of survivor)
	! at c curl -sS --noproxy '*' --max-time 2 -o /dev/null "$GATEWAY/v1/models" 2>/dev/null ||
		fail "somebody still answers at $GATEWAY"
	show "kvsteer flow list     # from the pinned maps: there is no daemon to ask"
	in_gateway "$BIN/kvsteer" --control "$RUN/kvsteer.sock" flow list | indent 170
	wait "$streaming" || fail "the stream broke when kvsteerd was killed"
	check_stream survivor
	[ "$had" -lt 350 ] || fail "kvsteerd was killed too late to show anything: after $had events"
	say "The client had $had events when kvsteerd died, and got all $(events_of survivor) and [DONE], with no kvsteerd at all: byte for" \
		"byte the stream of step 11."
	show "kvsteerd --config kvsteer.yaml"
	start_gateway
	until_true 10 'the new kvsteerd serves' all_live
	until_true 5 'the new kvsteerd has seen what its predecessor left' orphan_is_done
	show "curl http://10.130.0.1:9090/metrics | grep -E 'splice_(orphans|housekeeping)'"
	at c curl -sS --noproxy '*' http://10.130.0.1:9090/metrics |
		grep -E '^kvsteer_splice_(orphans |housekeeping_total\{what="(orphan|connection)_)' | indent
	ask 'after the kill' /v1/completions "$(body)"
	say "A new one took over programs and maps, found $(metric 'kvsteer_splice_housekeeping_total.*orphan_done') stream that its" \
		"predecessor had left, saw it complete, and serves (200 from $pod)."
}

orphan_is_done()
{
	[ "$(metric 'kvsteer_splice_housekeeping_total.*orphan_done')" -ge 1 ]
}

[ "$(id -u)" = 0 ] || { echo 'demo: network namespaces need root' >&2 && exit 1; }
for b in kvsteerd kvsteer kvsim; do
	[ -x "$BIN/$b" ] || { echo "demo: $BIN/$b is missing: run make demo" >&2 && exit 1; }
done
clean
[ -n "$KEEP" ] || trap clean EXIT
trap 'exit 130' INT TERM

step "kvsteer: three pods, a gateway, a client"
start_all
cat >"$RUN/prompt" <<-'EOF'
In the harbour of a town by the northern sea there is a lighthouse, and in its lowest room a desk, and on the desk a book in
which every keeper has written down what passed in the night. The first pages are of a hand that few can read any more: the
barque Concordia, two lamps, bound south, wind from the west; a fishing boat without a light, hailed, no answer; fog from the
third hour on, the horn sounded every minute until the morning. Later keepers wrote less, and later still the lamp was made to
turn by itself, and the horn to listen for the fog; but there is always somebody who reads the book to the end before the first
night alone up there, since all that one has to know stands in it somewhere. Whoever reads it again begins, of course, with the
same pages. That is the whole reason for what you see here: a page that has been read need not be read anew, if only one asks
the keeper who has read it. Question: which ship came by on the night of the eleventh, and what did she carry?
Answer:
EOF
say "pods 10.131.1.20, 10.131.2.20, 10.131.3.20 (kvsim, KV events and replay), gateway $GATEWAY, client 10.130.0.2"
walk_models
walk_completions
walk_chat
walk_tenants
walk_explain
walk_pod_lost
walk_drain
walk_sdk
walk_tools
table
STREAM_BODY=$(body '"max_tokens": 400' '"stream": true' '"ignore_eos": true' '"stream_options": {"include_usage": true}')
walk_relayed
if kernel_carries "12. A stream that the kernel carries, and 13. one that survives kvsteerd"; then
	walk_spliced
	walk_killed
fi
if [ -n "$KEEP" ]; then
	join_host
	step "All of it is still running."
	say "gateway    http://$HOST_NET.2:8080/v1/models"
	say "admin      http://$HOST_NET.2:9090/metrics"
	say "CLI        $BIN/kvsteer --control $RUN/kvsteer.sock status"
	say "log        $RUN/gateway.log; configuration $RUN/kvsteer.yaml"
	say "bpftool    nsenter --target $(pid_of mounts) --mount --net bpftool map dump pinned /sys/fs/bpf/kvsteer/v2/maps/kvs_pods"
	say "The next make demo ends it first."
fi
step "demo: all of this was checked, in $SECONDS s."
