/* SPDX-License-Identifier: Apache-2.0
 * The table of pods.
 *
 * Sources (a static list, a file, DNS, an operator) each give the complete set of what they know; endpoints_set makes
 * the table agree. A pod belongs to (pool, address) and remembers which sources list it, so one source's update never
 * takes away what another still wants.
 *
 * Who may free what: the table's reference goes when the last source drops the pod; the snapshots that workers may
 * still read hold theirs, and so do requests. Old snapshots wait in <retired> until no reader can hold them.
 *
 * An address keeps its number of generations after its pod is gone, so that records of two pods behind one address can
 * be told apart. Clusters use up addresses without end; the oldest are forgotten (a pod's id never repeats).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "endpoint/endpoint_int.h"

#define SOURCES_MAX 32
#define PAST_MAX    4096
#define POOLS_MAX   1024

struct past {
	struct net_addr addr;
	unsigned pool;
	uint32_t generation;
};

struct retired {
	struct snapshot *snapshot;
	uint64_t epoch;
	struct retired *next;
};

struct endpoints {
	struct qsbr *qsbr;
	struct list pods;
	unsigned npods;
	uint32_t last_id;
	uint64_t mark, serial;
	char *sources[SOURCES_MAX];
	unsigned npools;
	struct pool_names *pools;
	struct pool_rate **rates;
	struct past past[PAST_MAX];
	unsigned npast, past_turn;
	struct endpoints_hooks hooks;
	_Atomic(struct snapshot *) snapshot;
	struct retired *retired;
};

struct endpoints *endpoints_new(struct qsbr *q)
{
	struct endpoints *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->qsbr = q;
	list_init(&e->pods);
	atomic_init(&e->snapshot, snapshot_build(&e->pods, NULL, 0, 0));
	if (!atomic_load(&e->snapshot)) {
		free(e);
		return NULL;
	}
	return e;
}

static void names_free(struct pool_names *names)
{
	for (unsigned i = 0; i < names->n; i++)
		free(names->names[i]);
	free(names->names);
	*names = (struct pool_names){ 0 };
}

void endpoints_free(struct endpoints *e)
{
	if (!e)
		return;
	while (e->retired) {
		struct retired *r = e->retired;

		e->retired = r->next;
		snapshot_free(r->snapshot);
		free(r);
	}
	snapshot_free(atomic_load(&e->snapshot));
	list_for_each_safe (it, next, &e->pods) {
		list_del(it);
		pod_unref(container_of(it, struct pod, link));
	}
	for (unsigned i = 0; i < e->npools; i++) {
		names_free(&e->pools[i]);
		pool_rate_unref(e->rates[i]);
	}
	free(e->pools);
	free(e->rates);
	for (unsigned i = 0; i < SOURCES_MAX; i++)
		free(e->sources[i]);
	free(e);
}

void endpoints_hook(struct endpoints *e, struct endpoints_hooks h)
{
	e->hooks = h;
}

/* Room for pools up to <pool>. */
static int pools_reach(struct endpoints *e, unsigned pool)
{
	struct pool_names *pools;
	struct pool_rate **rates;

	if (pool >= POOLS_MAX)
		return -EINVAL;
	if (pool < e->npools)
		return 0;
	pools = realloc(e->pools, (pool + 1) * sizeof(*pools));
	if (!pools)
		return -ENOMEM;
	e->pools = pools;
	rates = realloc(e->rates, (pool + 1) * sizeof(*rates));
	if (!rates)
		return -ENOMEM;
	e->rates = rates;
	while (e->npools <= pool) {
		struct pool_rate *rate = pool_rate_new();

		if (!rate)
			return -ENOMEM;
		pools[e->npools] = (struct pool_names){ 0 };
		rates[e->npools++] = rate;
	}
	return 0;
}

int endpoints_pool_models(struct endpoints *e, unsigned pool, char *const *names, unsigned n)
{
	struct pool_names fresh = { 0 };
	int r = pools_reach(e, pool);

	if (r < 0)
		return r;
	fresh.names = calloc(n ? n : 1, sizeof(*fresh.names));
	if (!fresh.names)
		return -ENOMEM;
	for (; fresh.n < n; fresh.n++) {
		fresh.names[fresh.n] = strdup(names[fresh.n]);
		if (!fresh.names[fresh.n]) {
			names_free(&fresh);
			return -ENOMEM;
		}
	}
	names_free(&e->pools[pool]);
	e->pools[pool] = fresh;
	return 0;
}

/* The bit of a source's name. 0, -ENOMEM, or -ENOSPC: there are too many. */
static int source_bit(struct endpoints *e, const char *name, uint32_t *ret)
{
	for (unsigned i = 0; i < SOURCES_MAX; i++) {
		if (!e->sources[i]) {
			e->sources[i] = strdup(name);
			if (!e->sources[i])
				return -ENOMEM;
		}
		if (strcmp(e->sources[i], name) == 0) {
			*ret = UINT32_C(1) << i;
			return 0;
		}
	}
	return -ENOSPC;
}

static struct pod *pod_at(struct endpoints *e, unsigned pool, const struct net_addr *addr)
{
	list_for_each (it, &e->pods) {
		struct pod *p = container_of(it, struct pod, link);

		if (p->pool == pool && net_addr_eq(&p->spec.addr, addr))
			return p;
	}
	return NULL;
}

