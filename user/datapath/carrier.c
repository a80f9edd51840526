/* SPDX-License-Identifier: Apache-2.0
 *
 * The workers' door. A connection and a pair remember which carrier has them, so a switch of the mode concerns new ones
 * only. Relaying is the carrier that needs nothing: number 0, what zeroed memory says.
 *
 * Events come from another thread. It finds the worker by the splice's slot, leaves a note in its inbox and wakes its
 * loop; there the slot says whether the pair is still bound as it was (generation), and the pair which events it has
 * had already: the ring and the watchdog may both tell.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/time.h"
#include "datapath/splice_int.h"

static const struct carrier_ops *const carriers[CARRIERS] = { [CARRIER_TC] = &carrier_tc };

const char *carrier_why_name(enum carrier_why why)
{
	static const char *const names[CARRIER_WHYS_N] = {
#define X(NAME, name) #name,
		CARRIER_WHYS(X)
#undef X
	};

	return names[why];
}

static struct splicer *splicer_of(const struct carrier_worker *w)
{
	return atomic_load_explicit(&w->dp->sp, memory_order_acquire);
}

/* For new connections and pairs. */
static const struct carrier_ops *carrier_now(const struct carrier_worker *w)
{
	return atomic_load_explicit(&w->dp->on, memory_order_relaxed) ? &carrier_tc : NULL;
}

void carrier_count(struct carrier_worker *w, enum carrier_why why)
{
	count(&w->pairs[why]);
}

void carrier_accepted(struct carrier_worker *w, struct carrier_conn *conn, int fd)
{
	const struct carrier_ops *ops = carrier_now(w);

	*conn = (struct carrier_conn){ .why = CARRIER_WHY_OFF };
	if (ops)
		ops->accepted(w, splicer_of(w), conn, fd);
	count(&w->conns[KVS_SIDE_C][conn->why]);
}

void carrier_dialing(struct carrier_worker *w, struct carrier_conn *conn, int fd, const struct carrier_conn *c)
{
	const struct carrier_ops *ops = carrier_now(w);

	*conn = (struct carrier_conn){ .why = CARRIER_WHY_OFF };
	if (ops)
		ops->dialing(w, splicer_of(w), conn, fd, c);
}

void carrier_connected(struct carrier_worker *w, struct carrier_conn *conn, int fd)
{
	if (conn->dialing)
		carrier_tc.connected(w, splicer_of(w), conn, fd);
	count(&w->conns[KVS_SIDE_U][conn->why]);
}

void carrier_closed(struct carrier_worker *w, struct carrier_conn *conn)
{
	if (conn->dialing)
		carrier_tc.closed(w, splicer_of(w), conn);
	else if (carriers[conn->carrier])
		carriers[conn->carrier]->closed(w, splicer_of(w), conn);
	*conn = (struct carrier_conn){ .why = CARRIER_WHY_OFF };
}

static bool is_v4(const struct kvs_addr *a)
{
	static const uint8_t mapped[12] = { [10] = 0xff, 0xff };

	return memcmp(a->b, mapped, sizeof(mapped)) == 0;
}

enum carrier_why carrier_fits(const struct carrier_conn *c, const struct carrier_conn *u)
{
	if (c->why)
		return (enum carrier_why)c->why;
	if (u->why)
		return (enum carrier_why)u->why;
	if (!c->carrier || c->carrier != u->carrier)
		return CARRIER_WHY_OFF;
	if (is_v4(&c->tuple.raddr) != is_v4(&u->tuple.raddr))
		return CARRIER_WHY_FAMILY;
	return u->mss > c->mss ? CARRIER_WHY_MSS : CARRIER_WHY_OK;
}

bool carrier_outdated(const struct carrier_worker *w, const struct carrier_conn *conn)
{
	return conn->why == CARRIER_WHY_OFF && carrier_now(w);
}

enum carrier_why carrier_bind(struct carrier_worker *w, struct carrier_pair *p, struct carrier_conn *c,
			      struct carrier_conn *u, uint64_t dispatched_at)
{
	enum carrier_why why = carrier_now(w) ? carrier_fits(c, u) : CARRIER_WHY_OFF;

