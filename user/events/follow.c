/* SPDX-License-Identifier: Apache-2.0
 * The sequence of a stream: each batch applied once and in order, and what is not known for sure said so.
 *
 *            up                     gap, replay there           END
 *   (new) ───────► replaying(ALL) ─────► live ───► replaying(GAP) ─────► live
 *                                         │ down, up                      ▲
 *                                         └────────► replaying(CHECK) ────┘
 *
 * While a replay runs, live batches are held (bounded) and applied behind it. The three questions:
 *   ALL    from 0, the index of this rank being empty: warm it up.
 *   GAP    from cursor + 1, at most once for one gap. What is indexed stays usable. If the answer begins later, the
 *          history is gone: the stream is stale (blocks may have been evicted unseen) and goes on from there.
 *   CHECK  after a reconnect, from the cursor itself: the batch that we saw last must come back with the same contents,
 *          else this is another process behind the same address. Numbers alone do not tell (K2: we saw 2 last, the
 *          restarted engine is at 7), and asking from cursor + 1 would leave a fresh engine's silence ambiguous.
 *
 * A number at or below the cursor is a repetition when the contents are those that had the number, else a restart.
 * Without a replay socket a reconnect makes the stream suspect (stale) until the next batch continues the sequence and
 * knows its parents; an unknown parent there means restart.
 *
 * What an earlier process has kept (keep.c) is *warm*: there is a cursor and nobody has seen the engine. It is suspect
 * as after a reconnect, and asked for or continued likewise; but where that does not prove it, it goes at once, since
 * beginning with nothing is better than to be stale for long.
 *
 * Stale ends with a clear: restart, AllBlocksCleared, invalidation, rebuild. An unknown parent alone does not make a
 * stream stale: it is a block less in the index, not one too many.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/rand.h"
#include "base/time.h"
#include "events/events_int.h"

#define HELD_MAX       8192
#define HELD_BYTES_MAX (64u << 20)
#define RETRIES_MAX    3

struct held {
	struct list link;
	uint64_t seq;
	size_t len;
	char data[];
};

static uint64_t now(const struct stream *s)
{
	return loop_now(s->f->e->loop);
}

static void count(const struct stream *s, enum stats_id id)
{
	stats_inc(s->f->e->st, id);
}

void follow_publish(struct follow *f)
{
	bool live = f->vocab != NULL, stale = false;

	for (unsigned i = 0; i < f->nranks; i++) {
		stale |= f->s[i].stale != 0;
		live &= f->s[i].connected && !f->s[i].replaying && !f->s[i].stale && (!f->http || f->s[i].have);
	}
	for (unsigned i = 0; i < f->nranks; i++)
		index_live(f->e->x, f->s[i].holder, live && !f->doubted, loop_now(f->e->loop) + EVENTS_GUESS_LIFE);
	atomic_store(&f->pod->index_stale, stale);
	atomic_store(&f->pod->index_live, live);
}

static void drop_held(struct stream *s)
{
	list_for_each_safe (it, tmp, &s->held) {
		list_del(it);
		free(container_of(it, struct held, link));
	}
	s->nheld = 0;
	s->held_bytes = 0;
}

/* Over the bound the newest are dropped: the next one held will show as a gap of its own. */
static void hold(struct stream *s, uint64_t seq, const void *payload, size_t len)
{
	struct held *h;

	if (s->nheld >= HELD_MAX || s->held_bytes + len > HELD_BYTES_MAX)
		return;
	h = malloc(sizeof(*h) + len);
	if (!h)
		return;
	h->seq = seq;
	h->len = len;
	memcpy(h->data, payload, len);
	list_add_tail(&s->held, &h->link);
	s->nheld++;
	s->held_bytes += len;
}

static void clear(struct stream *s)
{
	index_clear(s->f->e->x, s->holder);
	s->stale = 0;
	s->warm = false;
	s->f->e->active = true;
}

static bool can_ask(const struct stream *s)
{
	return s->f->replay[0] && s->connected && now(s) >= s->quiet_until_ns;
}

static void ask_failed(struct stream *s);

static void arm(struct stream *s, uint64_t at)
{
	/* Without memory for the timer a silent replay would end with the connection only. */
	(void)loop_timer_set(s->f->e->loop, &s->timer, at);
}

