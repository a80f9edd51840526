/* SPDX-License-Identifier: Apache-2.0
 * One pod: its life and what is learned of it.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "endpoint/endpoint_int.h"

struct pod *pod_new(const struct pod_spec *spec, unsigned pool, uint32_t id, uint32_t generation,
		    struct pool_rate *rate)
{
	struct pod *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	atomic_init(&p->refs, 1);
	atomic_init(&p->chat_lacks, UINT32_MAX);
	p->id = id;
	p->generation = generation;
	p->pool = pool;
	p->spec = *spec;
	net_addr_format(&spec->addr, p->name);
	net_addr_format_ip(&spec->addr, p->ip);
	p->key = hash_bytes(p->name, strlen(p->name), 0);
	p->sample.running = p->sample.waiting = p->sample.kv_usage = p->sample.process_start = NAN;
	p->pace.ttft = p->pace.gap = NAN;
	p->rate = pool_rate_ref(rate);
	atomic_flag_clear(&p->ledger.lock);
	list_init(&p->ledger.queue);
	list_init(&p->link);
	return p;
}

static void models_free(char **models, char **roots, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		free(models[i]);
		free(roots[i]);
	}
}

static void pod_free(struct pod *p)
{
	models_free(p->models, p->roots, p->nmodels);
	pool_rate_unref(p->rate);
	free(p);
}

struct pod *pod_ref(struct pod *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

void pod_unref(struct pod *p)
{
	if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
		pod_free(p);
}

void pod_set_sample(struct pod *p, const struct pod_sample *s)
{
	p->sample = *s;
	pod_set_down(p, POD_DOWN_ASLEEP, s->asleep);
}

#define DECAY_LOOK  0.98 /* remembers about 50 looks */
#define FORGET_LOOK 60

/* Totals that have become less were begun anew. */
static uint64_t since(uint64_t now, uint64_t before)
{
	return now >= before ? now - before : now;
}

/* True: *mean has changed. */
static bool mean_add(struct pod_mean *m, uint64_t ns, uint64_t n, double *mean)
{
	double was = *mean;

	m->s = m->s * DECAY_LOOK + (double)ns / 1e9;
	m->n = m->n * DECAY_LOOK + (double)n;
	m->empty = n ? 0 : m->empty + 1;
	if (m->empty >= FORGET_LOOK)
		*m = (struct pod_mean){ .empty = FORGET_LOOK };
	*mean = m->n > 0 ? m->s / m->n : NAN;
	return was != *mean && !(isnan(was) && isnan(*mean));
}

bool pod_set_times(struct pod *p, const struct pod_times *t)
{
	struct pod_clock *c = &p->clock;
	struct pod_times last = c->last;
	bool looked = c->looked, changed;

	c->last = *t;
	c->looked = true;
	if (!looked) /* the kernel's counts outlive us: what was before is of unknown age */
		return false;
	changed = mean_add(&c->ttft, since(t->ttft_ns, last.ttft_ns), since(t->ttft_n, last.ttft_n), &p->pace.ttft);
	return mean_add(&c->gap, since(t->gap_ns, last.gap_ns), since(t->gap_n, last.gap_n), &p->pace.gap) || changed;
}

int pod_set_models(struct pod *p, char *const *names, const char *const *roots, unsigned n)
{
	char *new_models[POD_MODELS_MAX] = { 0 }, *new_roots[POD_MODELS_MAX] = { 0 };
	unsigned take = n < POD_MODELS_MAX ? n : POD_MODELS_MAX;
	const char *root = "";

	for (unsigned i = 0; i < take; i++) {
		new_models[i] = strdup(names[i]);
		if (!new_models[i])
			goto no_memory;
		if (!roots || !roots[i])
			continue;
		new_roots[i] = strdup(roots[i]);
		if (!new_roots[i])
			goto no_memory;
		if (!*root)
			root = new_roots[i];
	}
	models_free(p->models, p->roots, p->nmodels);
	memcpy(p->models, new_models, sizeof(new_models));
	memcpy(p->roots, new_roots, sizeof(new_roots));
	p->nmodels = take;
	strncpy(p->model_root, root, sizeof(p->model_root) - 1);
	return n > take ? -E2BIG : 0;
no_memory:
	models_free(new_models, new_roots, take);
	return -ENOMEM;
}
