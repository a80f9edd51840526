/* SPDX-License-Identifier: Apache-2.0
 * Private to events/: a pod that is followed (struct follow) has one stream per data-parallel rank. zmq.c moves frames,
 * poll.c asks over HTTP, follow.c decides what they mean for the sequence, apply.c puts batches into the index,
 * events.c is the thread.
 */
#ifndef KVS_EVENTS_EVENTS_INT_H
#define KVS_EVENTS_EVENTS_INT_H

#include <pthread.h>

#include "base/buf.h"
#include "base/list.h"
#include "events/events.h"
#include "fetch/fetch.h"
#include "loop/loop.h"
#include "model/canon.h"

#define RECENT 256 /* batches by whose contents a repetition is told from a restart */

struct stream;

struct events_timing {
	uint64_t idle_ns;     /* a replay that is silent for so long has failed */
	uint64_t total_ns;    /* and one that takes so long */
	uint64_t cooldown_ns; /* before the replay socket is tried again after a failure */
	uint64_t poll_ns;     /* HTTP: from an answer to the next question */
	uint64_t timeout_ns;  /* HTTP: for an answer. Servers gather for up to 2 s before they give one */
	uint64_t unknown_ns;  /* HTTP: how long the base name is waited for */
};

struct events {
	struct kvindex *x;
	struct stats *st;
	struct loop *loop;
	void *zmq;
	struct fetch *fetch;
	pthread_mutex_t keys_lock;
	struct fetch_key *keys; /* by pool */
	unsigned nkeys;
	pthread_t thread;
	struct events_timing timing;
	struct list pods; /* struct follow */
	struct loop_timer tick;
	_Atomic(struct loop_post *) guesses; /* not yet looked at */
	_Atomic bool awake;		     /* will look at them by itself */
	struct loop_post wake;
	uint64_t woken_ns; /* when it last ran */
	struct loop_timer nap;
	bool active; /* something changed in the index since the last tick */
	/* apply's scratch */
	struct buf text;
	uint32_t *ends;
	unsigned cap_ends;
	struct list canonicals;
	struct tail *tails;
	struct keep *keep; /* NULL: the index is not kept on disk */
};

/* A ZeroMQ socket on the loop. */
struct zsock {
	struct stream *s;
	void *sock;
	struct loop_fd fd;
	struct loop_work more; /* the turn's budget was used up, or the descriptor cannot be trusted to wake us */
};

enum stream_ask { ASK_ALL, ASK_GAP, ASK_CHECK };
enum stream_stale { STALE_GAP = 1, STALE_SUSPECT = 2 };

struct stream {
	struct follow *f;
	unsigned rank;
	uint16_t holder;
	struct zsock sub, mon, replay;
	uint64_t group_main, group_other; /* bits: kinds learned of cache groups 0 … 63 */
	uint32_t window;		  /* the largest seen: that of the blocks that are indexed */
	int64_t window_group;		  /* and the first group that had it; -1: none has told */
	struct trt_state trt;

	bool connected, ever;
	bool have; /* cursor is valid */
	uint64_t cursor;
	unsigned stale; /* enum stream_stale */
	bool warm;	/* cursor and blocks are an earlier process's */
	bool void_replay;

	bool replaying, ask_seen, ask_hole;
	enum stream_ask ask;
	bool asked; /* for the gap that begins at asked_from */
	uint64_t asked_from;
	uint64_t ask_end_ns, quiet_until_ns;
	unsigned retries;
	struct loop_timer timer; /* replaying: it is overdue; else: cool-down is over */
	struct list held;
	unsigned nheld;
	size_t held_bytes;

	uint64_t recent[RECENT]; /* hash of the payload of sequence number i, at i % RECENT */
};

/* The questions to a pod whose events come over HTTP. One answer holds those of all ranks. */
struct poll {
	struct fetch_ask ask;
	struct loop_timer due;
	bool known; /* the base name: it may be asked */
	bool post;  /* the method that the server takes, as far as known */
	bool other; /* the last answer was that it takes the other one */
	unsigned fails;
};

struct follow {
	struct list link;
	struct events *e;
	struct pod *pod;
	struct vocab *vocab;
	struct canonical *canonical; /* NULL: the vocabulary has no encoder */
	char *base;
	char events[128], replay[128]; /* copies: the pod's spec is the control thread's */
	bool http;
	bool doubted; /* see events_doubt */
	struct poll poll;
	unsigned nranks;
	struct stream s[];
};

struct events *events_start_timed(struct kvindex *x, struct stats *st, const struct events_timing *t,
				  const struct events_keep *keep);

/* --- fields.c --- */
bool kv_kind_is_main(struct str kind); /* of a cache group: the one whose blocks are indexed */

/* --- follow.c --- */
void stream_init(struct stream *s, struct follow *f, unsigned rank);
void stream_fini(struct stream *s);
void stream_up(struct stream *s);
void stream_down(struct stream *s);
void stream_live(struct stream *s, uint64_t seq, const void *payload, size_t len);
void stream_reply(struct stream *s, uint64_t seq, const void *payload, size_t len);
void stream_end(struct stream *s);
void stream_invalidate(struct stream *s);
void stream_rebuild(struct stream *s);
void stream_cool(struct stream *s);
void follow_publish(struct follow *f);

/* --- apply.c --- */
/* Put a batch into the index. Returns how many of its blocks hung on an unknown parent. */
unsigned stream_apply(struct stream *s, const void *payload, size_t len);

/* --- canonical.c --- */
struct canonical *canonical_get(struct events *e, struct vocab *v); /* NULL: there is none for it */
void canonical_put(struct canonical *k);
/* The text of a chain's blocks: with what it goes on, block by block, and what comes behind the last one. */
void canonical_begin(struct stream *s, bool has_parent, uint64_t parent, struct canon_tail *ret);
int canonical_text(struct stream *s, struct canon_tail *tail, const uint32_t *ids, size_t n, struct buf *text);
void canonical_end(struct stream *s, uint64_t hash, const struct canon_tail *tail);

/* --- keep.c --- */
int keep_start(struct events *e, const struct events_keep *given); /* takes given->from, unless it fails */
void keep_cancel(struct events *e);				   /* before the thread has run */
void keep_stop(struct events *e);				   /* saves */
void keep_load(struct stream *s);				   /* what there is of it */
void keep_forget(struct follow *f);				   /* it goes: a save must not stand on it */

/* --- poll.c --- */
bool poll_is(const char *events); /* is it an HTTP end point? */
void poll_follow(struct follow *f);
void poll_unfollow(struct follow *f);
void poll_known(struct follow *f); /* the base name is */

/* --- zmq.c --- */
int zmq_follow(struct stream *s); /* open, subscribe, watch */
void zmq_unfollow(struct stream *s);
int zmq_ask(struct stream *s, uint64_t from); /* a replay; answers come as stream_reply, stream_end */
void zmq_ask_close(struct stream *s);

#endif