static void ask(struct stream *s, enum stream_ask what, uint64_t from)
{
	s->ask = what;
	s->ask_seen = s->ask_hole = false;
	s->replaying = true;
	s->void_replay = false;
	s->ask_end_ns = now(s) + s->f->e->timing.total_ns;
	arm(s, now(s) + s->f->e->timing.idle_ns);
	follow_publish(s->f);
	if (zmq_ask(s, from))
		ask_failed(s);
}

static void apply(struct stream *s, uint64_t seq, const void *payload, size_t len)
{
	unsigned orphans;

	s->recent[seq % RECENT] = hash_bytes(payload, len, seq);
	s->cursor = seq;
	s->have = true;
	atomic_store_explicit(&s->f->pod->event_seq, seq + 1, memory_order_relaxed);
	count(s, STATS_EVENT_BATCHES);
	orphans = stream_apply(s, payload, len);
	if (orphans && s->stale & STALE_SUSPECT) {
		count(s, STATS_EVENT_RESTART);
		clear(s);
		orphans = stream_apply(s, payload, len);
	}
	stats_add(s->f->e->st, STATS_EVENT_ORPHAN, orphans);
}

static void release_held(struct stream *s);

/* The whole history is there, or there is none: what was indexed before goes. */
static void start_over(struct stream *s)
{
	clear(s);
	s->have = false;
	s->asked = false;
}

void stream_rebuild(struct stream *s)
{
	start_over(s);
	if (can_ask(s))
		ask(s, ASK_ALL, 0);
	follow_publish(s->f);
}

static void restarted(struct stream *s)
{
	count(s, STATS_EVENT_RESTART);
	s->window = 0;
	s->window_group = -1;
	s->trt = (struct trt_state){ 0 };
	stream_rebuild(s);
}

static void finish(struct stream *s)
{
	zmq_ask_close(s);
	loop_timer_del(s->f->e->loop, &s->timer);
	s->replaying = false;
	if (s->void_replay) {
		clear(s);
		s->void_replay = false;
	}
}

static void ask_failed(struct stream *s)
{
	finish(s);
	count(s, STATS_EVENT_REPLAY_FAIL);
	s->quiet_until_ns = now(s) + s->f->e->timing.cooldown_ns;
	if (s->ask != ASK_ALL)
		s->stale |= s->ask == ASK_CHECK ? STALE_SUSPECT : STALE_GAP;
	if (s->retries < RETRIES_MAX) {
		s->retries++;
		arm(s, s->quiet_until_ns);
	}
	release_held(s);
	follow_publish(s->f);
}

static void overdue(struct loop_timer *t)
{
	struct stream *s = container_of(t, struct stream, timer);

	if (s->replaying)
		ask_failed(s);
	else if (can_ask(s))
		ask(s, ASK_ALL, 0);
}

void stream_end(struct stream *s)
{
	if (!s->replaying)
		return;
	if (s->ask == ASK_CHECK && !s->ask_seen && s->have) {
		finish(s);
		restarted(s); /* its newest batch is older than our last: another process */
		if (s->replaying)
			return;
	}
	if (s->ask == ASK_ALL && !s->ask_seen && s->have)
		start_over(s);
	finish(s);
	s->retries = 0;
	count(s, s->ask_hole ? STATS_EVENT_REPLAY_FAIL : STATS_EVENT_REPLAY);
	release_held(s);
	follow_publish(s->f);
}

static void confirmed(struct stream *s)
{
	s->stale &= ~(unsigned)STALE_SUSPECT;
	s->warm = false;
}

/* What was kept has not proved itself. */
void stream_cool(struct stream *s)
{
	count(s, STATS_INDEX_STALE);
	stream_rebuild(s);
}

/* The first batch of the answer to CHECK: is it the one that we saw last? */
static bool same_engine(struct stream *s, uint64_t seq, const void *payload, size_t len)
{
	return seq != s->cursor || s->recent[seq % RECENT] == hash_bytes(payload, len, seq);
}

