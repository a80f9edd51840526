/* SPDX-License-Identifier: Apache-2.0
 * Event loop: one per thread, over epoll. File descriptors, timers, work for the end of the turn, posts from other
 * threads.
 *
 *   turn:  now → expired timers → epoll_wait → ready descriptors → posts → deferred work
 *
 * Ownership: the structs are embedded in their owners, who may free them as soon as *_del has returned: an event of
 * the same epoll_wait that is still to be delivered is dropped (descriptors carry a generation, never a raw pointer).
 * Threads: everything but loop_post and loop_stop belongs to the loop's thread.
 * Errors: 0 or a negative errno.
 */
#ifndef KVS_LOOP_LOOP_H
#define KVS_LOOP_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/heap.h"
#include "base/list.h"

struct loop;

/* A descriptor that the loop watches. */
struct loop_fd {
	void (*ready)(struct loop_fd *f, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR */
	struct loop *loop;
	int fd; /* -1: not watched */
	uint32_t events;
	uint32_t slot;
};

/* A timer that fires once at a monotonic time; set it again to move it. Resolution 1 ms, never early. */
struct loop_timer {
	struct heap_node node;
	void (*fire)(struct loop_timer *t);
};

/* Work for the end of this turn, run once for each time that it was queued. */
struct loop_work {
	struct list link;
	void (*run)(struct loop_work *w);
};

/* A message to another thread's loop; the sender gives it away, <run> frees it. */
struct loop_post {
	struct loop_post *next;
	void (*run)(struct loop_post *p);
};

struct loop_stats {
	uint64_t turns, events, stale, posts;
	uint64_t turn_max_ns;
};

struct loop *loop_new(void); /* NULL and errno */
void loop_free(struct loop *l);
int loop_run(struct loop *l);		       /* until loop_stop */
void loop_stop(struct loop *l);		       /* any thread, or a signal handler */
int loop_turn(struct loop *l, int timeout_ms); /* one turn; for tests and for loops inside loops */

uint64_t loop_now(const struct loop *l); /* monotonic, taken at the start of the turn and after epoll_wait */

/* Called around the wait, for quiescent states: before it may block, after it has returned. */
void loop_on_wait(struct loop *l, void (*before)(void *arg), void (*after)(void *arg), void *arg);

/* <events> as epoll(7) has them, EPOLLET too if wanted. f->ready is set by the caller. */
int loop_fd_add(struct loop *l, struct loop_fd *f, int fd, uint32_t events);
int loop_fd_mod(struct loop_fd *f, uint32_t events);
void loop_fd_del(struct loop_fd *f); /* before close(2); harmless if not watched */

static inline void loop_timer_init(struct loop_timer *t, void (*fire)(struct loop_timer *t))
{
	heap_node_init(&t->node);
	t->fire = fire;
}

static inline bool loop_timer_armed(const struct loop_timer *t)
{
	return t->node.pos != HEAP_NOWHERE;
}

int loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns);
void loop_timer_del(struct loop *l, struct loop_timer *t);

static inline void loop_work_init(struct loop_work *w, void (*run)(struct loop_work *w))
{
	list_init(&w->link);
	w->run = run;
}

void loop_defer(struct loop *l, struct loop_work *w); /* no-op if it is queued */

void loop_post(struct loop *l, struct loop_post *p);

const struct loop_stats *loop_stats(const struct loop *l);

#endif
