/* SPDX-License-Identifier: Apache-2.0
 * At the ceiling. Speculation goes first, then leaves of the tree that were not stored again since the hand came by
 * last (and, once they have gone, their parents likewise), a batch at a time: a node does not know the engine hashes
 * that lead to it, so each batch ends with one sweep over the maps of the holders that lost something.
 */
#include <errno.h>

#include "kvindex/kvindex_int.h"

#define BATCH_MIN 64

static size_t bytes_used(const struct kvindex *x)
{
	return stat_get(&x->st.bytes) - x->open.bytes - x->wait.bytes;
}

/* Leaves have nothing below whose reach could change. */
static void node_evict(struct kvindex *x, uint32_t id, uint64_t losers[SET_WORDS])
{
	struct node *n = node_at(x, id);

	for (unsigned holder = 0; holder < x->nholders; holder++) {
		struct holder *h = &x->holder[holder];

		if (!node_has(x, n, holder))
			continue;
		losers[holder / 64] |= UINT64_C(1) << (holder % 64);
		if (!node_reached(x, n, holder)) {
			h->unreachable--;
			stat_add(&x->st.unreachable, UINT64_MAX);
		}
		if (n->twice)
			pmap_del(&x->twice, pair_key(holder, id));
		node_drop(x, n, holder);
	}
	node_free_unused(x, id);
}

static bool may_go(const struct kvindex *x, const struct node *n)
{
	return n->live && !n->spec && !node_is_root(x, n) && !n->child && node_id(x, n) != x->pin;
}

static unsigned evict_blocks(struct kvindex *x, unsigned want)
{
	const struct arena *a = &x->arena[NODES];
	uint64_t losers[SET_WORDS] = { 0 };
	unsigned gone = 0;

	/* Twice around: the first may only take marks away. */
	for (uint64_t steps = (uint64_t)a->high * 2; steps && gone < want; steps--) {
		uint32_t id = x->hand = x->hand + 1 < a->high ? x->hand + 1 : 1;
		struct node *n = node_at(x, id);

		if (n->touched && n->live) {
			n->touched = 0;
			continue;
		}
		while (may_go(x, n) && !n->touched) {
			uint32_t up = n->parent;

			node_evict(x, id, losers);
			gone++;
			id = up;
			n = node_at(x, id);
		}
	}
	for (unsigned holder = 0; holder < x->nholders; holder++)
		if (losers[holder / 64] >> (holder % 64) & 1)
			entry_sweep(x, holder);
	stat_add(&x->st.evicted, gone);
	return gone;
}

/* Room for one more node and what it may bring with it. A table about to grow counts as grown; that the old one stays
 * until readers have left it is not counted. */
int index_room(struct kvindex *x)
{
	if (x->open.bytes + x->wait.bytes > x->max_bytes / 16) {
		index_reclaim(x);
		index_reclaim(x);
	}
	for (;;) {
		const struct table *t = atomic_load_explicit(&x->table, memory_order_relaxed);
		size_t need = sizeof(struct node) * 4;
		unsigned want = (unsigned)(stat_get(&x->st.nodes) / 32) + BATCH_MIN;

		if ((t->used + 8) * 4 > t->cap * 3 && t->live * 9 / 5 + 64 > t->cap)
			need += (t->live * 9 / 5 + 64 - t->cap) * (sizeof(*t->slot) + sizeof(*t->refs));
		if (bytes_used(x) + need <= x->max_bytes)
			return 0;
		if (!guess_evict(x, want) && !evict_blocks(x, want))
			return -ENOMEM;
		index_reclaim(x);
		index_reclaim(x);
	}
}
