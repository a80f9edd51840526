/* SPDX-License-Identifier: Apache-2.0
 * The ledger: what this gateway has sent to a pod and not seen finished.
 *
 * Engines' gauges are late by a scrape and blind to the length of prompts; what a gateway sends, it knows at once and
 * exactly. So the scheduler counts with this and needs no metric.
 *
 * A request is charged when it is sent, with the seconds of prefill predicted then. The prediction is kept in the
 * charge and taken back unchanged: rates are learned meanwhile, and a difference would stay in the backlog for ever.
 *
 *     sent ── charge ──► n + 1, waiting + 1, backlog + own, at the queue's end
 *                           │
 *     first body byte ── first ──► waiting - 1, backlog - own, out of the queue; the rate is learned
 *                           │
 *     end, cut, cancel, retry ── release ──► n - 1, and what first would have done if it never came
 *
 * A charge holds a reference to its pod and everything goes back through it, never by name: when a pod leaves and
 * another takes its address, old requests end on the old ledger and the new one begins at nought.
 *
 * The head's credit: an engine computes its queue in order, so of the charges without a first token only the oldest
 * makes progress, since it was sent or since the one before it gave its first token, whichever is later. The backlog
 * that is read is less by that time, but never by more than 95 % of the head's own seconds: what is still without a
 * first token is not done. By the same token the time between the two is what the head took, which gives the rate.
 *
 * When nothing waits the backlog is set to 0, so that rounding cannot add up over the days.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/time.h"
#include "endpoint/endpoint_int.h"

#define DECAY_POD      0.98 /* remembers about 50 samples */
#define DECAY_POOL     0.995
#define HEAD_CREDIT    0.95
#define LEARN_UNCACHED 256 /* shorter prompts measure the engine's step, not its speed */

struct pool_rate *pool_rate_new(void)
{
	struct pool_rate *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	atomic_init(&r->refs, 1);
	atomic_flag_clear(&r->lock);
	return r;
}

struct pool_rate *pool_rate_ref(struct pool_rate *r)
{
	atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
	return r;
}

void pool_rate_unref(struct pool_rate *r)
{
	if (r && atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
		free(r);
}

void ledger_charge(struct pod *p, struct charge *c, double own, double work, uint32_t uncached, uint64_t now_ns)
{
	struct ledger *l = &p->ledger;

	c->pod = pod_ref(p);
	c->own = own;
	c->work = work;
	c->uncached = uncached;
	c->first = false;
	c->dispatch_ns = now_ns;
	spin_lock(&l->lock);
	l->n++;
	l->waiting++;
	l->total++;
	l->backlog += own;
	list_add_tail(&l->queue, &c->link);
	spin_unlock(&l->lock);
}

/* No longer without a first token. */
static void leave_queue(struct ledger *l, struct charge *c)
{
	list_del(&c->link);
	l->waiting--;
	l->backlog -= c->own;
	if (!l->waiting || l->backlog < 0)
		l->backlog = 0;
}

static void learn_pool(struct pool_rate *r, double service, double work)
{
	spin_lock(&r->lock);
	r->s = DECAY_POOL * r->s + service;
	r->t = DECAY_POOL * r->t + work;
	spin_unlock(&r->lock);
}

/* When the engine could begin with it. */
static uint64_t begin_of(const struct ledger *l, const struct charge *c)
{
	return c->dispatch_ns > l->last_first_ns ? c->dispatch_ns : l->last_first_ns;
}

void ledger_first(struct charge *c, uint64_t now_ns)
{
	struct pod *p = c->pod;
	struct ledger *l;
	uint64_t begin;
	bool learned = false;

	if (!p || c->first)
		return;
	l = &p->ledger;
	c->first = true;
	spin_lock(&l->lock);
	begin = begin_of(l, c);
	leave_queue(l, c);
	l->first_tokens++;
	if (c->uncached > LEARN_UNCACHED && now_ns > begin) {
		l->s = DECAY_POD * l->s + (double)(now_ns - begin) / NS_PER_S;
		l->t = DECAY_POD * l->t + c->work;
		learned = true;
	}
	if (now_ns > l->last_first_ns)
		l->last_first_ns = now_ns;
	spin_unlock(&l->lock);
	if (learned)
		learn_pool(p->rate, (double)(now_ns - begin) / NS_PER_S, c->work);
}

void ledger_release(struct charge *c, bool failed, uint64_t now_ns)
{
	struct pod *p = c->pod;
	struct ledger *l;

	if (!p)
		return;
	l = &p->ledger;
	c->pod = NULL;
	spin_lock(&l->lock);
	if (!c->first)
		leave_queue(l, c);
	l->n--;
	l->failed += failed;
	spin_unlock(&l->lock);
	pod_unref(p);
}

void ledger_read(struct pod *p, uint64_t now_ns, struct ledger_view *ret)
{
	struct ledger *l = &p->ledger;
	double credit = 0;

	spin_lock(&l->lock);
	if (!list_empty(&l->queue)) {
		const struct charge *head = container_of(l->queue.next, struct charge, link);
		uint64_t begin = begin_of(l, head);

		if (now_ns > begin)
			credit = (double)(now_ns - begin) / NS_PER_S;
		if (credit > HEAD_CREDIT * head->own)
			credit = HEAD_CREDIT * head->own;
	}
	*ret = (struct ledger_view){
		.n = l->n,
		.waiting = l->waiting,
		.backlog = l->backlog > credit ? l->backlog - credit : 0,
		.s = l->s,
		.t = l->t,
	};
	spin_unlock(&l->lock);
}

void ledger_read_pool(const struct pod *p, double *ret_s, double *ret_t)
{
	struct pool_rate *r = p->rate;

	spin_lock(&r->lock);
	*ret_s = r->s;
	*ret_t = r->t;
	spin_unlock(&r->lock);
}
