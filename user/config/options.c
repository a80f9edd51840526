/* SPDX-License-Identifier: Apache-2.0
 *
 * The options: one row each. The parser, `kvsteer config defaults`, --help, the man page, the effective YAML and the
 * diff of a reload are loops over these rows.
 */
#include "config/config_int.h"

#define OFF(s, f)     offsetof(struct s, f)
#define DURATION_MAX  (UINT64_C(86400) * 1000000000)
#define MS	      UINT64_C(1000000)
#define KIB	      UINT64_C(1024)
#define TIB	      (UINT64_C(1) << 40)
#define ROWS(section) .n = sizeof(section) / sizeof((section)[0]), .opts = (section)

static bool is_static(const void *base)
{
	return ((const struct config_pool *)base)->discovery == DISC_STATIC;
}

static bool is_dns(const void *base)
{
	return ((const struct config_pool *)base)->discovery == DISC_DNS;
}

static const struct option pod_options[] = {
	{ "address", OPT_STRING, OFF(config_pod, address), .ok = ok_hostport, .allowed = "HOST:PORT",
	  .doc = "Where the pod serves HTTP: an address or a name, and a port. Required." },
	{ "role", OPT_ENUM, OFF(config_pod, role), .def = "both", .allowed = "both|prefill|decode",
	  .doc = "What the pod does of a request." },
	{ "events", OPT_STRING, OFF(config_pod, events), .ok = ok_events,
	  .allowed = "tcp://HOST:PORT or http://HOST:PORT[/PATH]",
	  .doc = "Where the pod tells its KV events: tcp:// is ZeroMQ (vLLM, SGLang), http:// is TensorRT-LLM's "
		 "/kv_cache_events, which only one reader may ask. HOST may be *, the pod's address; http://* is its "
		 "serving port. Without events its prefixes are assumed, not known." },
	{ "replay", OPT_STRING, OFF(config_pod, replay), .ok = ok_replay, .allowed = "tcp://HOST:PORT",
	  .doc = "Where the pod replays KV events that were missed (ZeroMQ). HOST may be *, the pod's address." },
	{ "metrics", OPT_STRING, OFF(config_pod, metrics), .ok = ok_metrics, .allowed = "HOST:PORT[/PATH]",
	  .doc = "Where this pod's metrics are, if not where the pool's metrics.port and metrics.path say." },
	{ "weight", OPT_COUNT, OFF(config_pod, weight), .def = "1", .max = 100,
	  .doc = "Share of new requests relative to its peers; 0 takes none." },
	{ "ranks", OPT_COUNT, OFF(config_pod, ranks), .def = "1", .min = 1, .max = 8,
	  .doc = "Data-parallel ranks behind the address; rank r publishes its events r ports higher." },
};

static const struct option listener_options[] = {
	{ "address", OPT_STRING, OFF(config_listener, address), .def = "0.0.0.0:8080", .ok = ok_listen,
	  .allowed = "ADDRESS:PORT", .restart = true,
	  .doc = "Where clients connect: an address literal or nothing (all addresses), and a port." },
	{ "paths.allow", OPT_STRINGS, OFF(config_listener, allow), OFF(config_listener, nallow), .ok = ok_http_path,
	  .allowed = "list of paths", .restart = true,
	  .doc = "Paths beyond the inference API that may reach a pod. Engines expose operator's endpoints such as "
		 "/sleep on the same port; what is not named here is refused." },
	{ "tls", OPT_LATER, .doc = "" },
	{ "auth", OPT_LATER, .doc = "" },
};

