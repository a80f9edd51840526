/* SPDX-License-Identifier: Apache-2.0
 * kvsim's options: one table, from which the command line, --help and POST /admin/config live. Names are those of
 * vLLM and of llm-d's simulator where they have one; "-" and "_" are the same.
 */
#ifndef SIM_OPTS_H
#define SIM_OPTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"

#define OPTS_LIST_MAX 64

struct opts_list {
	const char *v[OPTS_LIST_MAX];
	unsigned n;
};

struct opts_lora {
	const char *name, *path;
};

/* One fake gauge: a fixed value, or a function of time. */
struct opts_fake {
	enum { FAKE_OFF, FAKE_FIXED, FAKE_OSCILLATE, FAKE_RAMP, FAKE_RAMPRESET, FAKE_SQUAREWAVE } kind;
	double start, end, period_s;
};

#define FAULTS(X)             \
	X(rate_limit)         \
	X(invalid_api_key)    \
	X(context_length)     \
	X(server_error)       \
	X(invalid_request)    \
	X(model_not_found)    \
	X(reset_before_head)  \
	X(fin_before_head)    \
	X(garbage)            \
	X(stall)              \
	X(reset_mid_stream)   \
	X(fin_mid_chunk)      \
	X(garbage_mid_stream) \
	X(stall_mid_stream)   \
	X(error_mid_stream)

enum fault {
	FAULT_NONE,
#define X(name) FAULT_##name,
	FAULTS(X)
#undef X
		FAULT_N
};

struct opts {
	/* where */
	struct opts_list listen;
	const char *host;
	uint32_t port, pods;
	/* what */
	const char *model, *role, *mode, *tokenizer, *vllm_version;
	struct opts_list served;
	struct opts_lora lora[OPTS_LIST_MAX];
	unsigned nlora;
	uint32_t max_loras, max_model_len, seed;
	double startup;
	bool sleep_mode, request_id_headers, prompt_tokens_details, lora_updating;
	/* engine */
	uint32_t max_num_seqs, max_waiting, max_batched_tokens, kv_blocks, host_blocks, block_size;
	bool prefix_caching;
	const char *hash_seed, *extra_keys;
	double ttft, ttft_std, itl, itl_std, overhead, per_token, transfer, transfer_per_token, load_factor; /* ns */
	/* events */
	const char *zmq_endpoint, *replay_endpoint, *events_http, *topic, *event_format, *hash_format, *replay_framing;
	uint32_t replay_size, hwm, zmq_stride, events_buffer;
	bool zmq_bind;
	/* faults */
	double failure_rate; /* percent */
	bool failure_types[FAULT_N];
	uint32_t failure_after;
	/* lies */
	double cached_factor;
	const char *chat_prelude;
	uint32_t event_block;
	bool mute_stored, mute_removed;
	double keep_alive; /* ns */
	bool stamp;
	struct opts_fake fake_running, fake_waiting, fake_usage;
	bool help, version;
};

void opts_defaults(struct opts *o);

/* 0, or -EINVAL with one line in <err>. Strings of <argv> are kept. */
int opts_parse(struct opts *o, int argc, char **argv, char *err, size_t err_len);

/* Set one option that may change while the pod runs. -ENOENT: no such option; -EPERM: not while it runs; -EINVAL. */
int opts_set_live(struct opts *o, const char *name, const char *value, char *err, size_t err_len);

void opts_help(FILE *f);
/* The options that may change, as a JSON object. */
int opts_write_live(const struct opts *o, struct buf *out);

const char *opts_keep(const char *s); /* a copy that lives until opts_cleanup */
void opts_cleanup(void);

enum fault fault_parse(const char *name); /* FAULT_NONE if it is none */
const char *fault_name(enum fault f);
double fake_value(const struct opts_fake *f, double t_s, double real);

#endif