static uint32_t next_generation(struct endpoints *e, unsigned pool, const struct net_addr *addr)
{
	struct past *p;

	for (unsigned i = 0; i < e->npast; i++)
		if (e->past[i].pool == pool && net_addr_eq(&e->past[i].addr, addr))
			return ++e->past[i].generation;
	if (e->npast < PAST_MAX) {
		p = &e->past[e->npast++];
	} else {
		p = &e->past[e->past_turn];
		e->past_turn = (e->past_turn + 1) % PAST_MAX;
	}
	*p = (struct past){ .addr = *addr, .pool = pool, .generation = 1 };
	return 1;
}

static unsigned ranks_of(const struct pod_spec *s)
{
	return s->ranks == 0 ? 1 : s->ranks > POD_RANKS_MAX ? POD_RANKS_MAX : s->ranks;
}

static unsigned weight_of(const struct pod_spec *s)
{
	return s->weight > 100 ? 100 : s->weight;
}

static void pod_update(struct endpoints *e, struct pod *p, const struct pod_spec *s)
{
	bool changed = strcmp(p->spec.events, s->events) != 0 || strcmp(p->spec.replay, s->replay) != 0 ||
		       strcmp(p->spec.metrics, s->metrics) != 0;

	__atomic_store_n(&p->spec.weight, weight_of(s), __ATOMIC_RELAXED);
	__atomic_store_n(&p->spec.role, s->role, __ATOMIC_RELAXED);
	if (!changed)
		return;
	memcpy(p->spec.events, s->events, sizeof(p->spec.events));
	memcpy(p->spec.replay, s->replay, sizeof(p->spec.replay));
	memcpy(p->spec.metrics, s->metrics, sizeof(p->spec.metrics));
	if (e->hooks.on_change)
		e->hooks.on_change(e->hooks.arg, p);
}

static int pod_add(struct endpoints *e, unsigned pool, const struct pod_spec *spec, uint32_t bit)
{
	struct pod_spec s = *spec;
	struct pod *p;

	if (e->npods == ENDPOINTS_PODS_MAX)
		return -ENOSPC;
	s.ranks = ranks_of(spec);
	s.weight = weight_of(spec);
	p = pod_new(&s, pool, e->last_id + 1, next_generation(e, pool, &s.addr), e->rates[pool]);
	if (!p)
		return -ENOMEM;
	e->last_id++;
	e->npods++;
	p->sources = bit;
	p->mark = e->mark;
	list_add_tail(&e->pods, &p->link);
	if (e->hooks.on_add)
		e->hooks.on_add(e->hooks.arg, p);
	return 0;
}

static void pod_remove(struct endpoints *e, struct pod *p)
{
	pod_set_down(p, POD_DOWN_REMOVED, true);
	list_del(&p->link);
	e->npods--;
	if (e->hooks.on_remove)
		e->hooks.on_remove(e->hooks.arg, p);
	pod_unref(p);
}

int endpoints_set(struct endpoints *e, unsigned pool, const char *source, const struct pod_spec *specs, unsigned n)
{
	uint32_t bit = 0;
	int changes = 0, err = pools_reach(e, pool);

	if (err == 0)
		err = source_bit(e, source, &bit);
	if (err < 0)
		return err;
	e->mark++;
	for (unsigned i = 0; i < n; i++) {
		struct pod *p = pod_at(e, pool, &specs[i].addr);

		if (!p || p->mark == e->mark || p->spec.ranks != ranks_of(&specs[i]))
			continue;
		p->mark = e->mark;
		p->sources |= bit;
		/* The lowest bit that lists it. */
		if ((p->sources & -p->sources) == bit)
			pod_update(e, p, &specs[i]);
	}
	list_for_each_safe (it, next, &e->pods) {
		struct pod *p = container_of(it, struct pod, link);

		if (p->pool != pool || p->mark == e->mark || !(p->sources & bit))
			continue;
		p->sources &= ~bit;
		if (p->sources)
			continue;
		pod_remove(e, p);
		changes++;
	}
	for (unsigned i = 0; i < n; i++) {
		int r;

		if (pod_at(e, pool, &specs[i].addr))
			continue;
		r = pod_add(e, pool, &specs[i], bit);
		if (r < 0)
			err = r;
		else
			changes++;
	}
	return err < 0 ? err : changes;
}

int endpoints_publish(struct endpoints *e)
{
	struct retired *old = malloc(sizeof(*old));
	struct snapshot *s = old ? snapshot_build(&e->pods, e->pools, e->npools, e->serial + 1) : NULL;

	if (!s) {
		free(old);
		return -ENOMEM;
	}
	e->serial++;
	old->snapshot = atomic_exchange(&e->snapshot, s);
	old->epoch = qsbr_retire(e->qsbr);
	old->next = e->retired;
	e->retired = old;
	for (struct retired **at = &e->retired; *at;) {
		struct retired *r = *at;

		if (!qsbr_passed(e->qsbr, r->epoch)) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		snapshot_free(r->snapshot);
		free(r);
	}
	return 0;
}

const struct snapshot *endpoints_snapshot(const struct endpoints *e)
{
	return atomic_load(&e->snapshot);
}

struct pod *endpoints_find(struct endpoints *e, struct str name)
{
	list_for_each (it, &e->pods) {
		struct pod *p = container_of(it, struct pod, link);

		if (str_eq(name, str_of(p->name)))
			return p;
	}
	return NULL;
}

struct list *endpoints_pods(struct endpoints *e)
{
	return &e->pods;
}
