/* SPDX-License-Identifier: Apache-2.0
 * The road of a request: accept, read the head, read the body, look into it, pick a pod, forward, relay the answer,
 * account. The only module that knows both HTTP and scheduling.
 *
 *   worker.c    a thread: listeners, loop, scratch, start and drain
 *   client.c    a client's connection: heads, bodies, pipelining, the answer's bytes
 *   request.c   one request's life: dispatch, retries, its end; the picture of its states
 *   admit.c     its head: refused, answered here, or a request
 *   body.c      its body: received, looked into, decided on
 *   api.c       which paths are a client's
 *   inspect.c   what a body says, while it arrives: model, prompt, salt, fields that may not pass
 *   render.c    a chat's text, by the template of its model
 *   prompt.c    the prompt's text and its hashes
 *   decide.c    candidates, match, pick, explain record
 *   check.c     what was predicted against what the answer reports
 *   guess.c     what the index is told, and taken back when a leg fails
 *   upstream.c  a pod's connection and the pool of idle ones
 *   relay.c     the answer's carrier that always works
 *   splice.c    the answer's way into the kernel's hands, and back
 *   answer.c    what the gateway says itself: errors, /v1/models, /health
 *   decision.c  the ring of explain records
 *
 * Threads: a worker owns everything that hangs on its loop. Shared are: snapshots (qsbr), pods' ledgers, the index
 * (readers), the ring of decisions (a lock, taken once per request) and the counters (one shard per worker).
 */
#ifndef KVS_PROXY_PROXY_H
#define KVS_PROXY_PROXY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/jw.h"
#include "base/qsbr.h"
#include "config/config.h"
#include "datapath/datapath.h"
#include "endpoint/endpoint.h"
#include "events/events.h"
#include "kvindex/kvindex.h"
#include "model/chat_model.h"
#include "model/vocab.h"
#include "sched/sched.h"
#include "stats/stats.h"
#include "truth/truth.h"

#define PROXY_WORKERS_MAX   62 /* of QSBR_READERS: an id each, the rest is for other threads */
#define DECISION_CANDIDATES 16

/* What all requests of a pool share. */
struct proxy_pool {
	const struct config_pool *cfg;
	const struct sched_ops *policy;
	struct sched_tuning tuning;
	struct vocab *vocab;		     /* NULL: what an id stands for is not known */
	struct chat_model *chat;	     /* NULL: what a chat's text is is not known, … */
	char *chat_why;			     /* … and why; may be NULL */
	_Atomic bool chats_approximate;	     /* chats came for which that mattered */
	_Atomic uint32_t bytes_per_token_q8; /* learned from reported usage; 4.0 at the start */
	_Atomic uint32_t bytes_per_token_n;  /* samples so far, up to 16 */
	_Atomic uint32_t queued; /* requests that wait for a connection to a pod, held against limits.queue */
};

/* Shared by the workers; agent/ fills it before proxy_start and keeps it until proxy_stop has returned. */
struct proxy_shared {
	const struct config *cfg;
	struct qsbr *qsbr;
	struct endpoints *endpoints;
	struct kvindex *index;
	struct events *events; /* NULL: no speculation */
	struct datapath *datapath;
	struct proxy_pool *pools;		       /* cfg->npools */
	struct stats *stats;			       /* a shard per worker, from shard 0 */
	struct truth_ring *truth;		       /* one per worker */
	struct stats_hist *ttft, *duration, *decision; /* one per worker each */
	_Atomic int64_t memory;			       /* bytes of bodies held now, against memory.max */
	_Atomic uint64_t no_early_until;	       /* monotonic; proxy/'s own */
	_Atomic uint32_t streams, connections;
	_Atomic bool draining;
};

struct proxy;

/* Opens every worker's listeners, then starts the threads. NULL and errno; <err> has one line. */
struct proxy *proxy_start(struct proxy_shared *sh, unsigned workers, char *err, size_t err_len);
/* No new connections; idle ones are closed, answers carry Connection: close. sh->connections reaches 0 in the end. */
void proxy_drain(struct proxy *px);
/* Ends the threads, resets what is left. True: streams that the kernel carries are left alone, and go on when the
 * process has ended; nothing may be freed then. */
bool proxy_stop(struct proxy *px);

/* --- explain records --- */

struct decision_row {
	char pod[POD_NAME_MAX], ip[POD_NAME_MAX];
	uint32_t matched, in_cpu, in_disk, blocks, uncached, inflight, waiting;
	float backlog, own, cost;
	float score;	 /* blocks, by what they are worth where they lie */
	float ttft, gap; /* seconds, NAN: not known */
	bool doubted;	 /* what its events tell has not held lately */
};

struct decision {
	uint64_t wall_ns;
	char request[80], model[128], base[128];
	const char *policy; /* static */
	const char *end;    /* static; NULL while it runs */
	enum sched_mode mode;
	uint32_t prompt_tokens, predicted, reported;
	bool reported_known;
	uint16_t status;
	uint8_t attempts;
	char pod[POD_NAME_MAX];
	uint64_t ttft_ns, duration_ns, decide_ns;
	const char *carrier;	/* static: of the last part of the answer */
	uint64_t spliced_bytes; /* that no user space has seen */
	uint64_t gap_ns;	/* the longest between segments of these */
	unsigned nrows, npods;	/* candidates kept here (best first), candidates there were */
	struct decision_row rows[];
};

#define DECISION_SIZE (sizeof(struct decision) + DECISION_CANDIDATES * sizeof(struct decision_row))

/* A full record as one JSON object, as the control socket and `kvsteer decision` have it. */
void decision_write(const struct decision *d, struct jw *w);
/* The short form: the x-kvsteer-decision header. */
void decision_write_header(const struct decision *d, struct jw *w);

/* The newest record of that request, into <ret> (DECISION_SIZE bytes). Any thread. 0 or -ENOENT. */
int proxy_decision(struct proxy *px, struct str request, struct decision *ret);
/* The first record with a serial above *after (0: the oldest kept); *after becomes its serial. Any thread. 1 or 0. */
int proxy_next_decision(struct proxy *px, uint64_t *after, struct decision *ret);
uint64_t proxy_decision_serial(struct proxy *px); /* of the newest */

/* Depth of <text> per holder, for `kvsteer index lookup`. <reader> is the calling thread's qsbr id. */
unsigned proxy_lookup(struct proxy_shared *sh, unsigned reader, struct str model, struct str text,
		      struct index_hit *hits, unsigned cap);

#endif