static const struct option pool_options[] = {
	{ "name", OPT_STRING, OFF(config_pool, name), .def = "default", .ok = ok_name, .allowed = "name",
	  .restart = true, .doc = "Name of the pool in logs, metrics and messages; unique." },
	{ "models", OPT_STRINGS, OFF(config_pool, models), OFF(config_pool, nmodels), .ok = ok_nonempty,
	  .allowed = "list of names", .restart = true,
	  .doc = "Model names that clients may ask for. Empty: whatever the pods list. LoRA adapters are read from the "
		 "pods in either case." },
	{ "model-path", OPT_PATH, OFF(config_pool, model_path), .ok = ok_nonempty, .allowed = "directory",
	  .restart = true,
	  .doc = "Directory with the model's tokenizer.json. Without it KV events cannot be read and prefixes are "
		 "approximate." },
	{ "chat-template", OPT_PATH, OFF(config_pool, chat_template), .ok = ok_nonempty, .allowed = "file",
	  .restart = true,
	  .doc = "The template that the engines are started with (vLLM's --chat-template), if it is not the one in "
		 "model-path." },
	{ "engine", OPT_ENUM, OFF(config_pool, engine), .def = "auto", .allowed = "auto|vllm|sglang|trtllm",
	  .restart = true, .doc = "What serves the model; auto reads it from the pods' metrics." },
	{ "engine-version", OPT_STRING, OFF(config_pool, engine_version), .ok = ok_nonempty, .allowed = "version",
	  .restart = true,
	  .doc = "The version of vLLM whose rules for chats are followed, where pods do not say theirs, or say one "
		 "that "
		 "is not known." },
	{ "api-key-file", OPT_PATH, OFF(config_pool, api_key_file), .ok = ok_nonempty, .allowed = "file",
	  .restart = true,
	  .doc = "File with the key for kvsteer's own calls to the pods. Clients' Authorization passes through." },
	{ "metrics.port", OPT_STRING, OFF(config_pool, metrics_port), .def = "same", .ok = ok_metrics_port,
	  .allowed = "same or a port", .restart = true, .doc = "Port of the pods' metrics; same: the serving port." },
	{ "metrics.path", OPT_STRING, OFF(config_pool, metrics_path), .def = "/metrics", .ok = ok_http_path,
	  .allowed = "path", .restart = true, .doc = "Path of the pods' metrics." },
	{ "discovery.static", OPT_LIST, OFF(config_pool, pods), OFF(config_pool, npods), .list = &section_pod,
	  .shown = is_static,
	  .doc = "The pods, one by one: mappings, or strings HOST:PORT[,role=ROLE][,events=…][,replay=…]…" },
	{ "discovery.file", OPT_PATH, OFF(config_pool, file), .ok = ok_nonempty, .allowed = "file", .restart = true,
	  .doc = "A file that lists the pods as discovery.static does; it is watched." },
	{ "discovery.dns.name", OPT_STRING, OFF(config_pool, dns_name), .ok = ok_dns_name, .allowed = "name",
	  .restart = true, .doc = "A name whose addresses are the pods, for instance that of a headless service." },
	{ "discovery.dns.port", OPT_STRING, OFF(config_pool, dns_port), .def = "8000", .ok = ok_dns_port,
	  .allowed = "port or _SERVICE._tcp", .shown = is_dns, .restart = true,
	  .doc = "The pods' port; a service name such as _http._tcp asks for SRV records, which bring their ports." },
	{ "discovery.dns.interval", OPT_DURATION, OFF(config_pool, dns_interval), .def = "5s", .min = 100 * MS,
	  .max = DURATION_MAX, .shown = is_dns, .restart = true, .doc = "How often the name is looked up." },
	{ "discovery.dns.events", OPT_STRING, OFF(config_pool, dns_events), .ok = ok_events,
	  .allowed = "tcp://*:PORT or http://*[:PORT][/PATH]", .shown = is_dns, .restart = true,
	  .doc = "Where each pod tells its KV events, as events of a pod that is listed; * is the pod's address, for "
		 "instance tcp://*:5557." },
	{ "discovery.dns.replay", OPT_STRING, OFF(config_pool, dns_replay), .ok = ok_replay, .allowed = "tcp://*:PORT",
	  .shown = is_dns, .restart = true, .doc = "Where each pod replays KV events, for instance tcp://*:5558." },
	{ "discovery.dns.ranks", OPT_COUNT, OFF(config_pool, dns_ranks), .def = "1", .min = 1, .max = 8,
	  .shown = is_dns, .restart = true,
	  .doc = "Data-parallel ranks behind each address, as ranks of a pod that is listed." },
	{ "discovery.kubernetes", OPT_LATER, .doc = "" },
	{ "scheduling.policy", OPT_ENUM, OFF(config_pool, policy), .def = "default",
	  .allowed = "default|round-robin|random|least-request|p2c|session-hash",
	  .doc = "How a pod is chosen. default weighs cached prefix against predicted work; the others are for "
		 "comparison and for pods whose prefixes do not matter." },
	{ "scheduling.tiers.cpu", OPT_SHARE, OFF(config_pool, tier_cpu), .def = "0.75",
	  .doc = "What a token that a pod has cached in host memory is worth next to one in its GPU: 1 less the price "
		 "of loading it, in tokens that could be computed meanwhile." },
	{ "scheduling.tiers.disk", OPT_SHARE, OFF(config_pool, tier_disk), .def = "0.25",
	  .doc = "The same of one on a disk or in a store behind it." },
	{ "scheduling.attention-tokens", OPT_COUNT, OFF(config_pool, attention_tokens), .def = "50000", .min = 100,
	  .max = 1000000000,
	  .doc = "Behind so many tokens one more costs twice as much to compute as the first. Depends on the model; "
		 "docs/scheduling.md tells how to measure it." },
	{ "scheduling.llm-d-config", OPT_LATER, .doc = "" },
	{ "scrape.interval", OPT_DURATION, OFF(config_pool, scrape_interval), .def = "200ms", .min = 10 * MS,
	  .max = DURATION_MAX, .doc = "How often each pod's metrics are read." },
	{ "health.path", OPT_STRING, OFF(config_pool, health_path), .def = "/health", .ok = ok_http_path,
	  .allowed = "path", .restart = true, .doc = "Path of the active health check; 200 is healthy." },
	{ "health.interval", OPT_DURATION, OFF(config_pool, health_interval), .def = "2s", .min = 50 * MS,
	  .max = DURATION_MAX, .doc = "How often each pod's health is asked for." },
	{ "health.timeout", OPT_DURATION, OFF(config_pool, health_timeout), .def = "2s", .min = 10 * MS,
	  .max = DURATION_MAX, .doc = "How long a health check may take." },
	{ "limits.queue", OPT_COUNT, OFF(config_pool, queue), .def = "1000", .max = 1000000,
	  .doc = "Requests that may wait for a connection to a pod; more are answered 429." },
	{ "limits.queue-timeout", OPT_DURATION, OFF(config_pool, queue_timeout), .def = "30s", .max = DURATION_MAX,
	  .doc = "How long a request may wait for that, retries included." },
	{ "limits.connect-timeout", OPT_DURATION, OFF(config_pool, connect_timeout), .def = "1s", .min = MS,
	  .max = DURATION_MAX, .doc = "How long connecting to a pod may take." },
	{ "limits.first-byte", OPT_DURATION, OFF(config_pool, first_byte), .def = "300s", .min = MS,
	  .max = DURATION_MAX, .doc = "How long a pod may take from the request's last byte to its answer's first." },
	{ "limits.stream-idle", OPT_DURATION, OFF(config_pool, stream_idle), .def = "300s", .min = MS,
	  .max = DURATION_MAX,
	  .doc = "How long a started answer may be silent. The total time of a stream has no limit." },
	{ "limits.client-idle", OPT_DURATION, OFF(config_pool, client_idle), .def = "300s", .min = MS,
	  .max = DURATION_MAX,
	  .doc = "How long a client's connection may be idle between requests. No pool is known then: the first one's "
		 "counts." },
	{ "limits.request-head", OPT_DURATION, OFF(config_pool, request_head), .def = "20s", .min = MS,
	  .max = DURATION_MAX,
	  .doc = "How long a client may take to send a request's head. No pool is known then: the first one's "
		 "counts." },
	{ "limits.body", OPT_SIZE, OFF(config_pool, body), .def = "32MiB", .min = KIB, .max = TIB,
	  .doc = "Largest request body; a larger one is answered 413. A client's body is read up to the largest limit "
		 "of any pool before its pool is known." },
	{ "limits.retries", OPT_COUNT, OFF(config_pool, retries), .def = "2", .max = 5,
	  .doc = "How often a request that no pod has begun to answer is sent to another pod." },
	{ "limits.retry-busy", OPT_BOOL, OFF(config_pool, retry_busy), .def = "true",
	  .doc = "A pod that answers 503 before its first byte is left for the next one; false: the client gets the "
		 "503." },
	{ "prefix.approximate", OPT_BOOL, OFF(config_pool, approx_lru), .def = "true",
	  .doc = "Pods without KV events: assume that they keep what was sent to them, oldest out first." },
	{ "prefix.drift", OPT_SHARE, OFF(config_pool, drift), .def = "0.25",
	  .doc = "A pod's predictions for a model are doubted when of its last 64 answers with cached tokens more than "
		 "this share reported something else, by more than a block; they are trusted again when it is less "
		 "than half of it. 1: never." },
	{ "prefix.drift-samples", OPT_COUNT, OFF(config_pool, drift_samples), .def = "16", .min = 4, .max = 64,
	  .doc = "So many such answers are needed for either." },
	{ "prefix.drift-fall-back", OPT_BOOL, OFF(config_pool, drift_fall_back), .def = "true",
	  .doc = "A pod that is doubted is matched approximately: by what was sent to it, and what its events tell "
		 "counts for as much as it was worth lately. false: there is a warning only." },
	{ "prefix.kv-tokens", OPT_COUNT, OFF(config_pool, kv_tokens), .def = "400000", .min = 1024,
	  .max = UINT64_C(1) << 32, .doc = "How many tokens a pod's cache holds, where the engine does not say." },
};

