/* SPDX-License-Identifier: Apache-2.0
 * Private to events/: a pod that is followed (struct follow) has one stream per data-parallel rank. zmq.c moves frames,
 * follow.c decides what they mean for the sequence, apply.c puts batches into the index, events.c is the thread.
 */
#ifndef KVS_EVENTS_EVENTS_INT_H
#define KVS_EVENTS_EVENTS_INT_H

#include <pthread.h>

#include "base/buf.h"
#include "base/list.h"
#include "events/events.h"
#include "loop/loop.h"

#define RECENT 256 /* batches by whose contents a repetition is told from a restart */

struct stream;

struct events_timing {
	uint64_t idle_ns;     /* a replay that is silent for so long has failed */
	uint64_t total_ns;    /* and one that takes so long */
	uint64_t cooldown_ns; /* before the replay socket is tried again after a failure */
};

struct events {
	struct kvindex *x;
	struct stats *st;
	struct loop *loop;
	void *zmq;
	pthread_t thread;
	struct events_timing timing;
	struct list pods; /* struct follow */
	struct loop_timer tick;
	_Atomic(struct loop_post *) guesses; /* not yet looked at */
	_Atomic bool awake;		     /* will look at them by itself */
	struct loop_post wake;
	struct loop_timer nap;
	bool active; /* something changed in the index since the last tick */
	/* apply's scratch */
	struct buf text;
	uint32_t *ends;
	unsigned cap_ends;
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

	bool connected, ever;
	bool have; /* cursor is valid */
	uint64_t cursor;
	unsigned stale; /* enum stream_stale */
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

struct follow {
	struct list link;
	struct events *e;
	struct pod *pod;
	struct vocab *vocab;
	char *base;
	char events[128], replay[128]; /* copies: the pod's spec is the control thread's */
	unsigned nranks;
	struct stream s[];
};

struct events *events_start_timed(struct kvindex *x, struct stats *st, const struct events_timing *t);

/* --- decode.c --- */
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
void follow_publish(struct follow *f);

/* --- apply.c --- */
/* Put a batch into the index. Returns how many of its blocks hung on an unknown parent. */
unsigned stream_apply(struct stream *s, const void *payload, size_t len);

/* --- zmq.c --- */
int zmq_follow(struct stream *s); /* open, subscribe, watch */
void zmq_unfollow(struct stream *s);
int zmq_ask(struct stream *s, uint64_t from); /* a replay; answers come as stream_reply, stream_end */
void zmq_ask_close(struct stream *s);

#endif
