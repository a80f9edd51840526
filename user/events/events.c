/* SPDX-License-Identifier: Apache-2.0
 * The events thread: a loop of its own, the index's one writer. Everything that others ask of it comes as a post, in
 * order, so a holder that was given back and given out again is cleared in between.
 *
 * Guesses come with every request, and a wake-up for each would cost more than the guess. They lie in a stack of their
 * own, and one that comes after a pause wakes the thread. When they follow one another, it then looks by itself each
 * 20 ms until it has found nothing.
 */
#include "events/events.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "base/time.h"
#include "events/events_int.h"

#define TICK_BUSY_NS (50 * NS_PER_MS)
#define TICK_IDLE_NS (100 * NS_PER_MS)
#define NAP_NS	     (20 * NS_PER_MS)
#define SOCKETS_MAX  (INDEX_HOLDERS * 5)

enum op { OP_ADD, OP_REMOVE, OP_REBASE, OP_INVALIDATE, OP_DOUBT, OP_TRUST };

struct post {
	struct loop_post post;
	struct events *e;
	enum op op;
	struct pod *pod; /* referenced */
	struct vocab *vocab;
	char *base;
	char events[128], replay[128];
};

struct guess_post {
	struct loop_post post;
	struct index_guess guess;
	bool drop;
	uint64_t at[];
};

static struct follow *follow_find(struct events *e, const struct pod *p)
{
	list_for_each (it, &e->pods) {
		struct follow *f = container_of(it, struct follow, link);

		if (f->pod == p)
			return f;
	}
	return NULL;
}

static void follow_free(struct follow *f)
{
	if (f->http)
		poll_unfollow(f);
	for (unsigned i = 0; i < f->nranks; i++) {
		zmq_unfollow(&f->s[i]);
		stream_fini(&f->s[i]);
		index_clear(f->e->x, f->s[i].holder);
		index_live(f->e->x, f->s[i].holder, false, 0);
	}
	f->e->active = true;
	keep_forget(f);
	list_del(&f->link);
	atomic_store(&f->pod->index_live, false);
	atomic_store(&f->pod->index_stale, false);
	pod_unref(f->pod);
	canonical_put(f->canonical);
	vocab_unref(f->vocab);
	free(f->base);
	free(f);
}

static void follow_new(struct post *q)
{
	unsigned n = q->pod->spec.ranks ? q->pod->spec.ranks : 1;
	struct follow *f;

	if (!q->events[0] || follow_find(q->e, q->pod))
		return;
	if (n > POD_RANKS_MAX)
		n = POD_RANKS_MAX;
	f = calloc(1, sizeof(*f) + n * sizeof(f->s[0]));
	if (!f)
		return;
	f->e = q->e;
	f->pod = pod_ref(q->pod);
	f->vocab = q->vocab;
	f->canonical = canonical_get(q->e, f->vocab);
	f->base = q->base;
	memcpy(f->events, q->events, sizeof(f->events));
	memcpy(f->replay, q->replay, sizeof(f->replay));
	f->nranks = n;
	q->vocab = NULL;
	q->base = NULL;
	list_add_tail(&q->e->pods, &f->link);
	for (unsigned i = 0; i < n; i++) {
		stream_init(&f->s[i], f, i);
		keep_load(&f->s[i]);
	}
	/* A stream that cannot be opened (its end point is no such thing) stays down: the pod is never live. */
	f->http = poll_is(f->events);
	if (f->http)
		poll_follow(f);
	for (unsigned i = 0; !f->http && i < n; i++)
		(void)zmq_follow(&f->s[i]);
	follow_publish(f);
}

static void follow_rebase(struct follow *f, struct post *q)
{
	if (strcmp(f->base, q->base) != 0) {
		free(f->base);
		f->base = q->base;
		q->base = NULL;
		for (unsigned i = 0; i < f->nranks; i++)
			stream_rebuild(&f->s[i]);
	}
	if (f->http)
		poll_known(f);
}

static void guess(struct events *e, const struct guess_post *q)
{
	if (q->drop)
		index_unspeculate(e->x, &q->guess);
	else
		(void)index_speculate(e->x, &q->guess); /* at the ceiling a guess is not worth an eviction */
	e->active = true;
}

static void post_free(struct post *q)
{
	if (q->pod)
		pod_unref(q->pod);
	vocab_unref(q->vocab);
	free(q->base);
	free(q);
}

