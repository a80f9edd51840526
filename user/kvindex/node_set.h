/* SPDX-License-Identifier: Apache-2.0
 * Who has a node, and at which level: reading its set. Readers use it too, so each set word is read once, as a whole;
 * the writer changes them in index_node.c.
 */
#ifndef KVS_KVINDEX_NODE_SET_H
#define KVS_KVINDEX_NODE_SET_H

#include "kvindex/kvindex_int.h"

static inline struct node_set *set_at(const struct kvindex *x, uint64_t v)
{
	return (struct node_set *)x->arena[SETS].mem + (v & ID_MASK);
}

static inline uint32_t levels_id(uint64_t v)
{
	return (uint32_t)(v >> ID_BITS) & ID_MASK;
}

static inline struct node_levels *levels_at(const struct kvindex *x, uint64_t v)
{
	return (struct node_levels *)x->arena[SETS].mem + levels_id(v);
}

/* Readers too: a tier, or UNREACHED. */
static inline unsigned node_level(const struct kvindex *x, const struct node *n, unsigned holder)
{
	uint64_t v = atomic_load_explicit(&n->set, memory_order_acquire);
	unsigned w = holder / 64, bit = holder % 64;

	if (node_is_root(x, n))
		return TIER_GPU;
	if (v & SET_EXT) {
		if (!(stat_get(&set_at(x, v)->reach[w]) >> bit & 1))
			return UNREACHED;
		if (!levels_id(v))
			return TIER_GPU;
		return (stat_get(&levels_at(x, v)->above[0][w]) >> bit & 1) +
		       (stat_get(&levels_at(x, v)->above[1][w]) >> bit & 1);
	}
	for (; v; v >>= 16)
		if ((v & (REACH_BIT | HOLDER_BITS)) == (REACH_BIT | (holder + 1)))
			return v >> LEVEL_AT & 3;
	return UNREACHED;
}

/* Readers too. */
static inline bool node_reached(const struct kvindex *x, const struct node *n, unsigned holder)
{
	uint64_t v = atomic_load_explicit(&n->set, memory_order_acquire);

	if (node_is_root(x, n))
		return true;
	if (v & SET_EXT)
		return stat_get(&set_at(x, v)->reach[holder / 64]) >> (holder % 64) & 1;
	for (; v; v >>= 16)
		if ((v & (REACH_BIT | HOLDER_BITS)) == (REACH_BIT | (holder + 1)))
			return true;
	return false;
}

/* The first <words> words of the set of holders; readers too. */
static inline void node_reach(const struct kvindex *x, const struct node *n, uint64_t *ret, unsigned words)
{
	uint64_t v = atomic_load_explicit(&n->set, memory_order_acquire);

	if (node_is_root(x, n)) {
		memset(ret, 0xff, words * sizeof(*ret));
		return;
	}
	if (v & SET_EXT) {
		const struct node_set *s = set_at(x, v);

		for (unsigned i = 0; i < words; i++)
			ret[i] = stat_get(&s->reach[i]);
		return;
	}
	memset(ret, 0, words * sizeof(*ret));
	for (; v; v >>= 16)
		if (v & REACH_BIT)
			ret[((v & HOLDER_BITS) - 1) / 64] |= UINT64_C(1) << (((v & HOLDER_BITS) - 1) % 64);
}

/* Of those in <ret>, who reaches it in <tier> or faster ones. */
static inline void node_within(const struct kvindex *x, const struct node *n, uint64_t *ret, unsigned words,
			       unsigned tier)
{
	uint64_t v = atomic_load_explicit(&n->set, memory_order_acquire);

	if (node_is_root(x, n) || tier >= TIER_N - 1)
		return;
	if (v & SET_EXT) {
		for (unsigned i = 0; levels_id(v) && i < words; i++)
			ret[i] &= ~stat_get(&levels_at(x, v)->above[tier][i]);
		return;
	}
	for (; v; v >>= 16)
		if ((v & REACH_BIT) && (v >> LEVEL_AT & 3) > tier)
			ret[((v & HOLDER_BITS) - 1) / 64] &= ~(UINT64_C(1) << (((v & HOLDER_BITS) - 1) % 64));
}

#endif
