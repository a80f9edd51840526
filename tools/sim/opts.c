/* SPDX-License-Identifier: Apache-2.0 */
#include "opts.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/jw.h"
#include "base/str.h"
#include "blockhash.h"

enum kind {
	STRING,
	LIST,
	U32,
	NUMBER,
	TIME,
	SWITCH,
	LORA,
	FAULTS_LIST,
	FAKE,
	EVENTS_JSON,
	TRANSFER_JSON,
	IGNORED,
	IGNORED_SWITCH
};

struct opt {
	const char *name, *alias, *metavar, *deflt;
	enum kind kind;
	size_t at;
	bool live;
	const char *help;
};

/* Every string that an option holds, for opts_cleanup. */
static char **kept;
static size_t nkept;

static const char *keep(const char *p, size_t n)
{
	char **v = realloc(kept, (nkept + 1) * sizeof(*v));

	if (v)
		kept = v;
	if (!v || !(v[nkept] = strndup(p, n)))
		abort(); /* out of memory for a few bytes */
	return v[nkept++];
}

const char *opts_keep(const char *s)
{
	return keep(s, strlen(s));
}

void opts_cleanup(void)
{
	while (nkept)
		free(kept[--nkept]);
	free(kept);
	kept = NULL;
}

#define AT(member) offsetof(struct opts, member)

