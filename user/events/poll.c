/* SPDX-License-Identifier: Apache-2.0
 * Events over HTTP: a question now and then, whose answer is what has gathered since the last one. The server forgets
 * what it has told, which decides three things here:
 *
 *  - There is one reader. What another one takes shows as a gap, and the pod is stale.
 *  - Nothing is repeated: a number at or below the cursor is another process, whatever its contents (a restarted engine
 *    begins with the same event as the old one).
 *  - The first answer is the whole history, and it can be had once: it is not asked for before the namespace is known
 *    in which it is to be put.
 *
 * A stream is connected while the last question was answered. A pod is live with its first event only: an engine whose
 * buffer is switched off answers with an empty list for ever.
 */
#include <stdio.h>

#include "base/time.h"
#include "events/events_int.h"

#define BODY_MAX       (64u << 20)
#define BACKOFF_MAX_NS (5 * NS_PER_S)

bool poll_is(const char *events)
{
	return str_starts(str_of(events), STR("http://"));
}

static void again(struct follow *f, uint64_t in_ns)
{
	(void)loop_timer_set(f->e->loop, &f->poll.due, time_mono() + in_ns);
}

static void up(struct follow *f, bool on)
{
	for (unsigned i = 0; i < f->nranks; i++)
		if (on)
			stream_up(&f->s[i]);
		else
			stream_down(&f->s[i]);
}

static void failed(struct follow *f)
{
	uint64_t wait = f->e->timing.poll_ns << (f->poll.fails < 6 ? f->poll.fails : 6);

	f->poll.fails++;
	stats_inc(f->e->st, STATS_EVENT_POLL_FAIL);
	up(f, false);
	again(f, wait < BACKOFF_MAX_NS ? wait : BACKOFF_MAX_NS);
}

static void one(void *arg, uint64_t id, uint64_t rank, struct str text)
{
	struct follow *f = arg;

	if (rank < f->nranks)
		stream_live(&f->s[rank], id, text.p, text.n);
	else
		stats_inc(f->e->st, STATS_EVENT_BAD);
}

static void answered(struct follow *f)
{
	unsigned bad = 0;

	f->poll.fails = 0;
	stats_inc(f->e->st, STATS_EVENT_POLL);
	up(f, true);
	if (trt_poll(buf_str(&f->poll.ask.body), one, f, &bad))
		stats_inc(f->e->st, STATS_EVENT_BAD_BATCH);
	stats_add(f->e->st, STATS_EVENT_BAD, bad);
	again(f, f->e->timing.poll_ns);
}

static void done(struct fetch_ask *a)
{
	struct follow *f = container_of(a, struct follow, poll.ask);
	bool refused = !a->error[0] && a->status == 405;

	/* Which of GET and POST it is depends on the server's version. */
	if (refused && !f->poll.other) {
		f->poll.other = true;
		f->poll.post = !f->poll.post;
		again(f, 0);
		return;
	}
	f->poll.other = false;
	if (!a->error[0] && a->status == 200)
		answered(f);
	else
		failed(f);
}

static void due(struct loop_timer *t)
{
	struct follow *f = container_of(t, struct follow, poll.due);
	struct events *e = f->e;
	char key[sizeof(e->keys->text)] = "";
	unsigned pool = f->pod->pool;
	const char *k = NULL;

	f->poll.known = true;
	pthread_mutex_lock(&e->keys_lock);
	if (pool < e->nkeys)
		k = fetch_key(&e->keys[pool], loop_now(e->loop));
	if (k)
		snprintf(key, sizeof(key), "%s", k);
	pthread_mutex_unlock(&e->keys_lock);
	if (fetch_go(&f->poll.ask, f->poll.post ? "POST" : "GET", f->events, k ? key : NULL, e->timing.timeout_ns))
		failed(f);
}

void poll_known(struct follow *f)
{
	if (f->poll.known)
		return;
	f->poll.known = true;
	again(f, 0);
}

void poll_follow(struct follow *f)
{
	fetch_init(&f->poll.ask, f->e->fetch, BODY_MAX, done);
	loop_timer_init(&f->poll.due, due);
	again(f, f->e->timing.unknown_ns);
}

void poll_unfollow(struct follow *f)
{
	loop_timer_del(f->e->loop, &f->poll.due);
	fetch_fini(&f->poll.ask);
}
