/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "kvindex/kvindex_int.h"

/* A ceiling counts the memory in use; cells in limbo and holder sets need address space beyond it. */
static size_t cells_for(size_t max_bytes)
{
	return max_bytes / sizeof(struct node) + max_bytes / sizeof(struct node) / 8 + 4096;
}

/* A base that no word reaches. */
static bool base_fits(uint64_t base)
{
	return base >= UINT64_C(1) << 56 && base < P61;
}

static void set_secrets(struct kvindex *x, const struct index_secrets *s)
{
	x->pow[0] = 1;
	x->pow[1] = s->base;
	for (int i = 2; i <= 8; i++)
		x->pow[i] = mod61((unsigned __int128)x->pow[i - 1] * x->pow[1]);
	x->secret = s->key;
}

struct kvindex *index_new_with(struct qsbr *q, size_t max_bytes, unsigned holders, const struct index_secrets *s)
{
	struct kvindex *x;

	if (!holders || holders > INDEX_HOLDERS || !base_fits(s->base)) {
		errno = EINVAL;
		return NULL;
	}
	x = calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	x->q = q;
	x->max_bytes = max_bytes;
	x->nholders = holders;
	set_secrets(x, s);
	x->nguess = 1;
	atomic_store_explicit(&x->table, table_new(0), memory_order_release);
	if (!x->table || arena_init(&x->arena[NODES], cells_for(max_bytes)) ||
	    arena_init(&x->arena[SETS], cells_for(max_bytes))) {
		index_free(x);
		errno = ENOMEM;
		return NULL;
	}
	stat_add(&x->st.bytes, sizeof(*x) + x->table->bytes);
	return x;
}

struct kvindex *index_new(struct qsbr *q, size_t max_bytes, unsigned holders)
{
	struct index_secrets s;

	do
		s.base = rand_secret() & P61;
	while (!base_fits(s.base));
	s.key = rand_secret();
	return index_new_with(q, max_bytes, holders, &s);
}

static void tables_free(struct table *t)
{
	while (t) {
		struct table *next = t->retired;

		table_free(t);
		t = next;
	}
}

void index_free(struct kvindex *x)
{
	if (!x)
		return;
	for (unsigned h = 0; h < x->nholders; h++)
		index_clear(x, h);
	tables_free(x->open.tables);
	tables_free(x->wait.tables);
	table_free(x->table);
	pmap_free(&x->twice);
	pmap_free(&x->slow);
	pmap_free(&x->guess_of);
	free(x->guess);
	arena_free(&x->arena[NODES]);
	arena_free(&x->arena[SETS]);
	free(x);
}

void index_tick(struct kvindex *x, uint64_t now_ns)
{
	struct table *t = atomic_load_explicit(&x->table, memory_order_relaxed);

	guess_expire(x, now_ns);
	if ((t->cap > 4096 && t->live < t->cap / 8) || t->used - t->live > t->cap / 4)
		table_resize(x);
	index_reclaim(x);
}

void index_stats(const struct kvindex *x, struct index_stats *ret)
{
	const struct counters *c = &x->st;

	*ret = (struct index_stats){
		.nodes = stat_get(&c->nodes),
		.keys = stat_get(&c->keys),
		.bytes = stat_get(&c->bytes),
		.max_bytes = x->max_bytes,
		.stored = stat_get(&c->stored),
		.removed = stat_get(&c->removed),
		.cleared = stat_get(&c->cleared),
		.unknown_parent = stat_get(&c->unknown_parent),
		.evicted = stat_get(&c->evicted),
		.speculated = stat_get(&c->speculated),
		.expired = stat_get(&c->expired),
		.unreachable = stat_get(&c->unreachable),
	};
}

void index_holder_stats(const struct kvindex *x, unsigned holder, uint64_t *ret_blocks, uint64_t *ret_speculative)
{
	const struct holder *h = &x->holder[holder];

	*ret_blocks = holder < x->nholders ? atomic_load_explicit(&h->blocks, memory_order_relaxed) : 0;
	*ret_speculative = holder < x->nholders ? atomic_load_explicit(&h->guesses, memory_order_relaxed) : 0;
}
