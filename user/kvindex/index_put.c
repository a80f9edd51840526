/* SPDX-License-Identifier: Apache-2.0
 * What engines announce: blocks stored, removed, cleared. Each holder's map leads from the engine's hash of a block to
 * its node, with a count of references per tier.
 */
#include <errno.h>
#include <stdlib.h>

#include "kvindex/node_set.h"

#define ENTRIES_MIN 64

static uint32_t home_of(const struct kvindex *x, const struct holder *h, uint64_t hash)
{
	return (uint32_t)(((unsigned __int128)mix64(hash ^ x->secret) * h->cap) >> 64);
}

static uint32_t after(const struct holder *h, uint32_t i)
{
	return i + 1 == h->cap ? 0 : i + 1;
}

static struct entry *entry_find(const struct kvindex *x, const struct holder *h, uint64_t hash)
{
	if (!h->cap)
		return NULL;
	for (uint32_t i = home_of(x, h, hash); h->map[i].node; i = after(h, i))
		if (h->map[i].hash == hash)
			return &h->map[i];
	return NULL;
}

static bool map_full(const struct holder *h)
{
	return ((uint64_t)atomic_load_explicit(&h->blocks, memory_order_relaxed) + 1) * 5 > (uint64_t)h->cap * 4;
}

static uint32_t map_next_cap(const struct holder *h)
{
	return h->cap ? h->cap + h->cap / 2 : ENTRIES_MIN;
}

size_t entry_more(const struct kvindex *x, const struct holder *h)
{
	return (map_full(h) ? (map_next_cap(h) - h->cap) * sizeof(*h->map) : 0) + pmap_more(&x->twice);
}

static int map_grow(struct kvindex *x, struct holder *h)
{
	struct holder to = { .cap = map_next_cap(h) };

	to.map = calloc(to.cap, sizeof(*to.map));
	if (!to.map)
		return -ENOMEM;
	for (uint32_t i = 0, at; i < h->cap; i++) {
		if (!h->map[i].node)
			continue;
		for (at = home_of(x, &to, h->map[i].hash); to.map[at].node; at = after(&to, at))
			;
		to.map[at] = h->map[i];
	}
	stat_add(&x->st.bytes, (uint64_t)(to.cap - h->cap) * sizeof(*to.map));
	free(h->map);
	h->map = to.map;
	h->cap = to.cap;
	return 0;
}

static struct entry *entry_new(struct kvindex *x, struct holder *h, uint64_t hash, uint32_t node)
{
	uint32_t i;

	if (map_full(h) && map_grow(x, h))
		return NULL;
	for (i = home_of(x, h, hash); h->map[i].node; i = after(h, i))
		;
	h->map[i] = (struct entry){ .hash = hash, .node = node };
	count_add(&h->blocks, 1);
	return &h->map[i];
}

/* Closes the gap, so another entry may stand at <e> afterwards. */
static void entry_del(struct kvindex *x, struct holder *h, struct entry *e)
{
	uint32_t hole = (uint32_t)(e - h->map), i, home;

	for (i = after(h, hole); h->map[i].node; i = after(h, i)) {
		home = home_of(x, h, h->map[i].hash);
		/* An entry may move back to the hole unless its home lies behind it (cyclically). */
		if (hole <= i ? home > hole && home <= i : home > hole || home <= i)
			continue;
		h->map[hole] = h->map[i];
		hole = i;
	}
	h->map[hole].node = 0;
	count_add(&h->blocks, UINT32_MAX);
}

void holder_active(struct kvindex *x, unsigned holder)
{
	struct holder *h = &x->holder[holder];

	set_bit(x->real, holder, h->blocks);
	set_bit(x->active, holder, h->blocks || h->guesses);
}

static unsigned tier_refs(uint32_t refs, enum index_tier tier)
{
	return refs >> (tier * REFS_BITS) & REFS_MAX;
}

/* Of an entry with references. */
static enum index_tier tier_best(uint32_t refs)
{
	return tier_refs(refs, TIER_GPU) ? TIER_GPU : tier_refs(refs, TIER_CPU) ? TIER_CPU : TIER_DISK;
}

/* Counts end at REFS_MAX: what was stored more often goes earlier than it should, never later. */
static void tier_ref(struct entry *e, enum index_tier tier)
{
	if (tier_refs(e->refs, tier) < REFS_MAX)
		e->refs += 1u << (tier * REFS_BITS);
}

