/* SPDX-License-Identifier: Apache-2.0
 * The engine: a queue of sequences, a KV cache, and steps. Pure: time is a parameter, tokens come from the owner.
 *
 *   submit … → begin(now) → how long the step takes → end(now) → tokens to their owners → begin(now) …
 *
 * A step decodes one token of each running sequence and computes chunks of prompts with what is left of the token
 * budget, as vLLM's scheduler does; its length is what both cost (see struct engine_cost).
 *
 * Ownership: sequences are their owner's, from seq_init to seq_free; between engine_submit and engine_ops.done (or
 * engine_abort) they are linked in the engine. Owners must not abort from inside a callback.
 */
#ifndef SIM_ENGINE_H
#define SIM_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/rand.h"
#include "cache.h"
#include "hist.h"

/* Nanoseconds. <ttft> is waited for, whatever else runs; <overhead> and <per_token> are computed: they lengthen the
 * step for all. Compute is multiplied by 1 + (load_factor - 1) × (running - 1) / (max_num_seqs - 1). */
struct engine_cost {
	double ttft, ttft_std;
	double itl, itl_std;
	double overhead, per_token;
	double transfer, transfer_per_token; /* KV blocks from a prefill pod */
	double load_factor;
};

struct engine_limits {
	uint32_t block_size;
	uint32_t max_num_seqs;
	uint32_t max_batched_tokens; /* per step; only where computing a prompt costs anything */
	uint32_t max_waiting;
	uint32_t max_loras; /* different adapters running at once */
	bool untagged_keys; /* how LoRA and salt enter the hashes: see blockhash.h */
};

enum finish { FINISH_NONE, FINISH_STOP, FINISH_LENGTH, FINISH_ABORT, FINISH_ERROR, FINISH_N };

struct seq {
	struct list link;
	uint32_t *tokens; /* prompt, then output */
	uint32_t nprompt, ntokens, cap;
	struct str lora, lora_path, salt; /* the owner's; {NULL, 0}: none */
	bool remote;			  /* the prompt's KV is fetched from another pod */

	/* the engine's */
	struct digest *digests; /* of full blocks */
	uint32_t ndigests;
	uint32_t *blocks;
	uint32_t nblocks, cap_blocks;
	uint32_t computed; /* tokens whose KV is there */
	uint32_t stored;   /* blocks that are findable */
	uint32_t chunk;	   /* tokens of this step */
	uint32_t cached;   /* tokens hit when it was scheduled first */
	bool running, waiting;
	uint64_t ready_at; /* waits for its first token until then; 0: no */
	uint64_t t_arrive, t_sched, t_first, t_last;
};

struct engine_stats {
	uint64_t queries, hits; /* tokens */
	uint64_t prompt_tokens, computed_tokens, remote_tokens, generated_tokens, preemptions, rejected;
	uint64_t finished[FINISH_N];
	struct phist ttft, itl, tpot, e2e, queue, inference, prefill, decode, prompt, generation, iteration;
};

struct engine;

struct engine_ops {
	/* A token of <s> is due: append it with seq_push. FINISH_NONE to go on. */
	enum finish (*token)(struct engine *e, struct seq *s);
	/* <s> has left the engine; it may be freed here. */
	void (*done)(struct engine *e, struct seq *s, enum finish why);
	/* The events so far belong to one scheduler step. */
	void (*step)(struct engine *e);
};

struct engine {
	struct cache cache, host;
	struct engine_limits lim;
	struct engine_cost cost;
	const struct engine_ops *ops;
	struct digest none;
	struct rng rng;
	struct list waiting, running;
	uint32_t nwaiting, nrunning;
	bool asleep;
	bool in_step;
	bool only_waits; /* this step computes nothing: a new sequence need not wait for its end */
	struct engine_stats stats;
};

int engine_init(struct engine *e, const struct engine_limits *lim, const struct engine_cost *cost,
		const struct engine_ops *ops, uint32_t nblocks, bool prefix_caching, struct str hash_seed,
		uint64_t rng_seed, struct kv_sink *sink);
int engine_add_host(struct engine *e, uint32_t nblocks); /* host memory below the cache; 0 or -ENOMEM */
void engine_free(struct engine *e);

int seq_init(struct seq *s, const uint32_t *prompt, uint32_t n); /* 0 or -ENOMEM; n > 0 */
void seq_free(struct seq *s);
int seq_push(struct seq *s, uint32_t token);

/* 0, -EBUSY (queue full) or -ENOMEM. */
int engine_submit(struct engine *e, struct seq *s, uint64_t now);
void engine_abort(struct engine *e, struct seq *s, uint64_t now); /* no callback */

#define ENGINE_IDLE UINT64_MAX
/* Start a step; returns its length in ns, or ENGINE_IDLE. */
uint64_t engine_begin(struct engine *e, uint64_t now);
void engine_end(struct engine *e, uint64_t now);

/* Has a sequence with this adapter been started / is it queued? */
uint32_t engine_lora_running(const struct engine *e, struct str lora);
uint32_t engine_lora_waiting(const struct engine *e, struct str lora);

#endif