/* NULL help: accepted, not shown. Times: a number is milliseconds, or with a unit: 250us, 1.5ms, 2s. */
static const struct opt table[] = {
	{ "listen", 0, "ADDR:PORT", 0, LIST, AT(listen), false, "one pod on this address; may be repeated" },
	{ "host", 0, "ADDR", "0.0.0.0", STRING, AT(host), false, "address of --port" },
	{ "port", 0, "N", "8000", U32, AT(port), false, "port of the first pod; 0: any free one" },
	{ "pods", 0, "N", "1", U32, AT(pods), false, "pods in this process, on ports that follow each other" },
	{ "model", 0, "NAME", "kvsim", STRING, AT(model), false, "model name (also as first argument)" },
	{ "served-model-name", 0, "NAMES", 0, LIST, AT(served), false,
	  "names that requests may use; default: the model's" },
	{ "lora-modules", 0, "NAME=PATHS", 0, LORA, 0, false, "LoRA adapters, or JSON with name and path" },
	{ "vllm-version", 0, "VERSION", "0.32.0", STRING, AT(vllm_version), false, "what /version says" },
	{ "tokenizer", 0, "DIR", 0, STRING, AT(tokenizer), false,
	  "directory with a tokenizer.json, used exactly (default: tokens are bytes)" },
	{ "max-loras", 0, "N", "1", U32, AT(max_loras), false, "adapters that run at once" },
	{ "enable-lora-updating", 0, 0, "false", SWITCH, AT(lora_updating), false,
	  "serve /v1/load_lora_adapter and /v1/unload_lora_adapter" },
	{ "max-model-len", 0, "N", "131072", U32, AT(max_model_len), false, "tokens of prompt and output" },
	{ "mode", 0, "echo|random", "random", STRING, AT(mode), true,
	  "output: the prompt again, or words drawn from the seed and the prompt" },
	{ "seed", 0, "N", "0", U32, AT(seed), false, "seed of everything drawn" },
	{ "role", 0, "none|both|prefill|decode", "none", STRING, AT(role), false,
	  "which kv_transfer_params are honoured; none: ignored, as vLLM without a connector" },
	{ "kv-transfer-config", 0, "JSON", 0, TRANSFER_JSON, 0, false,
	  "vLLM's way to say --role: kv_producer, kv_consumer, kv_both" },
	{ "startup-duration", 0, "TIME", "0", TIME, AT(startup), false, "answer 503 that long after the start" },
	{ "enable-sleep-mode", 0, 0, "false", SWITCH, AT(sleep_mode), false,
	  "serve /sleep, /wake_up and /is_sleeping" },
	{ "enable-request-id-headers", 0, 0, "false", SWITCH, AT(request_id_headers), false,
	  "answer with x-request-id" },
	{ "enable-prompt-tokens-details", 0, 0, "false", SWITCH, AT(prompt_tokens_details), true,
	  "tell cached tokens in usage" },

	{ "max-num-seqs", 0, "N", "256", U32, AT(max_num_seqs), true, "sequences that run at once" },
	{ "max-waiting-queue-length", 0, "N", "1000", U32, AT(max_waiting), true,
	  "more that wait are refused with 429" },
	{ "max-num-batched-tokens", 0, "N", "2048", U32, AT(max_batched_tokens), true,
	  "tokens of a step: prompts are computed in chunks" },
	{ "kv-cache-size", "num-gpu-blocks-override", "BLOCKS", "8192", U32, AT(kv_blocks), false,
	  "blocks of the KV cache" },
	{ "kv-offload-size", 0, "BLOCKS", "0", U32, AT(host_blocks), false,
	  "blocks of host memory, to which evicted blocks are copied" },
	{ "block-size", 0, "TOKENS", "16", U32, AT(block_size), false, "tokens of a block" },
	{ "enable-prefix-caching", "enable-kvcache", 0, "true", SWITCH, AT(prefix_caching), false,
	  "hit and announce blocks" },
	{ "hash-seed", 0, "TEXT", BLOCKHASH_SEED, STRING, AT(hash_seed), false,
	  "vLLM's PYTHONHASHSEED (the variable is read too)" },
	{ "hash-extra-keys", 0, "tagged|untagged", "tagged", STRING, AT(extra_keys), false,
	  "LoRA and salt in the hash as vLLM 0.32 or as older ones" },
	{ "time-to-first-token", 0, "TIME", "0", TIME, AT(ttft), true, "fixed; waits, computes nothing" },
	{ "time-to-first-token-std-dev", 0, "TIME", "0", TIME, AT(ttft_std), true, "" },
	{ "inter-token-latency", 0, "TIME", "0", TIME, AT(itl), true,
	  "length of a decode step; all streams of a pod step together" },
	{ "inter-token-latency-std-dev", 0, "TIME", "0", TIME, AT(itl_std), true, "" },
	{ "prefill-overhead", 0, "TIME", "0", TIME, AT(overhead), true, "computed once for each prompt" },
	{ "prefill-time-per-token", 0, "TIME", "0", TIME, AT(per_token), true,
	  "computed for each prompt token that was not cached" },
	{ "kv-cache-transfer-latency", 0, "TIME", "0", TIME, AT(transfer), true, "of a prompt from a prefill pod" },
	{ "kv-cache-transfer-time-per-token", 0, "TIME", "0", TIME, AT(transfer_per_token), true, "" },
	{ "time-factor-under-load", 0, "X", "1", NUMBER, AT(load_factor), true,
	  "how much slower a step is with max-num-seqs running" },

	{ "zmq-endpoint", 0, "ENDPOINT", 0, STRING, AT(zmq_endpoint), false,
	  "publish KV events; binds where it has \"*\" or \"::\", else connects (as vLLM); %h, %p: the pod's address" },
	{ "zmq-bind", 0, 0, "false", SWITCH, AT(zmq_bind), false, "bind in any case" },
	{ "zmq-port-stride", 0, "N", "1", U32, AT(zmq_stride), false,
	  "each further pod adds this to both event ports" },
	{ "kv-events-replay-endpoint", 0, "ENDPOINT", 0, STRING, AT(replay_endpoint), false,
	  "replay socket (ROUTER, binds)" },
	{ "kv-events-replay-queue-size", 0, "N", "10000", U32, AT(replay_size), false, "batches kept for replay" },
	{ "kv-events-http", 0, "get|post", 0, STRING, AT(events_http), false,
	  "instead of ZeroMQ: serve /kv_cache_events as TensorRT-LLM does" },
	{ "kv-events-http-buffer", 0, "N", "10000", U32, AT(events_buffer), false,
	  "its event_buffer_max_size: older events are forgotten" },
	{ "kv-events-hwm", 0, "N", "100000", U32, AT(hwm), false, "high-water mark of the publisher" },
	{ "kv-events-topic", 0, "TOPIC", "", STRING, AT(topic), false,
	  "%h, %p, %m: address, port, model; llm-d wants kv@%h:%p@%m" },
	{ "kv-events-config", 0, "JSON", 0, EVENTS_JSON, 0, false, "vLLM's way to say the same" },
	{ "event-format", 0, "map|array", "map", STRING, AT(event_format), true, "vLLM ≥ 0.24, or older" },
	{ "event-hashes", 0, "int|bytes", "int", STRING, AT(hash_format), true, "last 64 bits, or the whole digest" },
	{ "replay-framing", 0, "new|old", "new", STRING, AT(replay_framing), true,
	  "with the topic (vLLM ≥ 0.26), or without" },

	{ "failure-injection-rate", 0, "PERCENT", "0", NUMBER, AT(failure_rate), true, "of the generation requests" },
	{ "failure-types", 0, "TYPES", 0, FAULTS_LIST, 0, true, "see below; default: all that are answers" },
	{ "failure-after-events", 0, "N", "3", U32, AT(failure_after), true,
	  "where in the stream the *_mid_* ones happen" },
	{ "cached-tokens-factor", 0, "X", "1", NUMBER, AT(cached_factor), true,
	  "report so many times what was cached" },
	{ "chat-prelude", 0, "TEXT", "", STRING, AT(chat_prelude), true, "begin each chat's prompt with it" },
	{ "event-block-size", 0, "TOKENS", "0", U32, AT(event_block), true,
	  "events tell so many tokens of each block; 0: all" },
	{ "mute-stored", 0, 0, "false", SWITCH, AT(mute_stored), true, "no event tells of what is stored" },
	{ "mute-removed", 0, 0, "false", SWITCH, AT(mute_removed), true, "no event tells of what is removed" },
	{ "keep-alive-timeout", "timeout-keep-alive", "TIME", "5s", TIME, AT(keep_alive), true,
	  "idle connections are closed after it; 0: never" },
	{ "stamp-events", 0, 0, "false", SWITCH, AT(stamp), true,
	  "put the monotonic time of sending into each event, for kvload" },
	{ "fake-metrics", 0, "JSON", 0, FAKE, 0, true,
	  "running-requests, waiting-requests, kv-cache-usage: a number or FUNCTION:START:END:PERIOD" },
	{ "help", "h", 0, 0, SWITCH, AT(help), false, "" },
	{ "version", 0, 0, 0, SWITCH, AT(version), false, "" },

	{ "use-vllm-map-event-format", 0, 0, 0, IGNORED_SWITCH, 0, false, NULL },
	{ "gpu-memory-utilization", 0, "X", 0, IGNORED, 0, false, NULL },
	{ "tensor-parallel-size", 0, "X", 0, IGNORED, 0, false, NULL },
	{ "dtype", 0, "X", 0, IGNORED, 0, false, NULL },
	{ "max-lora-rank", 0, "X", 0, IGNORED, 0, false, NULL },
	{ "prefix-caching-hash-algo", 0, "X", 0, IGNORED, 0, false, NULL },
	{ "disable-log-requests", 0, 0, 0, IGNORED_SWITCH, 0, false, NULL },
	{ "enforce-eager", 0, 0, 0, IGNORED_SWITCH, 0, false, NULL },
	{ "enable-lora", 0, 0, 0, IGNORED_SWITCH, 0, false, NULL },
	{ "enable-chunked-prefill", 0, 0, 0, IGNORED_SWITCH, 0, false, NULL },
};
#define NOPTS (sizeof(table) / sizeof(table[0]))