	*p = (struct carrier_pair){ .c = c, .u = u };
	if (!why) {
		p->carrier = c->carrier;
		why = carriers[p->carrier]->bind(w, splicer_of(w), p, dispatched_at);
	}
	count(&w->pairs[why]);
	return why;
}

enum carrier_arm carrier_arm(struct carrier_worker *w, struct carrier_pair *p, const struct carrier_arming *a)
{
	enum carrier_arm r = CARRIER_NEVER;
	uint64_t began;

	if (p->id) {
		began = time_mono();
		r = carriers[p->carrier]->arm(w, splicer_of(w), p, a);
		atomic_fetch_add_explicit(&w->arm_ns, time_mono() - began, memory_order_relaxed);
	}
	p->armed = r == CARRIER_ARMED;
	return r;
}

int carrier_look(struct carrier_worker *w, struct carrier_pair *p, struct carrier_view *ret)
{
	int r = p->id ? carriers[p->carrier]->look(splicer_of(w), p, ret) : -ENOENT;

	if (!r && ret->state == KVS_RELAY)
		p->armed = 0;
	return r;
}

void carrier_closing(struct carrier_worker *w, struct carrier_pair *p)
{
	if (p->id)
		carriers[p->carrier]->closing(splicer_of(w), p);
}

static void pair_over(struct carrier_worker *w, struct carrier_pair *p, const struct carrier_view *v)
{
	atomic_fetch_add_explicit(&w->bytes, v->bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->segments, v->segments, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->chunks, v->chunks, memory_order_relaxed);
	*p = (struct carrier_pair){ .id = 0 };
}

int carrier_unbind(struct carrier_worker *w, struct carrier_pair *p, bool force, struct carrier_view *ret)
{
	struct splicer *sp = splicer_of(w);
	struct carrier_view view = { .state = KVS_FREE };
	int r;

	if (ret)
		*ret = view;
	if (!p->id)
		return -ENOENT;
	atomic_store_explicit(&sp->slots[p->id].pair, NULL, memory_order_release);
	r = carriers[p->carrier]->unbind(w, sp, p, force, &view);
	pair_over(w, p, &view);
	if (ret)
		*ret = view;
	return r;
}

int carrier_finish(struct carrier_worker *w, struct carrier_pair *p, struct carrier_view *ret)
{
	struct splicer *sp = splicer_of(w);
	int r = p->id ? carriers[p->carrier]->finish(w, sp, p, ret) : -ENOENT;

	if (!r)
		pair_over(w, p, ret);
	return r;
}

/* --- events --- */

static void deliver(struct carrier_worker *w, struct carrier_pair *p, const struct note *n,
		    enum carrier_event_type type, bool with_tail)
{
	struct carrier_event e = { .type = type, .flags = n->flags, .bytes = n->bytes };

	if (p->told & 1U << type)
		return;
	p->told |= (uint16_t)(1U << type);
	p->armed = 0;
	if (with_tail && n->tail_n) {
		e.tail = n->tail;
		e.tail_n = n->tail_n;
	}
	count(&w->events[type]);
	w->event(w->arg, p, &e);
}

static void note_run(struct carrier_worker *w, const struct note *n)
{
	struct slot *slot = &splicer_of(w)->slots[n->id];
	struct carrier_pair *p = atomic_load_explicit(&slot->pair, memory_order_relaxed);

	if (!p || p->gen != n->gen || atomic_load_explicit(&slot->worker, memory_order_relaxed) != w)
		return;
	/* Its own event was lost, or is to come: the order is kept. */
	if (n->type == CARRIER_DONE) {
		bool had = p->told & 1U << CARRIER_ENDED;

		deliver(w, p, n, CARRIER_ENDED, true);
		p = atomic_load_explicit(&slot->pair, memory_order_relaxed);
		if (!p || p->gen != n->gen)
			return;
		deliver(w, p, n, CARRIER_DONE, had);
		return;
	}
	deliver(w, p, n, n->type, true);
}

static struct note *inbox_take(struct carrier_worker *w)
{
	struct note *n;