/* What has been guessed so far. Whether there was anything. */
static bool guesses_run(struct events *e)
{
	struct loop_post *p = atomic_exchange(&e->guesses, NULL), *in_order = NULL, *next;
	bool any = p;

	for (; p; p = next) {
		next = p->next;
		p->next = in_order;
		in_order = p;
	}
	for (p = in_order; p; p = next) {
		struct guess_post *q = container_of(p, struct guess_post, post);

		next = p->next;
		guess(e, q);
		free(q);
	}
	return any;
}

/* Whoever guesses next wakes us; unless one that came in between has seen us awake. */
static bool may_sleep(struct events *e)
{
	atomic_store(&e->awake, false);
	return !atomic_load(&e->guesses) || atomic_exchange(&e->awake, true);
}

static void nap_over(struct loop_timer *t)
{
	struct events *e = container_of(t, struct events, nap);

	if (!guesses_run(e)) {
		if (may_sleep(e))
			return;
		guesses_run(e);
	}
	(void)loop_timer_set(e->loop, t, loop_now(e->loop) + NAP_NS);
}

static void woken(struct loop_post *p)
{
	struct events *e = container_of(p, struct events, wake);
	uint64_t now = loop_now(e->loop), before = e->woken_ns;

	e->woken_ns = now;
	guesses_run(e);
	if (now - before > NAP_NS) {
		if (may_sleep(e))
			return;
		guesses_run(e);
	}
	(void)loop_timer_set(e->loop, &e->nap, now + NAP_NS);
}

static void post_run(struct loop_post *p)
{
	struct post *q = container_of(p, struct post, post);
	struct follow *f = q->pod ? follow_find(q->e, q->pod) : NULL;

	guesses_run(q->e); /* before what follows them */
	switch (q->op) {
	case OP_ADD:
		follow_new(q);
		break;
	case OP_REMOVE:
		if (f)
			follow_free(f);
		break;
	case OP_REBASE:
		if (f)
			follow_rebase(f, q);
		break;
	case OP_INVALIDATE:
		for (unsigned i = 0; f && i < f->nranks; i++)
			stream_invalidate(&f->s[i]);
		/* Without events there may still be speculation. */
		for (unsigned i = 0; !f && i < POD_RANKS_MAX && i < q->pod->spec.ranks; i++)
			index_clear(q->e->x, q->pod->holder[i]);
		break;
	case OP_DOUBT:
	case OP_TRUST:
		if (f) {
			f->doubted = q->op == OP_DOUBT;
			follow_publish(f);
		}
		break;
	}
	post_free(q);
}

static struct post *post_new(struct events *e, enum op op, struct pod *p)
{
	struct post *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->post.run = post_run;
	q->e = e;
	q->op = op;
	q->pod = p ? pod_ref(p) : NULL;
	return q;
}

static int post_named(struct events *e, enum op op, struct pod *p, struct vocab *v, const char *base)
{
	struct post *q = post_new(e, op, p);

	if (!q)
		return -ENOMEM;
	q->base = strdup(base ? base : "");
	if (!q->base) {
		post_free(q);
		return -ENOMEM;
	}
	q->vocab = v ? vocab_ref(v) : NULL;
	memcpy(q->events, p->spec.events, sizeof(q->events));
	memcpy(q->replay, p->spec.replay, sizeof(q->replay));
	loop_post(e->loop, &q->post);
	return 0;
}

int events_key_file(struct events *e, unsigned pool, const char *file)
{
	int r = 0;

	pthread_mutex_lock(&e->keys_lock);
	if (pool >= e->nkeys) {
		struct fetch_key *k = realloc(e->keys, (pool + 1) * sizeof(*k));

		if (!k) {
			r = -ENOMEM;
		} else {
			memset(k + e->nkeys, 0, (pool + 1 - e->nkeys) * sizeof(*k));
			e->keys = k;
			e->nkeys = pool + 1;
		}
	}
	if (!r)
		e->keys[pool].file = file;
	pthread_mutex_unlock(&e->keys_lock);
	return r;
}

int events_add(struct events *e, struct pod *p, struct vocab *v, const char *base)
{
	return post_named(e, OP_ADD, p, v, base);
}

int events_rebase(struct events *e, struct pod *p, const char *base)
{
	return post_named(e, OP_REBASE, p, NULL, base);
}

static int post_plain(struct events *e, enum op op, struct pod *p)
{
	struct post *q = post_new(e, op, p);

	if (!q)
		return -ENOMEM;
	loop_post(e->loop, &q->post);
	return 0;
}

