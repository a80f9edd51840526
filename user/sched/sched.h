/* SPDX-License-Identifier: Apache-2.0
 * Which pod? A pure function of the request's terms, one row per candidate and a random stream: no clock, no I/O, no
 * allocation. The same object runs in the daemon, in tests and in replay.
 *
 * Formulas and evidence: docs/scheduling.md. A policy is one file with one ops table and one line in sched.c.
 */
#ifndef KVS_SCHED_SCHED_H
#define KVS_SCHED_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rand.h"
#include "base/str.h"

#define SCHED_ROWS_MAX	 256
#define SCHED_RANKED_MAX 4

/* What an operator may know better. */
struct sched_tuning {
	double cpu, disk;	 /* what a token cached there is worth next to one in the GPU, 0 … 1; the rest is what
				  * loading it costs, in tokens computed */
	double attention_tokens; /* behind so many, a token costs twice as much to compute as the first */
};
#define SCHED_TUNING { 0.75, 0.25, 50000 }

/* How sure the match is; the ladder of degradation, best first. The default policy goes by cost in all but
 * SCHED_SESSION, where it keeps a session (else a prefix) on its pod. */
enum sched_mode { SCHED_PRECISE, SCHED_APPROXIMATE, SCHED_SESSION, SCHED_LOAD };
const char *sched_mode_name(enum sched_mode m);

struct sched_row {
	uint16_t pod;			      /* caller's index */
	uint8_t role;			      /* enum pod_role */
	uint8_t weight;			      /* 1 … 100; 0 counts as 1, the caller leaves such rows out */
	uint64_t key;			      /* pod->key: the same in every snapshot, process and replica */
	uint32_t matched;		      /* m_j: tokens of the prompt that it holds, in whatever tier */
	uint32_t in_cpu, in_disk;	      /* of these, tokens that it has to load from there */
	uint32_t n;			      /* requests sent and not finished */
	uint32_t waiting;		      /* of these, without a first token */
	double backlog;			      /* B_j: seconds */
	double s, t;			      /* learned rate's sums */
	float kv_usage;			      /* 0 … 1, NAN unknown */
	float engine_running, engine_waiting; /* scraped, NAN unknown */
	float ttft, gap;		      /* seconds, of late, as the kernel saw them; NAN unknown */
	/* out: terms for the explain record */
	uint32_t uncached; /* u_j */
	double work;	   /* w_j */
	double rate;	   /* b_j: seconds per token-equivalent */
	double own;	   /* own_j: seconds */
	double cost;	   /* lower is better; what a policy orders by */
};

struct sched_in {
	uint32_t prompt_tokens;		   /* L; an estimate where tokens are not known */
	uint64_t session;		   /* hash of the session id, 0: none */
	uint64_t prefix;		   /* hash of the first chunk, 0: none */
	double pool_s, pool_t;		   /* the pool's learned sums */
	const struct sched_tuning *tuning; /* NULL: SCHED_TUNING */
	enum sched_mode mode;
};

/* Legs to try, best first. Step 4 adds roles of prefill and decode; every leg names a row. */
struct sched_out {
	unsigned n;			/* min(rows, SCHED_RANKED_MAX) */
	uint16_t row[SCHED_RANKED_MAX]; /* distinct indices of <rows> */
	double externality;		/* a; for the explain record */
};

struct sched_state { /* of one policy in one worker: a cursor for round robin; zeroed at start */
	uint64_t turn;
};

struct sched_ops {
	const char *name;
	const char *doc; /* one line */
	/* Fill the rows' terms and <out>. n ≥ 1. */
	void (*pick)(const struct sched_in *in, struct sched_row *rows, unsigned n, struct sched_state *st,
		     struct rng *rng, struct sched_out *out);
};

const struct sched_ops *sched_find(struct str name); /* NULL: no such policy */
const struct sched_ops *const *sched_all(void);	     /* NULL-terminated */

/* The cost model's terms u, w, b, own of every row; policies call it first so that the ledger can charge own. */
void sched_terms(const struct sched_in *in, struct sched_row *rows, unsigned n);

#endif
