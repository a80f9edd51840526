/* SPDX-License-Identifier: Apache-2.0
 *
 * epoll carries generation << 32 | slot, never a pointer. A slot's generation moves on when its descriptor is taken
 * out, so an event that was fetched in the same epoll_wait for a descriptor that an earlier handler removed finds
 * another generation and is dropped (and counted: many stale events are a smell).
 *
 * Posts from other threads are a lock-free stack, taken whole and reversed, with an eventfd to end the wait. The stop
 * flag uses the same eventfd, so that a signal handler may set it.
 */
#include "loop/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/time.h"

#define EVENTS_PER_WAIT 256

struct slot {
	struct loop_fd *f; /* NULL: free */
	uint32_t gen;
	uint32_t next_free;
};

struct loop {
	int ep;
	struct loop_fd wake;
	_Atomic bool stop;
	_Atomic(struct loop_post *) posts;
	struct slot *slots;
	uint32_t nslots, free_slot; /* UINT32_MAX: none free */
	struct heap timers;
	struct list deferred;
	uint64_t now;
	void (*before)(void *arg);
	void (*after)(void *arg);
	void *wait_arg;
	struct loop_stats stats;
};

/* Edge-triggered, so it need not be read: each write is an event, and 2^64 of them do not come. */
static void wake_ready(struct loop_fd *f, uint32_t events)
{
	(void)f;
	(void)events;
}

static void wake(struct loop *l)
{
	uint64_t one = 1;

	if (write(l->wake.fd, &one, sizeof(one)) < 0) { /* EAGAIN: it is awake enough */
	}
}

struct loop *loop_new(void)
{
	struct loop *l = calloc(1, sizeof(*l));
	int fd, r;

	if (!l)
		return NULL;
	l->free_slot = UINT32_MAX;
	l->wake.fd = -1;
	list_init(&l->deferred);
	l->now = time_mono();
	l->ep = epoll_create1(EPOLL_CLOEXEC);
	if (l->ep < 0)
		goto err;
	fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0)
		goto err;
	l->wake.ready = wake_ready;
	r = loop_fd_add(l, &l->wake, fd, EPOLLIN | EPOLLET);
	if (r) {
		close(fd);
		errno = -r;
		goto err;
	}
	return l;
err:
	loop_free(l);
	return NULL;
}

void loop_free(struct loop *l)
{
	int saved = errno;

	if (!l)
		return;
	if (l->wake.fd >= 0) {
		int fd = l->wake.fd;

		loop_fd_del(&l->wake);
		close(fd);
	}
	if (l->ep >= 0)
		close(l->ep);
	heap_free(&l->timers);
	free(l->slots);
	free(l);
	errno = saved;
}

