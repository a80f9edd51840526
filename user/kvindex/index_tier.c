/* SPDX-License-Identifier: Apache-2.0
 * Where a holder's blocks lie. Only what is in no GPU is written down here; the maps of engine hashes have the counts.
 *
 * A look-up wants to know how far a holder's text goes in the GPU alone, and how far without the disk, as engines use
 * the one up to its first gap and then the other. Both are closed towards the beginning as reach is, so each node has
 * the holder's level, and look-ups bisect.
 *
 * At the ceiling nothing is evicted for this: blocks then go on counting as faster than they are.
 */
#include "kvindex/kvindex_int.h"

enum index_tier tier_own(const struct kvindex *x, unsigned holder, uint32_t id)
{
	const uint32_t *own = x->holder[holder].nslow ? pmap_find(&x->slow, pair_key(holder, id)) : NULL;

	return own ? (enum index_tier) * own : TIER_GPU;
}

static void count_slow(struct kvindex *x, unsigned holder, uint32_t n)
{
	x->holder[holder].nslow += n;
	atomic_store_explicit(&x->nslow, x->nslow + n, memory_order_release);
}

void tier_forget(struct kvindex *x, unsigned holder, uint32_t id)
{
	if (tier_own(x, holder, id) == TIER_GPU)
		return;
	pmap_del(&x->slow, pair_key(holder, id));
	count_slow(x, holder, UINT32_MAX);
}

void tier_set(struct kvindex *x, unsigned holder, uint32_t id, enum index_tier tier)
{
	enum index_tier was = tier_own(x, holder, id);
	struct node *n = node_at(x, id);
	uint32_t *own, before = x->slow.cap;

	if (tier == was)
		return;
	/* Under another hash it may be where it was. */
	if (tier > was && n->twice && pmap_find(&x->twice, pair_key(holder, id)))
		return;
	if (tier == TIER_GPU) {
		tier_forget(x, holder, id);
	} else {
		if (was == TIER_GPU && !index_fits(x, pmap_more(&x->slow)))
			return;
		own = pmap_put(&x->slow, pair_key(holder, id));
		if (!own)
			return;
		stat_add(&x->st.bytes, (uint64_t)(x->slow.cap - before) * (sizeof(uint64_t) + sizeof(uint32_t)));
		*own = tier;
		if (was == TIER_GPU)
			count_slow(x, holder, 1);
	}
	level_follow(x, n, holder);
}