static const char *const fault_names[] = { NULL,
#define X(name) #name,
					   FAULTS(X)
#undef X
};

enum fault fault_parse(const char *name)
{
	for (unsigned i = 1; i < FAULT_N; i++)
		if (!strcmp(fault_names[i], name))
			return i;
	return FAULT_NONE;
}

const char *fault_name(enum fault f)
{
	return f ? fault_names[f] : "none";
}

static bool name_eq(const char *a, const char *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((a[i] == '_' ? '-' : a[i]) != b[i])
			return false;
	return b[n] == 0;
}

static const struct opt *find(const char *name, size_t n)
{
	for (size_t i = 0; i < NOPTS; i++)
		if (name_eq(name, table[i].name, n) || (table[i].alias && name_eq(name, table[i].alias, n)))
			return &table[i];
	return NULL;
}

static bool takes_many(const struct opt *t)
{
	return t->kind == LIST || t->kind == LORA || t->kind == FAULTS_LIST;
}

static int parse_time(const char *s, double *ret)
{
	static const struct {
		const char *unit;
		double ns;
	} units[] = { { "", 1e6 }, { "ns", 1 }, { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { "m", 6e10 } };
	char *end;
	double v = strtod(s, &end);

	if (end == s || !isfinite(v) || v < 0)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(end, units[i].unit)) {
			*ret = v * units[i].ns;
			return 0;
		}
	return -EINVAL;
}

