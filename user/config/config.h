/* SPDX-License-Identifier: Apache-2.0
 * YAML → an immutable configuration. One table of options (options.c: key, type, default, range, mutability, doc line)
 * gives the parser, `kvsteer config defaults`, --help and the man page.
 *
 * Errors are for people: FILE:LINE:COL: what, why, what is allowed; a mistyped key gets a suggestion.
 * Durations are nanoseconds, sizes bytes.
 */
#ifndef KVS_CONFIG_CONFIG_H
#define KVS_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

struct config_listener {
	char *address;
	unsigned nallow;
	char **allow; /* paths.allow: extra paths that may reach a pod */
};

/* One pod of static discovery, and what a pods file holds. */
struct config_pod {
	char *address;			 /* HOST:PORT */
	char *role;			 /* "both", "prefill", "decode" */
	char *events, *replay, *metrics; /* NULL: none. The first two as written: a host * is the pod's own */
	uint64_t weight, ranks;
};

enum config_discovery { DISC_STATIC, DISC_FILE, DISC_DNS };

struct config_pool {
	char *name;
	unsigned nmodels;
	char **models;	      /* served names; none: whatever the pods list */
	char *model_path;     /* NULL: no vocabulary, prefixes are approximate */
	char *chat_template;  /* NULL: what model_path has */
	char *engine;	      /* "auto", "vllm", "sglang", "trtllm" */
	char *engine_version; /* NULL: what each pod says */
	char *api_key_file;
	char *metrics_port, *metrics_path; /* "same" or a port; "/metrics" */
	enum config_discovery discovery;
	unsigned npods;
	struct config_pod *pods;   /* static */
	char *file;		   /* DISC_FILE */
	char *dns_name, *dns_port; /* DISC_DNS: port is a number, or a service name for SRV ("_http._tcp") */
	uint64_t dns_interval, dns_ranks;
	char *dns_events, *dns_replay; /* with * for the pod's address; NULL: none */
	char *policy;		       /* "default", "round-robin", … */
	double tier_cpu, tier_disk;    /* what a cached token is worth there, 0 … 1 */
	uint64_t attention_tokens;
	uint64_t scrape_interval, health_interval, health_timeout;
	char *health_path;
	/* limits */
	uint64_t queue;
	uint64_t queue_timeout, connect_timeout, first_byte, stream_idle, client_idle, request_head;
	uint64_t body;
	uint64_t retries; /* 0 … 5, default 2 */
	bool retry_busy;  /* a pod's 503 goes on to the next pod (default true), else to the client */
	bool approx_lru;  /* engines without events: assume that they keep what was sent (default true) */
	double drift;	  /* share of answers that may be off before a pod's predictions are doubted */
	uint64_t drift_samples;
	bool drift_fall_back;
	uint64_t kv_tokens; /* capacity of a pod's cache in tokens where the engine does not say, default 400000 */
};

struct config {
	char *file; /* NULL: made from the command line */
	unsigned nlisteners;
	struct config_listener *listeners;
	char *admin; /* "" switches it off */
	char *control;
	uint64_t workers; /* 0: one per online processor */
	unsigned npools;
	struct config_pool *pools;
	char *datapath_mode; /* auto | tc | skmsg | relay | off */
	char *datapath_devices;
	uint64_t datapath_min_bytes, datapath_splices, datapath_retain;
	char *model_cache;
	char *index_keep;
	uint64_t index_interval, index_stale;
	uint64_t memory_max, memory_index;
	char *log_level, *log_format; /* debug|info|warn|error, logfmt|json */
	uint64_t drain_timeout;
	uint64_t decisions; /* how many are kept for `kvsteer decision` */
};

/* Read a file, or text with a name for messages. NULL and errno (EINVAL: <err> has one message a line; ENOMEM, or the
 * error of open(2)). */
struct config *config_load(const char *file, struct buf *err);
struct config *config_parse(struct str text, const char *name, struct buf *err);

/* What --listen, --pod … give: */
struct config *config_defaults(void);
int config_add_listener(struct config *c, const char *address, struct buf *err);
/* HOST:PORT[,role=…][,events=…][,replay=…][,metrics=…][,weight=N][,ranks=N] into pool "default". */
int config_add_pod(struct config *c, const char *spec, struct buf *err);
int config_set(struct config *c, const char *key, const char *value, struct buf *err); /* "memory.max" "1GiB" */
int config_set_pair(struct config *c, const char *pair, struct buf *err);	       /* "memory.max=1GiB" */
int config_check(const struct config *c, struct buf *err); /* what no single value shows: no pods, no listener … */

void config_free(struct config *c);

/* A pods file: YAML list of the same members as discovery.static. Caller frees with config_pods_free. */
int config_load_pods(const char *file, struct config_pod **ret, unsigned *ret_n, struct buf *err);
void config_pods_free(struct config_pod *pods, unsigned n);

int config_write_yaml(const struct config *c, struct buf *out); /* effective, every key */
int config_write_defaults(struct buf *out);			/* with doc lines as comments */
int config_write_help(struct buf *out);				/* for --help */
int config_write_rst(struct buf *out);				/* for the man page */

/* Calls <changed> for each key whose value differs: "pools[0].limits.queue"; <restart>: a reload cannot change it. */
void config_diff(const struct config *a, const struct config *b,
		 void (*changed)(void *arg, const char *key, bool restart), void *arg);

/* Changes <to>, which others may be reading, to what <from> has, but for what needs a restart and for the static pods.
 * <from> is not to be used any more, but is still the caller's to free. */
void config_take(struct config *to, struct config *from);

#endif
