/* SPDX-License-Identifier: Apache-2.0
 * At the ceiling. Speculation goes first, then leaves of the tree that were not stored again since the hand came by
 * last (and, once they have gone, their parents likewise), a batch at a time: a node does not know the engine hashes
 * that lead to it, so each batch ends with one sweep over the maps of the holders that lost something.
 */
#include <errno.h>
#include <stdlib.h>

#include "kvindex/node_set.h"

#define BATCH_MIN 64
#define BATCH_MAX 32768

static size_t bytes_used(const struct kvindex *x)
{
	return stat_get(&x->st.bytes) - x->open.bytes - x->wait.bytes;
}

struct batch {
	uint64_t *gone; /* bitmap of nodes */
	uint64_t losers[SET_WORDS];
	unsigned n;
};

/* Leaves have nothing below whose reach could change. */
static void node_evict(struct kvindex *x, uint32_t id, struct batch *b)
{
	struct node *n = node_at(x, id);
	uint64_t have[SET_WORDS];

	node_holders(x, n, have);
	for (unsigned w = 0; w < SET_WORDS; w++) {
		b->losers[w] |= have[w];
		for (; have[w]; have[w] &= have[w] - 1) {
			unsigned holder = w * 64 + (unsigned)__builtin_ctzll(have[w]);

			if (!node_reached(x, n, holder)) {
				x->holder[holder].unreachable--;
				stat_add(&x->st.unreachable, UINT64_MAX);
			}
			if (n->twice)
				pmap_del(&x->twice, pair_key(holder, id));
			tier_forget(x, holder, id);
			node_drop(x, n, holder);
		}
	}
	b->gone[id / 64] |= UINT64_C(1) << (id % 64);
	b->n++;
	node_free_unused(x, id);
}

static bool may_go(const struct kvindex *x, const struct node *n)
{
	return n->live && !n->spec && !node_is_root(x, n) && !n->child && node_id(x, n) != x->pin;
}

static unsigned evict_blocks(struct kvindex *x, unsigned want)
{
	const struct arena *a = &x->arena[NODES];
	struct batch b = { .gone = calloc(a->high / 64 + 1, sizeof(*b.gone)) };

	/* Twice around: the first may only take marks away. */
	for (uint64_t steps = b.gone ? (uint64_t)a->high * 2 : 0; steps && b.n < want; steps--) {
		uint32_t id = x->hand = x->hand + 1 < a->high ? x->hand + 1 : 1;
		struct node *n = node_at(x, id);

		if (n->touched && n->live) {
			n->touched = 0;
			continue;
		}
		while (may_go(x, n) && !n->touched) {
			uint32_t up = n->parent;

			node_evict(x, id, &b);
			id = up;
			n = node_at(x, id);
		}
	}
	for (unsigned holder = 0; b.n && holder < x->nholders; holder++)
		if (b.losers[holder / 64] >> (holder % 64) & 1)
			entry_sweep(x, holder, b.gone);
	free(b.gone);
	stat_add(&x->st.evicted, b.n);
	return b.n;
}

/* What one more node needs. A table about to grow counts as grown; that the old one stays until readers have left it is
 * not counted. */
static size_t bytes_more(const struct kvindex *x, const struct holder *h, uint64_t nkeys)
{
	const struct table *t = atomic_load_explicit(&x->table, memory_order_relaxed);
	uint64_t slots = (t->live + nkeys + 8) * 9 / 5 + 64;
	size_t need = sizeof(struct node) * 4 + nkeys * sizeof(uint64_t) + (h ? entry_more(x, h) : guess_more(x));

	if ((t->used + nkeys + 8) * 4 > t->cap * 3 && slots > t->cap)
		need += (slots - t->cap) * SLOT_SIZE;
	return need;
}

bool index_fits(const struct kvindex *x, size_t more)
{
	return bytes_used(x) + more <= x->max_bytes;
}

bool index_has_room(const struct kvindex *x, const struct holder *h, uint64_t nkeys)
{
	return bytes_used(x) + bytes_more(x, h, nkeys) <= x->max_bytes;
}

int index_room(struct kvindex *x, const struct holder *h, uint64_t nkeys)
{
	if (x->open.bytes + x->wait.bytes > x->max_bytes / 16) {
		index_reclaim(x);
		index_reclaim(x);
	}
	/* One block that would drive out most of the others. */
	if (nkeys > x->max_bytes / 64)
		return -ENOMEM;
	while (bytes_used(x) + bytes_more(x, h, nkeys) > x->max_bytes) {
		unsigned want = (unsigned)(stat_get(&x->st.nodes) / 32) + BATCH_MIN;

		if (want > BATCH_MAX)
			want = BATCH_MAX;
		if (!guess_evict(x, want) && !evict_blocks(x, want))
			return -ENOMEM;
		index_reclaim(x);
		index_reclaim(x);
	}
	return 0;
}