/* "oscillate:1:9:30s", "ramp:…", a number. */
static int parse_fake(const char *s, struct opts_fake *ret)
{
	static const char *const names[] = { "oscillate", "ramp", "rampreset", "squarewave" };
	struct opts_fake f = { .kind = FAKE_FIXED };
	char name[16], period[16], *end;
	double ns;

	f.start = strtod(s, &end);
	if (end != s && !*end) {
		*ret = f;
		return 0;
	}
	if (sscanf(s, "%15[a-z]:%lf:%lf:%15s", name, &f.start, &f.end, period) != 4)
		return -EINVAL;
	/* The period is in seconds if it has no unit, as in llm-d's simulator. */
	f.period_s = strtod(period, &end);
	if (*end) {
		if (parse_time(period, &ns))
			return -EINVAL;
		f.period_s = ns * 1e-9;
	}
	if (!(f.period_s > 0))
		return -EINVAL;
	for (unsigned i = 0; i < 4; i++)
		if (!strcmp(name, names[i])) {
			f.kind = FAKE_OSCILLATE + i;
			*ret = f;
			return 0;
		}
	return -EINVAL;
}

double fake_value(const struct opts_fake *f, double t, double real)
{
	double x = f->kind > FAKE_FIXED ? fmod(t, f->period_s) / f->period_s : 0;

	switch (f->kind) {
	case FAKE_OFF:
		return real;
	case FAKE_FIXED:
		return f->start;
	case FAKE_OSCILLATE:
		x = (1 - cos(2 * M_PI * x)) / 2;
		break;
	case FAKE_RAMP:
		x = t >= f->period_s ? 1 : t / f->period_s;
		break;
	case FAKE_RAMPRESET:
		break;
	case FAKE_SQUAREWAVE:
		x = x >= 0.5;
		break;
	}
	return f->start + (f->end - f->start) * x;
}

static int set_fake(struct opts *o, const char *s)
{
	static const struct {
		const char *key;
		size_t at;
	} keys[] = { { "running-requests", AT(fake_running) },
		     { "waiting-requests", AT(fake_waiting) },
		     { "kv-cache-usage", AT(fake_usage) } };
	json_t *j = json_loads(s, JSON_DECODE_ANY, NULL), *v;
	struct opts_fake got[3] = { 0 };
	int r = json_is_object(j) || json_is_null(j) ? 0 : -EINVAL;

	for (unsigned i = 0; !r && i < 3; i++) {
		v = json_object_get(j, keys[i].key);
		if (json_is_number(v))
			got[i] = (struct opts_fake){ .kind = FAKE_FIXED, .start = json_number_value(v) };
		else if (v)
			r = json_is_string(v) ? parse_fake(json_string_value(v), &got[i]) : -EINVAL;
	}
	for (unsigned i = 0; !r && i < 3; i++)
		*(struct opts_fake *)((char *)o + keys[i].at) = got[i];
	json_decref(j);
	return r;
}