/* The holder has the node no longer under this hash. */
static void forget(struct kvindex *x, unsigned holder, uint32_t id)
{
	struct holder *h = &x->holder[holder];
	struct node *n = node_at(x, id);
	uint32_t *more = n->twice ? pmap_find(&x->twice, pair_key(holder, id)) : NULL;

	if (more) {
		if (!--*more)
			pmap_del(&x->twice, pair_key(holder, id));
		return;
	}
	tier_forget(x, holder, id);
	if (node_reached(x, n, holder)) {
		node_drop(x, n, holder);
		level_below(x, n, holder);
	} else {
		node_drop(x, n, holder);
		h->unreachable--;
		stat_add(&x->st.unreachable, UINT64_MAX);
	}
	node_free_unused(x, id);
}

static int take(struct kvindex *x, unsigned holder, uint32_t id)
{
	struct holder *h = &x->holder[holder];
	struct node *n = node_at(x, id);
	uint32_t *more, before = x->twice.cap;

	if (node_has(x, n, holder)) {
		more = pmap_put(&x->twice, pair_key(holder, id));
		if (!more)
			return -ENOMEM;
		stat_add(&x->st.bytes, (uint64_t)(x->twice.cap - before) * (sizeof(uint64_t) + sizeof(uint32_t)));
		++*more;
		n->twice = 1;
		return 0;
	}
	if (node_take(x, n, holder))
		return -ENOMEM;
	h->unreachable++;
	stat_add(&x->st.unreachable, 1);
	level_follow(x, n, holder);
	return 0;
}

static int store(struct kvindex *x, unsigned holder, uint64_t hash, uint32_t id, enum index_tier tier)
{
	struct holder *h = &x->holder[holder];
	struct entry *e = entry_find(x, h, hash);
	uint32_t was = e ? e->node : 0;

	node_at(x, id)->touched = 1;
	if (e && was != id) {
		/* The same hash for another text: what was known of it is out of date. */
		entry_del(x, h, e);
		forget(x, holder, was);
		e = NULL;
	}
	if (!e) {
		e = entry_new(x, h, hash, id);
		if (!e)
			return -ENOMEM;
		if (take(x, holder, id)) {
			entry_del(x, h, e);
			return -ENOMEM;
		}
	}
	tier_ref(e, tier);
	tier_set(x, holder, id, tier_best(e->refs));
	stat_add(&x->st.stored, 1);
	return 0;
}

bool index_knows(const struct kvindex *x, unsigned holder, uint64_t hash)
{
	return entry_find(x, &x->holder[holder], hash);
}

int index_restore_entry(struct kvindex *x, unsigned holder, uint64_t hash, uint32_t id, uint32_t refs)
{
	struct entry *e;
	int r = store(x, holder, hash, id, tier_best(refs));

	if (r)
		return r;
	e = entry_find(x, &x->holder[holder], hash);
	e->refs = refs;
	return 0;
}

/* The state of the hash at a node's end. */
static struct state state_of(const struct node *n)
{
	return (struct state){ .h = n->h, .acc = n->acc, .bytes = n->byte_end };
}

static uint32_t child_for(struct kvindex *x, uint32_t parent, const char *text, size_t len, uint32_t tokens)
{
	struct node *p = node_at(x, parent);
	struct state s = state_of(p);
	uint64_t some[16], *keys = some, ns = node_at(x, p->root)->in.ns;
	unsigned nkeys = keys_between(s.bytes, s.bytes + len);
	uint32_t id;

	if (s.bytes + len > UINT32_MAX || tokens > UINT32_MAX - p->tok_end)
		return 0;
	if (nkeys > 16) {
		keys = malloc(nkeys * sizeof(*keys));
		if (!keys)
			return 0;
	}
	for (unsigned i = 0; i < nkeys; i++) {
		size_t step = INDEX_SPAN - s.bytes % INDEX_SPAN;

		state_feed(x, &s, text, step);
		text += step;
		len -= step;
		keys[i] = index_key(x, s.h, s.acc, s.bytes, ns);
	}
	state_feed(x, &s, text, len);
	id = child_get(x, parent, &s, p->tok_end + tokens, keys, nkeys);
	if (keys != some)
		free(keys);
	return id;
}