void stream_reply(struct stream *s, uint64_t seq, const void *payload, size_t len)
{
	bool first = !s->ask_seen;

	if (!s->replaying)
		return;
	if (now(s) > s->ask_end_ns) {
		ask_failed(s);
		return;
	}
	arm(s, now(s) + s->f->e->timing.idle_ns);
	s->ask_seen = true;
	if (s->ask == ASK_ALL && first && s->have)
		start_over(s); /* asked again after a failure: what came live meanwhile stayed usable until now */
	if (s->ask == ASK_CHECK && first && s->have) {
		if (!same_engine(s, seq, payload, len)) {
			finish(s);
			restarted(s);
			return;
		}
		if (seq == s->cursor) {
			confirmed(s);
			return;
		}
		if (s->warm) { /* the history does not reach back to it */
			count(s, STATS_INDEX_STALE);
			start_over(s);
		}
	}
	if (s->have && seq <= s->cursor) {
		count(s, STATS_EVENT_DUP);
		return;
	}
	if (s->have && seq != s->cursor + 1) {
		s->ask_hole = true;
		s->stale |= STALE_GAP;
	}
	apply(s, seq, payload, len);
}

static void live(struct stream *s, uint64_t seq, const void *payload, size_t len, bool was_held)
{
	bool suspect;

	if (s->replaying) {
		hold(s, seq, payload, len);
		return;
	}
	if (s->have && seq <= s->cursor) {
		bool recent = s->cursor - seq < RECENT;
		bool same = recent ? s->recent[seq % RECENT] == hash_bytes(payload, len, seq) : was_held;

		if (same && !s->f->http) { /* over HTTP nothing is told twice */
			count(s, STATS_EVENT_DUP);
			return;
		}
		restarted(s);
		if (s->replaying) {
			hold(s, seq, payload, len);
			return;
		}
	}
	if (s->have && seq != s->cursor + 1 && s->warm && !can_ask(s)) {
		count(s, STATS_INDEX_STALE);
		start_over(s);
	}
	if (s->have && seq != s->cursor + 1) {
		uint64_t from = s->cursor + 1;

		if (!s->asked || s->asked_from != from) {
			count(s, STATS_EVENT_GAP);
			atomic_fetch_add_explicit(&s->f->pod->event_gaps, 1, memory_order_relaxed);
		}
		if (can_ask(s) && (!s->asked || s->asked_from != from)) {
			s->asked = true;
			s->asked_from = from;
			hold(s, seq, payload, len);
			ask(s, ASK_GAP, from);
			return;
		}
		s->stale |= STALE_GAP;
	}
	suspect = s->have && seq == s->cursor + 1;
	apply(s, seq, payload, len);
	if (suspect && s->stale & STALE_SUSPECT)
		confirmed(s); /* it goes on where it stopped, on blocks that we know */
	follow_publish(s->f);
}

static void release_held(struct stream *s)
{
	struct list batch;

	if (list_empty(&s->held))
		return;
	list_init(&batch);
	list_add(&s->held, &batch);
	list_del(&s->held);
	s->nheld = 0;
	s->held_bytes = 0;
	while (!list_empty(&batch)) {
		struct held *h = container_of(batch.next, struct held, link);

		list_del(&h->link);
		live(s, h->seq, h->data, h->len, true);
		free(h);
	}
}

void stream_live(struct stream *s, uint64_t seq, const void *payload, size_t len)
{
	live(s, seq, payload, len, false);
}

void stream_up(struct stream *s)
{
	bool again = s->ever || s->warm;

	if (s->connected)
		return;
	s->connected = s->ever = true;
	if (!s->have) {
		if (can_ask(s))
			ask(s, ASK_ALL, 0);
	} else if (again && can_ask(s)) {
		ask(s, ASK_CHECK, s->cursor);
	} else if (again) {
		s->stale |= STALE_SUSPECT;
		if (s->f->replay[0]) /* which is in its cool-down */
			arm(s, s->quiet_until_ns);
	}
	follow_publish(s->f);
}

void stream_down(struct stream *s)
{
	s->connected = false;
	if (s->replaying) {
		/* What was held is asked for again after the reconnect. */
		drop_held(s);
		finish(s);
	}
	follow_publish(s->f);
}

/* An engine that sleeps or was replaced has dropped its cache, whatever its history says. */
void stream_invalidate(struct stream *s)
{
	clear(s);
	s->void_replay = s->replaying;
	follow_publish(s->f);
}

void stream_init(struct stream *s, struct follow *f, unsigned rank)
{
	*s = (struct stream){ .f = f, .rank = rank, .holder = f->pod->holder[rank], .window_group = -1 };
	list_init(&s->held);
	list_init(&s->sub.more.link);
	list_init(&s->mon.more.link);
	list_init(&s->replay.more.link);
	loop_timer_init(&s->timer, overdue);
}

void stream_fini(struct stream *s)
{
	drop_held(s);
	loop_timer_del(s->f->e->loop, &s->timer);
}