static int set_lora(struct opts *o, const char *s)
{
	struct opts_lora *l = &o->lora[o->nlora];
	const char *eq = strchr(s, '=');
	json_t *j;

	if (o->nlora == OPTS_LIST_MAX)
		return -EINVAL;
	if (*s == '{') {
		j = json_loads(s, 0, NULL);
		if (!json_is_string(json_object_get(j, "name")) || !json_is_string(json_object_get(j, "path"))) {
			json_decref(j);
			return -EINVAL;
		}
		l->name = opts_keep(json_string_value(json_object_get(j, "name")));
		l->path = opts_keep(json_string_value(json_object_get(j, "path")));
		json_decref(j);
	} else if (eq && eq != s) {
		l->name = keep(s, (size_t)(eq - s));
		l->path = eq + 1;
	} else {
		return -EINVAL;
	}
	o->nlora++;
	return 0;
}

/* One or more names with commas between; an empty list is none. */
static int set_faults(struct opts *o, const char *s, bool first)
{
	char name[32];

	if (first)
		memset(o->failure_types, 0, sizeof(o->failure_types));
	while (*s) {
		size_t n = strcspn(s, ", ");
		enum fault f;

		if (n >= sizeof(name))
			return -EINVAL;
		memcpy(name, s, n);
		name[n] = 0;
		f = n ? fault_parse(name) : FAULT_NONE;
		if (n && !f)
			return -EINVAL;
		o->failure_types[f] = true;
		s += n + (s[n] != 0);
	}
	return 0;
}

static const char *copy_of(const json_t *j, const char *key, const char *deflt)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? opts_keep(s) : deflt;
}

static int set_events_json(struct opts *o, const char *s)
{
	json_t *j = json_loads(s, 0, NULL), *n;
	const char *publisher;

	if (!json_is_object(j)) {
		json_decref(j);
		return -EINVAL;
	}
	publisher = json_string_value(json_object_get(j, "publisher"));
	if (json_is_true(json_object_get(j, "enable_kv_cache_events")) && (!publisher || !strcmp(publisher, "zmq"))) {
		o->zmq_endpoint = copy_of(j, "endpoint", "tcp://*:5557");
		o->replay_endpoint = copy_of(j, "replay_endpoint", o->replay_endpoint);
		o->topic = copy_of(j, "topic", o->topic);
		n = json_object_get(j, "buffer_steps");
		if (json_is_integer(n) && json_integer_value(n) > 0)
			o->replay_size = (uint32_t)json_integer_value(n);
	}
	json_decref(j);
	return 0;
}

static int set_transfer_json(struct opts *o, const char *s)
{
	json_t *j = json_loads(s, 0, NULL);
	const char *role = json_string_value(json_object_get(j, "kv_role"));
	int r = 0;

	if (!role)
		r = -EINVAL;
	else
		o->role = !strcmp(role, "kv_producer") ? "prefill" : !strcmp(role, "kv_consumer") ? "decode" : "both";
	json_decref(j);
	return r;
}

/* A metavar "a|b" is the list of what is allowed. */
static bool among(const char *choices, const char *s)
{
	size_t n = strlen(s);

	for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
		if (!strncmp(p, s, n) && (p[n] == '|' || !p[n]))
			return true;
	return false;
}

