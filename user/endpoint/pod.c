/* SPDX-License-Identifier: Apache-2.0
 * One pod: its life and what is learned of it.
 */
#include <errno.h>
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
	p->id = id;
	p->generation = generation;
	p->pool = pool;
	p->spec = *spec;
	net_addr_format(&spec->addr, p->name);
	net_addr_format_ip(&spec->addr, p->ip);
	p->key = hash_bytes(p->name, strlen(p->name), 0);
	p->sample.running = p->sample.waiting = p->sample.kv_usage = p->sample.process_start = __builtin_nan("");
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