	pthread_mutex_lock(&w->inbox_lock);
	n = w->inbox;
	w->inbox = NULL;
	w->inbox_end = &w->inbox;
	w->posted = false;
	pthread_mutex_unlock(&w->inbox_lock);
	return n;
}

static void inbox_run(struct loop_post *post)
{
	struct carrier_worker *w = container_of(post, struct carrier_worker, post);
	struct note *n = inbox_take(w);

	while (n) {
		struct note *next = n->next;

		note_run(w, n);
		free(n);
		n = next;
	}
}

static void inbox_put(struct carrier_worker *w, struct note *n)
{
	bool post;

	pthread_mutex_lock(&w->inbox_lock);
	*w->inbox_end = n;
	w->inbox_end = &n->next;
	post = !w->posted;
	w->posted = true;
	pthread_mutex_unlock(&w->inbox_lock);
	if (post)
		loop_post(w->loop, &w->post);
}

int carrier_tell(struct splicer *sp, uint32_t id, uint32_t gen, enum carrier_event_type type, uint32_t flags,
		 uint64_t bytes, const char *tail, size_t tail_n)
{
	struct carrier_worker *w, *known;
	struct note *n;
	int r = -ENOENT;

	if (id >= sp->nids || !atomic_load_explicit(&sp->slots[id].pair, memory_order_relaxed) ||
	    atomic_load_explicit(&sp->slots[id].gen, memory_order_relaxed) != gen)
		return -ENOENT;
	n = malloc(sizeof(*n) + tail_n);
	if (!n)
		return -ENOMEM; /* the watchdog will find out */
	*n = (struct note){ .id = id, .gen = gen, .type = (uint8_t)type, .flags = flags, .bytes = bytes };
	n->tail_n = (uint32_t)tail_n;
	if (tail_n)
		memcpy(n->tail, tail, tail_n);
	pthread_mutex_lock(&sp->dp->workers_lock);
	w = atomic_load_explicit(&sp->slots[id].worker, memory_order_relaxed);
	for (known = sp->dp->workers; known && known != w; known = known->next)
		;
	if (known) {
		inbox_put(w, n);
		n = NULL;
		r = 0;
	}
	pthread_mutex_unlock(&sp->dp->workers_lock);
	free(n);
	return r;
}

int carrier_kill(struct datapath *dp, uint32_t id)
{
	struct splicer *sp = atomic_load(&dp->sp);

	if (!sp || !id || id >= sp->nids)
		return -ENOENT;
	return carrier_tell(sp, id, atomic_load(&sp->slots[id].gen), CARRIER_KILLED, 0, 0, NULL, 0);
}

/* --- life --- */

struct carrier_worker *
carrier_worker_new(struct datapath *dp, struct loop *l,
		   void (*event)(void *arg, struct carrier_pair *p, const struct carrier_event *e), void *arg)
{
	struct carrier_worker *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->dp = dp;
	w->loop = l;
	w->event = event;
	w->arg = arg;
	w->inbox_end = &w->inbox;
	w->post.run = inbox_run;
	pthread_mutex_init(&w->inbox_lock, NULL);
	pthread_mutex_lock(&dp->workers_lock);
	w->next = dp->workers;
	dp->workers = w;
	pthread_mutex_unlock(&dp->workers_lock);
	return w;
}

void carrier_worker_free(struct carrier_worker *w)
{
	struct carrier_worker **at;
	struct splicer *sp;
	struct note *n;

	if (!w)
		return;
	sp = splicer_of(w);
	pthread_mutex_lock(&w->dp->workers_lock);
	for (at = &w->dp->workers; *at != w; at = &(*at)->next)
		;
	*at = w->next;
	pthread_mutex_unlock(&w->dp->workers_lock);
	for (n = inbox_take(w); n;) {
		struct note *next = n->next;

		free(n);
		n = next;
	}
	if (sp && w->nids) {
		pthread_mutex_lock(&sp->ids_lock);
		for (unsigned i = 0; i < w->nids; i++)
			atomic_store(&sp->state[w->ids[i]], ID_POOL);
		ids_give(&sp->ids, w->ids, w->nids);
		pthread_mutex_unlock(&sp->ids_lock);
	}
	pthread_mutex_destroy(&w->inbox_lock);
	free(w);
}