static int set(struct opts *o, const struct opt *t, const char *s, bool first)
{
	char *at = (char *)o + t->at, *end;
	struct opts_list *l = (void *)at;
	uint64_t v;

	switch (t->kind) {
	case STRING:
		if (strchr(t->metavar, '|') && !among(t->metavar, s))
			return -EINVAL;
		*(const char **)at = opts_keep(s);
		return 0;
	case LIST:
		if (l->n == OPTS_LIST_MAX)
			return -EINVAL;
		l->v[l->n++] = s;
		return 0;
	case U32:
		if (str_u64(str_of(s), &v) || v > UINT32_MAX)
			return -EINVAL;
		*(uint32_t *)at = (uint32_t)v;
		return 0;
	case NUMBER:
		*(double *)at = strtod(s, &end);
		return end == s || *end || !isfinite(*(double *)at) || *(double *)at < 0 ? -EINVAL : 0;
	case TIME:
		return parse_time(s, (double *)at);
	case SWITCH:
		if (strcmp(s, "true") != 0 && strcmp(s, "false") != 0)
			return -EINVAL;
		*(bool *)at = *s == 't';
		return 0;
	case LORA:
		return set_lora(o, s);
	case FAULTS_LIST:
		return set_faults(o, s, first);
	case FAKE:
		return set_fake(o, s);
	case EVENTS_JSON:
		return set_events_json(o, s);
	case TRANSFER_JSON:
		return set_transfer_json(o, s);
	case IGNORED:
	case IGNORED_SWITCH:
		return 0;
	}
	return -EINVAL;
}

void opts_defaults(struct opts *o)
{
	const char *seed = getenv("PYTHONHASHSEED");

	*o = (struct opts){ 0 };
	for (size_t i = 0; i < NOPTS; i++)
		if (table[i].deflt)
			set(o, &table[i], table[i].deflt, true);
	for (unsigned i = FAULT_rate_limit; i <= FAULT_model_not_found; i++)
		o->failure_types[i] = true;
	if (seed && *seed && strcmp(seed, "random") != 0)
		o->hash_seed = seed;
}

static int bad(char *err, size_t n, const struct opt *t, const char *s)
{
	snprintf(err, n, "--%s: \"%s\" is no %s", t->name, s, t->metavar ? t->metavar : "true or false");
	return -EINVAL;
}

static bool method_ok(const char *s)
{
	return !s || !strcmp(s, "get") || !strcmp(s, "post");
}

static int check(struct opts *o, char *err, size_t n)
{
	const char *why = !o->block_size		      ? "--block-size must be at least 1"
			  : !o->kv_blocks		      ? "--kv-cache-size must be at least 1"
			  : !o->max_num_seqs		      ? "--max-num-seqs must be at least 1"
			  : !o->max_batched_tokens	      ? "--max-num-batched-tokens must be at least 1"
			  : o->load_factor < 1		      ? "--time-factor-under-load must be at least 1"
			  : o->failure_rate > 100	      ? "--failure-injection-rate must be at most 100"
			  : !o->replay_size		      ? "--kv-events-replay-queue-size must be at least 1"
			  : !o->events_buffer		      ? "--kv-events-http-buffer must be at least 1"
			  : !method_ok(o->events_http)	      ? "--kv-events-http is get or post"
			  : o->events_http && o->zmq_endpoint ? "--kv-events-http and --zmq-endpoint exclude each other"
			  : o->events_http && o->host_blocks  ? "--kv-events-http knows no --kv-offload-size"
			  : !o->pods || o->pods > 1024	      ? "--pods must be 1 … 1024"
							      : NULL;

	if (!why)
		return 0;
	snprintf(err, n, "%s", why);
	return -EINVAL;
}