int loop_fd_add(struct loop *l, struct loop_fd *f, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events };
	uint32_t s;

	if (l->free_slot == UINT32_MAX) {
		uint32_t n = l->nslots ? 2 * l->nslots : 64;
		struct slot *v = realloc(l->slots, n * sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->slots = v;
		for (uint32_t i = n; i-- > l->nslots;) {
			v[i] = (struct slot){ .next_free = l->free_slot };
			l->free_slot = i;
		}
		l->nslots = n;
	}
	s = l->free_slot;
	ev.data.u64 = (uint64_t)l->slots[s].gen << 32 | s;
	if (epoll_ctl(l->ep, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	l->free_slot = l->slots[s].next_free;
	l->slots[s].f = f;
	f->loop = l;
	f->fd = fd;
	f->events = events;
	f->slot = s;
	return 0;
}

int loop_fd_mod(struct loop_fd *f, uint32_t events)
{
	struct epoll_event ev = { .events = events };

	if (f->events == events)
		return 0;
	ev.data.u64 = (uint64_t)f->loop->slots[f->slot].gen << 32 | f->slot;
	if (epoll_ctl(f->loop->ep, EPOLL_CTL_MOD, f->fd, &ev) < 0)
		return -errno;
	f->events = events;
	return 0;
}

void loop_fd_del(struct loop_fd *f)
{
	struct slot *s;

	if (f->fd < 0 || !f->loop)
		return;
	epoll_ctl(f->loop->ep, EPOLL_CTL_DEL, f->fd, NULL);
	s = &f->loop->slots[f->slot];
	s->f = NULL;
	s->gen++;
	s->next_free = f->loop->free_slot;
	f->loop->free_slot = f->slot;
	f->fd = -1;
	f->loop = NULL;
}

int loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns)
{
	return heap_set(&l->timers, &t->node, at_ns);
}

void loop_timer_del(struct loop *l, struct loop_timer *t)
{
	heap_del(&l->timers, &t->node);
}

void loop_defer(struct loop *l, struct loop_work *w)
{
	if (list_empty(&w->link))
		list_add_tail(&l->deferred, &w->link);
}

void loop_post(struct loop *l, struct loop_post *p)
{
	struct loop_post *head = atomic_load_explicit(&l->posts, memory_order_relaxed);

	do
		p->next = head;
	while (!atomic_compare_exchange_weak_explicit(&l->posts, &head, p, memory_order_release, memory_order_relaxed));
	if (!head) /* else whoever posted the first has waked it */
		wake(l);
}

void loop_stop(struct loop *l)
{
	atomic_store(&l->stop, true);
	wake(l);
}

void loop_on_wait(struct loop *l, void (*before)(void *arg), void (*after)(void *arg), void *arg)
{
	l->before = before;
	l->after = after;
	l->wait_arg = arg;
}

uint64_t loop_now(const struct loop *l)
{
	return l->now;
}

const struct loop_stats *loop_stats(const struct loop *l)
{
	return &l->stats;
}

/* Whether there were any. */
static bool run_timers(struct loop *l)
{
	struct heap_node *n;
	bool any = false;

	while ((n = heap_min(&l->timers)) && n->key <= l->now) {
		struct loop_timer *t = container_of(n, struct loop_timer, node);

		heap_del(&l->timers, n);
		t->fire(t);
		any = true;
	}
	return any;
}

static void run_posts(struct loop *l)
{
	struct loop_post *p = atomic_exchange_explicit(&l->posts, NULL, memory_order_acquire);
	struct loop_post *in_order = NULL;

	while (p) {
		struct loop_post *next = p->next;

		p->next = in_order;
		in_order = p;
		p = next;
	}
	while (in_order) {
		p = in_order;
		in_order = p->next;
		l->stats.posts++;
		p->run(p);
	}
}

static void run_deferred(struct loop *l)
{
	struct list batch;

	if (list_empty(&l->deferred))
		return;
	/* Work that queues itself again runs in the next turn. */
	list_init(&batch);
	list_add(&l->deferred, &batch);
	list_del(&l->deferred);
	while (!list_empty(&batch)) {
		struct loop_work *w = container_of(batch.next, struct loop_work, link);

		list_del(&w->link);
		w->run(w);
	}
}

static int wait_ms(struct loop *l, int timeout_ms)
{
	struct heap_node *n = heap_min(&l->timers);
	uint64_t ms;

	if (!list_empty(&l->deferred))
		return 0;
	if (!n)
		return timeout_ms;
	ms = n->key <= l->now ? 0 : (n->key - l->now + NS_PER_MS - 1) / NS_PER_MS;
	if (timeout_ms >= 0 && ms > (uint64_t)timeout_ms)
		return timeout_ms;
	return ms > 60000 ? 60000 : (int)ms;
}

/* The clock is read twice: behind the wait and at the end, which is where the next turn begins. */
static int turn(struct loop *l, int timeout_ms)
{
	struct epoll_event ev[EVENTS_PER_WAIT];
	bool timers = run_timers(l);
	uint64_t start = l->now, before;
	int n;

	if (l->before)
		l->before(l->wait_arg);
	before = timers ? time_mono() : start;
	n = epoll_wait(l->ep, ev, EVENTS_PER_WAIT, wait_ms(l, timeout_ms));
	if (l->after)
		l->after(l->wait_arg);
	if (n < 0 && errno != EINTR)
		return -errno;
	l->now = time_mono();
	start += l->now - before; /* do not count the wait */
	for (int i = 0; i < n; i++) {
		struct slot *s = &l->slots[(uint32_t)ev[i].data.u64];

		if (!s->f || s->gen != ev[i].data.u64 >> 32) {
			l->stats.stale++;
			continue;
		}
		l->stats.events++;
		s->f->ready(s->f, ev[i].events);
	}
	run_posts(l);
	run_deferred(l);
	l->stats.turns++;
	l->now = time_mono();
	if (l->now - start > l->stats.turn_max_ns)
		l->stats.turn_max_ns = l->now - start;
	return 0;
}

int loop_turn(struct loop *l, int timeout_ms)
{
	l->now = time_mono();
	return turn(l, timeout_ms);
}

int loop_run(struct loop *l)
{
	l->now = time_mono();
	while (!atomic_load(&l->stop)) {
		int r = turn(l, -1);

		if (r)
			return r;
	}
	return 0;
}