int events_remove(struct events *e, struct pod *p)
{
	return post_plain(e, OP_REMOVE, p);
}

int events_invalidate(struct events *e, struct pod *p, const char *why)
{
	return post_plain(e, OP_INVALIDATE, p);
}

int events_doubt(struct events *e, struct pod *p, bool on)
{
	return post_plain(e, on ? OP_DOUBT : OP_TRUST, p);
}

int events_guess(struct events *e, const struct index_guess *g, bool drop)
{
	size_t n = index_places(g->from, g->n) * sizeof(*g->at);
	struct guess_post *q = malloc(sizeof(*q) + n);

	if (!q)
		return -ENOMEM;
	q->guess = *g;
	q->drop = drop;
	memcpy(q->at, g->at, n);
	q->guess.at = q->at;
	q->post.next = atomic_load(&e->guesses);
	while (!atomic_compare_exchange_weak(&e->guesses, &q->post.next, &q->post))
		;
	if (!atomic_load(&e->awake) && !atomic_exchange(&e->awake, true))
		loop_post(e->loop, &e->wake);
	return 0;
}

static void tick(struct loop_timer *t)
{
	struct events *e = container_of(t, struct events, tick);
	uint64_t now = loop_now(e->loop);

	index_tick(e->x, now);
	(void)loop_timer_set(e->loop, t, now + (e->active ? TICK_BUSY_NS : TICK_IDLE_NS));
	e->active = false;
}

static void *run(void *arg)
{
	struct events *e = arg;

	loop_run(e->loop);
	return NULL;
}

struct events *events_start_timed(struct kvindex *x, struct stats *st, const struct events_timing *timing,
				  const struct events_keep *keep)
{
	struct events *e = calloc(1, sizeof(*e));
	sigset_t all, old;
	int r;

	if (!e)
		return NULL;
	e->x = x;
	e->st = st;
	e->timing = *timing;
	pthread_mutex_init(&e->keys_lock, NULL);
	list_init(&e->pods);
	list_init(&e->canonicals);
	loop_timer_init(&e->tick, tick);
	loop_timer_init(&e->nap, nap_over);
	e->wake.run = woken;
	e->loop = loop_new();
	if (!e->loop)
		goto no_loop;
	e->zmq = zmq_ctx_new();
	if (!e->zmq)
		goto no_zmq;
	zmq_ctx_set(e->zmq, ZMQ_MAX_SOCKETS, SOCKETS_MAX);
	e->fetch = fetch_new(e->loop);
	if (!e->fetch) {
		r = -errno;
		goto no_thread;
	}
	r = loop_timer_set(e->loop, &e->tick, time_mono() + TICK_IDLE_NS);
	if (!r && keep)
		r = keep_start(e, keep);
	if (r)
		goto no_thread;
	/* Signals are the control thread's; ZeroMQ blocks them in its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&e->thread, NULL, run, e);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!r)
		return e;
no_thread:
	keep_cancel(e);
	fetch_free(e->fetch);
	errno = -r;
	zmq_ctx_term(e->zmq);
no_zmq:
	r = errno;
	loop_free(e->loop);
	errno = r;
no_loop:
	r = errno;
	free(e);
	errno = r;
	return NULL;
}

struct events *events_start(struct kvindex *x, struct stats *st, const struct events_keep *keep)
{
	static const struct events_timing timing = {
		.idle_ns = 2 * NS_PER_S,
		.total_ns = 120 * NS_PER_S,
		.cooldown_ns = 30 * NS_PER_S,
		.poll_ns = 100 * NS_PER_MS,
		.timeout_ns = 10 * NS_PER_S,
		.unknown_ns = 10 * NS_PER_S,
	};

	return events_start_timed(x, st, &timing, keep);
}

void events_stop(struct events *e)
{
	if (!e)
		return;
	loop_stop(e->loop);
	pthread_join(e->thread, NULL);
	/* Posts that came too late still own what they carry. */
	loop_turn(e->loop, 0);
	guesses_run(e);
	loop_timer_del(e->loop, &e->nap);
	keep_stop(e);
	list_for_each_safe (it, tmp, &e->pods)
		follow_free(container_of(it, struct follow, link));
	loop_timer_del(e->loop, &e->tick);
	zmq_ctx_term(e->zmq);
	fetch_free(e->fetch);
	loop_free(e->loop);
	pthread_mutex_destroy(&e->keys_lock);
	free(e->keys);
	buf_free(&e->text);
	free(e->ends);
	free(e->tails);
	free(e);
}