int index_put(struct kvindex *x, unsigned holder, uint64_t ns, bool has_parent, uint64_t parent, const uint64_t *hashes,
	      const uint32_t *ends, unsigned n, const char *text, uint32_t block_size, enum index_tier tier,
	      uint64_t now_ns)
{
	struct entry *e;
	uint32_t start = 0, at;
	int r = 0;

	if (holder >= x->nholders || tier >= TIER_N)
		return -EINVAL;
	for (unsigned i = 0; i < n; start = ends[i++])
		if (ends[i] < start)
			return -EINVAL;
	if (!n)
		return 0;
	if (has_parent) {
		e = entry_find(x, &x->holder[holder], parent);
		if (!e) {
			stat_add(&x->st.unknown_parent, 1);
			return -ENOENT;
		}
		at = e->node;
	} else {
		at = root_get(x, ns);
		if (!at)
			return -ENOMEM;
	}
	start = 0;
	for (unsigned i = 0; i < n && !r; i++) {
		uint32_t child = 0;

		x->pin = at;
		r = index_room(
			x, &x->holder[holder],
			keys_between(node_at(x, at)->byte_end, (uint64_t)node_at(x, at)->byte_end + ends[i] - start));
		if (!r) {
			child = child_for(x, at, text + start, ends[i] - start, block_size);
			r = child ? 0 : -ENOMEM;
		}
		x->pin = child ? child : at;
		if (!r)
			r = store(x, holder, hashes[i], child, tier);
		if (!r)
			at = child;
		start = ends[i];
		if (r) {
			uint32_t left = x->pin;

			x->pin = 0;
			node_free_unused(x, left);
		}
	}
	x->pin = 0;
	holder_active(x, holder);
	return r;
}

unsigned index_put_tier(struct kvindex *x, unsigned holder, const uint64_t *hashes, unsigned n, enum index_tier tier)
{
	unsigned known = 0;

	if (holder >= x->nholders || tier >= TIER_N)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		struct entry *e = entry_find(x, &x->holder[holder], hashes[i]);

		if (e) {
			tier_ref(e, tier);
			tier_set(x, holder, e->node, tier_best(e->refs));
			known++;
		}
	}
	return known;
}

unsigned index_remove(struct kvindex *x, unsigned holder, const uint64_t *hashes, unsigned n, enum index_tier tier)
{
	struct holder *h = &x->holder[holder];
	unsigned known = 0;

	if (holder >= x->nholders || tier >= TIER_N)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		struct entry *e = entry_find(x, h, hashes[i]);
		uint32_t id;

		if (!e || !tier_refs(e->refs, tier))
			continue;
		e->refs -= 1u << (tier * REFS_BITS);
		known++;
		if (e->refs) {
			tier_set(x, holder, e->node, tier_best(e->refs));
			continue;
		}
		id = e->node;
		entry_del(x, h, e);
		forget(x, holder, id);
	}
	stat_add(&x->st.removed, known);
	holder_active(x, holder);
	return known;
}

/* All reach of the holder goes with its blocks, so none of it is followed up. */
void index_clear(struct kvindex *x, unsigned holder)
{
	struct holder *h = &x->holder[holder];

	if (holder >= x->nholders)
		return;
	guess_clear(x, holder);
	for (uint32_t i = 0; i < h->cap; i++) {
		uint32_t id = h->map[i].node;
		struct node *n = node_at(x, id);

		if (!id)
			continue;
		if (n->twice)
			pmap_del(&x->twice, pair_key(holder, id));
		tier_forget(x, holder, id);
		node_drop(x, n, holder);
		if (n->live)
			node_free_unused(x, id);
	}
	stat_add(&x->st.cleared, h->blocks);
	stat_add(&x->st.unreachable, (uint64_t)0 - h->unreachable);
	stat_add(&x->st.bytes, (uint64_t)0 - h->cap * sizeof(*h->map));
	free(h->map);
	h->map = NULL;
	h->cap = 0;
	h->unreachable = 0;
	atomic_store_explicit(&h->blocks, 0, memory_order_relaxed);
	holder_active(x, holder);
}

void index_clear_tier(struct kvindex *x, unsigned holder, enum index_tier tier)
{
	struct holder *h = &x->holder[holder];
	uint64_t cleared = 0;

	if (holder >= x->nholders || tier >= TIER_N)
		return;
	for (uint32_t i = 0; i < h->cap;) {
		struct entry *e = &h->map[i];
		uint32_t id = e->node;

		if (id && tier_refs(e->refs, tier)) {
			e->refs &= ~(REFS_MAX << (tier * REFS_BITS));
			if (!e->refs) {
				entry_del(x, h, e);
				forget(x, holder, id);
				cleared++;
				continue; /* what moved here has its turn */
			}
			tier_set(x, holder, id, tier_best(e->refs));
		}
		i++;
	}
	stat_add(&x->st.cleared, cleared);
	holder_active(x, holder);
}

void entry_sweep(struct kvindex *x, unsigned holder, const uint64_t *gone)
{
	struct holder *h = &x->holder[holder];

	for (uint32_t i = 0; i < h->cap;) {
		uint32_t id = h->map[i].node; /* 0 is in no bitmap */

		if (gone[id / 64] >> (id % 64) & 1)
			entry_del(x, h, &h->map[i]);
		else
			i++;
	}
	holder_active(x, holder);
}