static const struct option root_options[] = {
	{ "listeners", OPT_LIST, OFF(config, listeners), OFF(config, nlisteners), .list = &section_listener,
	  .restart = true, .doc = "Where clients connect. None given: one, with the defaults." },
	{ "admin.address", OPT_STRING, OFF(config, admin), .def = "127.0.0.1:9090", .ok = ok_admin,
	  .allowed = "ADDRESS:PORT or \"\"", .restart = true,
	  .doc = "Where /metrics, /healthz, /readyz and /debug are; \"\" switches it off. It has no authentication." },
	{ "control", OPT_STRING, OFF(config, control), .def = "/run/kvsteer/kvsteer.sock", .ok = ok_socket,
	  .allowed = "path of a Unix socket", .restart = true, .doc = "Where kvsteer(8) reaches the daemon." },
	{ "workers", OPT_COUNT, OFF(config, workers), .def = "0", .max = 62, .restart = true,
	  .doc = "Threads that carry requests; 0: one per online processor." },
	{ "pools", OPT_LIST, OFF(config, pools), OFF(config, npools), .list = &section_pool, .restart = true,
	  .doc = "Pods that serve the same models. At least one pool is needed." },
	{ "datapath.mode", OPT_ENUM, OFF(config, datapath_mode), .def = "auto", .allowed = "auto|tc|skmsg|relay|off",
	  .doc = "What carries the tokens. auto takes the best that the host can; relay only counts in the kernel, off "
		 "does nothing there." },
	{ "datapath.devices", OPT_STRING, OFF(config, datapath_devices), .def = "auto", .ok = ok_devices,
	  .allowed = "auto or DEV[,DEV…]", .restart = true,
	  .doc = "Network devices to attach to; auto: those that the pods' and clients' routes use." },
	{ "datapath.min-bytes", OPT_SIZE, OFF(config, datapath_min_bytes), .def = "4KiB", .max = TIB,
	  .doc = "Answers that are known to be smaller are relayed: arming costs more than it saves." },
	{ "datapath.splices", OPT_COUNT, OFF(config, datapath_splices), .def = "16384", .min = 1, .max = 1 << 20,
	  .restart = true,
	  .doc = "How many answers the kernel may carry at a time, with four connections for each. Maps that a former "
		 "kvsteerd has left keep their size: kvsteer bpf unload." },
	{ "datapath.retain", OPT_DURATION, OFF(config, datapath_retain), .def = "120s", .min = 100 * MS,
	  .max = DURATION_MAX, .restart = true,
	  .doc = "How long the numbers of a connection that carried answers are kept behind its end: as long as a peer "
		 "may send something late." },
	{ "model-cache", OPT_PATH, OFF(config, model_cache), .def = "/var/cache/kvsteer",
	  .allowed = "directory or \"\"", .restart = true,
	  .doc = "Where compiled tokenizers are kept, so that a start takes milliseconds and not seconds. \"\", or one "
		 "that cannot be written: they are compiled at each start." },
	{ "memory.max", OPT_SIZE, OFF(config, memory_max), .def = "2GiB", .min = 64 * KIB * KIB, .max = 64 * TIB,
	  .doc = "Ceiling for index, bodies and streams together; at the ceiling new requests are answered 503." },
	{ "memory.index", OPT_SIZE, OFF(config, memory_index), .def = "512MiB", .min = KIB * KIB, .max = 64 * TIB,
	  .restart = true, .doc = "Ceiling of the prefix index; at the ceiling the oldest prefixes go." },
	{ "index.keep", OPT_PATH, OFF(config, index_keep), .def = "", .allowed = "file or \"\"", .restart = true,
	  .doc = "Where the prefix index is kept for the next start, with the secret of its hashes; \"\": nowhere. "
		 "What is "
		 "found there counts as stale until the pod's events or their replay show that it is still true." },
	{ "index.interval", OPT_DURATION, OFF(config, index_interval), .def = "60s", .min = 100 * MS,
	  .max = DURATION_MAX, .restart = true,
	  .doc = "How often it is written while events come; at the end it is in any case." },
	{ "index.stale", OPT_DURATION, OFF(config, index_stale), .def = "60s", .min = 100 * MS, .max = DURATION_MAX,
	  .restart = true, .doc = "How long what was found there is used without such proof." },
	{ "log.level", OPT_ENUM, OFF(config, log_level), .def = "info", .allowed = "debug|info|warn|error",
	  .doc = "Least important line that is logged." },
	{ "log.format", OPT_ENUM, OFF(config, log_format), .def = "logfmt", .allowed = "logfmt|json",
	  .doc = "How log lines look." },
	{ "drain-timeout", OPT_DURATION, OFF(config, drain_timeout), .def = "60s", .max = DURATION_MAX,
	  .doc = "How long streams may go on after SIGTERM." },
	{ "decisions", OPT_COUNT, OFF(config, decisions), .def = "1000", .max = 1000000, .restart = true,
	  .doc = "How many decisions are kept for kvsteer decision." },
};

const struct section section_pod = { "pod", sizeof(struct config_pod), ROWS(pod_options) };
const struct section section_listener = { "listener", sizeof(struct config_listener), ROWS(listener_options) };
const struct section section_pool = { "pool", sizeof(struct config_pool), ROWS(pool_options) };
const struct section section_root = { "", sizeof(struct config), ROWS(root_options) };

const struct option *option_find(const struct section *s, struct str key)
{
	for (unsigned i = 0; i < s->n; i++)
		if (str_eq(str_of(s->opts[i].key), key))
			return &s->opts[i];
	return NULL;
}

bool option_parent(const struct section *s, struct str key)
{
	for (unsigned i = 0; i < s->n; i++) {
		struct str k = str_of(s->opts[i].key);

		if (k.n > key.n && str_starts(k, key) && k.p[key.n] == '.')
			return true;
	}
	return false;
}