int opts_parse(struct opts *o, int argc, char **argv, char *err, size_t err_len)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *value = NULL;
		const struct opt *t;
		bool off = false;
		size_t n;

		if (a[0] != '-') { /* "serve MODEL", as in vllm serve MODEL */
			if (i != 1 || strcmp(a, "serve") != 0)
				o->model = a;
			continue;
		}
		a += a[1] == '-' ? 2 : 1;
		n = strcspn(a, "=");
		if (a[n])
			value = a + n + 1;
		t = find(a, n);
		if (!t && !strncmp(a, "no-", 3)) {
			t = find(a + 3, n - 3);
			off = t && (t->kind == SWITCH || t->kind == IGNORED_SWITCH);
			if (!off)
				t = NULL;
		}
		if (!t) {
			snprintf(err, err_len, "unknown option %s; see --help", argv[i]);
			return -EINVAL;
		}
		if (t->kind == SWITCH || t->kind == IGNORED_SWITCH)
			value = off ? "false" : value ? value : "true";
		else if (!value && i + 1 < argc)
			value = argv[++i];
		if (!value) {
			snprintf(err, err_len, "--%s wants a value: %s", t->name, t->metavar);
			return -EINVAL;
		}
		if (set(o, t, value, true))
			return bad(err, err_len, t, value);
		while (takes_many(t) && i + 1 < argc && argv[i + 1][0] != '-')
			if (set(o, t, argv[++i], false))
				return bad(err, err_len, t, argv[i]);
	}
	return check(o, err, err_len);
}

int opts_set_live(struct opts *o, const char *name, const char *value, char *err, size_t err_len)
{
	const struct opt *t = find(name, strlen(name));
	struct opts old = *o;

	if (!t) {
		snprintf(err, err_len, "unknown option %s", name);
		return -ENOENT;
	}
	if (!t->live) {
		snprintf(err, err_len, "%s cannot change while the pod runs", t->name);
		return -EPERM;
	}
	if (set(o, t, value, true)) {
		*o = old;
		return bad(err, err_len, t, value);
	}
	if (check(o, err, err_len)) {
		*o = old;
		return -EINVAL;
	}
	return 0;
}

int opts_write_live(const struct opts *o, struct buf *out)
{
	struct jw w;

	jw_init(&w, out);
	jw_obj(&w);
	for (size_t i = 0; i < NOPTS; i++) {
		const struct opt *t = &table[i];
		const char *at = (const char *)o + t->at;

		if (!t->live || t->kind == FAKE)
			continue;
		jw_key(&w, t->name);
		switch (t->kind) {
		case U32:
			jw_u64(&w, *(const uint32_t *)at);
			break;
		case NUMBER:
			jw_num(&w, *(const double *)at);
			break;
		case TIME: /* in milliseconds */
			jw_num(&w, *(const double *)at * 1e-6);
			break;
		case SWITCH:
			jw_bool(&w, *(const bool *)at);
			break;
		case FAULTS_LIST:
			jw_arr(&w);
			for (unsigned f = 1; f < FAULT_N; f++)
				if (o->failure_types[f])
					jw_str(&w, fault_names[f]);
			jw_end_arr(&w);
			break;
		default:
			jw_str(&w, *(const char *const *)at);
			break;
		}
	}
	jw_end_obj(&w);
	return jw_err(&w);
}

void opts_help(FILE *f)
{
	fprintf(f,
		"usage: kvsim [serve] [MODEL] [option…]\n\n"
		"One or more simulated vLLM pods: OpenAI API, /metrics, KV events. Times are milliseconds, or 250us,\n"
		"1.5ms, 2s. Options with * may change while it runs: POST /admin/config {\"NAME\": value, …}.\n\n");
	for (size_t i = 0; i < NOPTS; i++) {
		const struct opt *t = &table[i];
		char left[64];

		if (!t->help)
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", t->name, t->metavar ? " " : "", t->metavar ? t->metavar : "");
		fprintf(f, "%s %-40s %s", t->live ? " *" : "  ", left, t->help);
		if (t->deflt && *t->deflt)
			fprintf(f, "%s(%s)", *t->help ? " " : "", t->deflt);
		fputc('\n', f);
	}
	fprintf(f, "\nFailure types (also for one request, by the header x-kvsim-fault: TYPE):\n ");
	for (unsigned i = 1; i < FAULT_N; i++)
		fprintf(f, " %s%s", fault_names[i], i == FAULT_model_not_found ? "\n " : "");
	fprintf(f, "\n");
}
