/* SPDX-License-Identifier: Apache-2.0
 * Nodes: their memory, their place in the tree and the table, and the two questions asked about each: does a holder
 * have it, and does the holder *reach* it, that is, have it and all of its ancestors. Roots are reached by everybody.
 *
 * A node lives while a holder has it or a child lives. What is freed is first taken out of the table and of its
 * parent's list, then waits in limbo with its fields untouched, so that a reader who stands on it can walk on.
 */
#include <errno.h>
#include <stdlib.h>

#include "kvindex/node_set.h"

#define LIMBO_BATCH 512

int arena_init(struct arena *a, size_t cells)
{
	a->n = cells > ID_MASK ? ID_MASK : (uint32_t)cells;
	a->bytes = ((size_t)a->n + 1) * sizeof(struct node);
	a->mem = big_alloc(a->bytes);
	a->high = 1; /* 0 is nobody's id */
	return a->mem ? 0 : -ENOMEM;
}

void arena_free(struct arena *a)
{
	big_free(a->mem, a->bytes);
}

/* Any cell has its list link where a node has it. */
static struct node *cell_at(const struct arena *a, uint32_t id)
{
	return (struct node *)a->mem + id;
}

static uint32_t cell_alloc(struct kvindex *x, int kind)
{
	struct arena *a = &x->arena[kind];
	uint32_t id = a->free;

	if (!id && a->high > a->n) {
		index_reclaim(x);
		index_reclaim(x);
		id = a->free;
	}
	if (id) {
		a->free = cell_at(a, id)->prev;
		memset((void *)cell_at(a, id), 0, sizeof(struct node));
	} else if (a->high <= a->n) {
		id = a->high++;
	} else {
		return 0;
	}
	stat_add(&x->st.bytes, sizeof(struct node));
	return id;
}

static void cell_retire(struct kvindex *x, int kind, uint32_t id)
{
	struct node *n = cell_at(&x->arena[kind], id);

	if (kind == NODES)
		n->live = 0;
	n->prev = x->open.cells[kind];
	x->open.cells[kind] = id;
	x->open.bytes += sizeof(*n);
	if (++x->open.ncells >= LIMBO_BATCH)
		index_reclaim(x);
}

static void limbo_free(struct kvindex *x, struct limbo *l)
{
	for (int kind = 0; kind < 2; kind++) {
		struct arena *a = &x->arena[kind];

		for (uint32_t id = l->cells[kind], next; id; id = next) {
			next = cell_at(a, id)->prev;
			cell_at(a, id)->prev = a->free;
			a->free = id;
		}
	}
	while (l->tables) {
		struct table *t = l->tables;

		l->tables = t->retired;
		table_free(t);
	}
	stat_add(&x->st.bytes, (uint64_t)0 - l->bytes);
	*l = (struct limbo){ 0 };
}

/* Two generations: <wait> has its epoch, <open> collects. */
void index_reclaim(struct kvindex *x)
{
	if (x->wait.epoch && !qsbr_passed(x->q, x->wait.epoch))
		return;
	limbo_free(x, &x->wait);
	if (x->open.ncells || x->open.tables) {
		x->wait = x->open;
		x->wait.epoch = qsbr_retire(x->q);
		x->open = (struct limbo){ 0 };
	}
}

/* --- holder sets --- */

/* The shift of a holder's field in an inline set, or -1. */
static int field_of(uint64_t v, unsigned holder)
{
	for (int s = 0; s < 64; s += 16)
		if ((v >> s & 0x1ff) == holder + 1)
			return s;
	return -1;
}

bool node_has(const struct kvindex *x, const struct node *n, unsigned holder)
{
	uint64_t v = atomic_load_explicit(&n->set, memory_order_relaxed);

	if (v & SET_EXT)
		return set_at(x, v)->have[holder / 64] >> (holder % 64) & 1;
	return field_of(v, holder) >= 0;
}

void node_holders(const struct kvindex *x, const struct node *n, uint64_t ret[SET_WORDS])
{
	uint64_t v = atomic_load_explicit(&n->set, memory_order_relaxed);

	memset(ret, 0, SET_WORDS * sizeof(*ret));
	if (v & SET_EXT)
		memcpy(ret, set_at(x, v)->have, SET_WORDS * sizeof(*ret));
	else
		for (; v; v >>= 16)
			if (v & 0x1ff)
				ret[((v & 0x1ff) - 1) / 64] |= UINT64_C(1) << (((v & 0x1ff) - 1) % 64);
}

bool node_held(const struct kvindex *x, const struct node *n)
{
	uint64_t have[SET_WORDS];

	node_holders(x, n, have);
	return have[0] | have[1] | have[2] | have[3];
}
_Static_assert(SET_WORDS == 4, "node_held");

static void levels_put(struct node_levels *l, unsigned holder, unsigned level)
{
	for (unsigned tier = 0; tier < TIER_N - 1; tier++)
		set_bit(l->above[tier], holder, level != UNREACHED && level > tier);
}

/* The fifth holder: the fields move into a cell, levels into another. */
static int set_extend(struct kvindex *x, struct node *n, uint64_t v)
{
	const uint64_t slow = UINT64_C(0x0001000100010001) * (3u << LEVEL_AT);
	uint32_t id = cell_alloc(x, SETS), lid = id && (v & slow) ? cell_alloc(x, SETS) : 0;
	uint64_t to = SET_EXT | (uint64_t)lid << ID_BITS | id;
	struct node_set *s = set_at(x, id);

	if (!id)
		return -ENOMEM;
	for (; v; v >>= 16) {
		unsigned h = (unsigned)(v & HOLDER_BITS) - 1;

		s->have[h / 64] |= UINT64_C(1) << (h % 64);
		if (v & REACH_BIT)
			set_bit(s->reach, h, true);
		if (lid && v & REACH_BIT)
			levels_put(levels_at(x, to), h, v >> LEVEL_AT & 3);
	}
	atomic_store_explicit(&n->set, to, memory_order_release);
	return 0;
}

int node_take(struct kvindex *x, struct node *n, unsigned holder)
{
	uint64_t v = atomic_load_explicit(&n->set, memory_order_relaxed);

	if (!(v & SET_EXT)) {
		for (int s = 0; s < 64; s += 16)
			if (!(v >> s & 0x1ff)) {
				v |= (uint64_t)(holder + 1) << s;
				atomic_store_explicit(&n->set, v, memory_order_release);
				return 0;
			}
		if (set_extend(x, n, v))
			return -ENOMEM;
		v = atomic_load_explicit(&n->set, memory_order_relaxed);
	}
	set_at(x, v)->have[holder / 64] |= UINT64_C(1) << (holder % 64);
	return 0;
}

void node_set_level(struct kvindex *x, struct node *n, unsigned holder, unsigned level)
{
	uint64_t v = atomic_load_explicit(&n->set, memory_order_relaxed);
	bool slow = level == TIER_CPU || level == TIER_DISK;
	int s;

	if (v & SET_EXT) {
		if (slow && !levels_id(v) && index_fits(x, sizeof(struct node_levels))) {
			v |= (uint64_t)cell_alloc(x, SETS) << ID_BITS;
			atomic_store_explicit(&n->set, v, memory_order_release);
		}
		if (levels_id(v))
			levels_put(levels_at(x, v), holder, level);
		set_bit(set_at(x, v)->reach, holder, level != UNREACHED);
		return;
	}
	s = field_of(v, holder);
	v &= ~((uint64_t)(REACH_BIT | 3u << LEVEL_AT) << s);
	if (level != UNREACHED)
		v |= (uint64_t)(REACH_BIT | level << LEVEL_AT) << s;
	atomic_store_explicit(&n->set, v, memory_order_release);
}

/* Reach goes with it. */
void node_drop(struct kvindex *x, struct node *n, unsigned holder)
{
	uint64_t v = atomic_load_explicit(&n->set, memory_order_relaxed);
	int s;

	if (v & SET_EXT) {
		node_set_level(x, n, holder, UNREACHED);
		set_at(x, v)->have[holder / 64] &= ~(UINT64_C(1) << (holder % 64));
		return;
	}
	s = field_of(v, holder);
	if (s >= 0)
		atomic_store_explicit(&n->set, v & ~(UINT64_C(0xffff) << s), memory_order_release);
}

/* --- the tree --- */

static uint32_t link_get(const _Atomic uint32_t *link)
{
	return atomic_load_explicit(link, memory_order_relaxed);
}

static void link_set(_Atomic uint32_t *link, uint32_t id)
{
	atomic_store_explicit(link, id, memory_order_release);
}

/* Whether it was another one. */
static bool level_update(struct kvindex *x, struct node *n, unsigned holder)
{
	unsigned was = node_level(x, n, holder), level = node_level(x, node_at(x, n->parent), holder);

	if (level != UNREACHED && x->holder[holder].nslow) {
		unsigned own = tier_own(x, holder, node_id(x, n));

		level = own > level ? own : level;
	}
	if (level == was)
		return false;
	node_set_level(x, n, holder, level);
	if ((level == UNREACHED) != (was == UNREACHED)) {
		x->holder[holder].unreachable += was == UNREACHED ? UINT32_MAX : 1;
		stat_add(&x->st.unreachable, was == UNREACHED ? UINT64_MAX : 1);
	}
	return true;
}

/* In preorder without a stack; a subtree is left out where nothing changes at its top. */
void level_below(struct kvindex *x, struct node *top, unsigned holder)
{
	uint32_t id = link_get(&top->child), up;
	struct node *n;

	while (id) {
		n = node_at(x, id);
		if (node_has(x, n, holder) && level_update(x, n, holder) && link_get(&n->child)) {
			id = link_get(&n->child);
			continue;
		}
		while (!(id = link_get(&n->next))) {
			up = n->parent;
			n = node_at(x, up);
			if (n == top)
				return;
		}
	}
}

void level_follow(struct kvindex *x, struct node *n, unsigned holder)
{
	const struct holder *h = &x->holder[holder];
	unsigned was = node_level(x, n, holder);

	if (!level_update(x, n, holder))
		return;
	/* What was not reached has nothing below that is, and of what could be now nothing waits. */
	if (was == UNREACHED && !h->unreachable)
		return;
	level_below(x, n, holder);
}

static uint64_t ns_of(const struct kvindex *x, const struct node *n)
{
	return node_at(x, n->root)->in.ns;
}

static uint64_t end_key(const struct kvindex *x, const struct node *n)
{
	return index_key(x, n->h, n->acc, n->byte_end, ns_of(x, n));
}

static void keys_del(struct kvindex *x, struct node *n, unsigned added, unsigned nkeys)
{
	for (unsigned i = 0; i < added; i++)
		table_del(x, nkeys > 1 ? n->in.keys[i] : n->in.key, n->parent);
	if (nkeys > 1) {
		stat_add(&x->st.bytes, (uint64_t)0 - nkeys * sizeof(uint64_t));
		free(n->in.keys);
	}
}

static int keys_add(struct kvindex *x, struct node *n, const uint64_t *keys, unsigned nkeys)
{
	if (nkeys > 1) {
		n->in.keys = malloc(nkeys * sizeof(*keys));
		if (!n->in.keys)
			return -ENOMEM;
		memcpy(n->in.keys, keys, nkeys * sizeof(*keys));
		stat_add(&x->st.bytes, nkeys * sizeof(*keys));
	} else if (nkeys) {
		n->in.key = keys[0];
	}
	for (unsigned i = 0; i < nkeys; i++)
		if (table_add(x, keys[i], n->parent)) {
			keys_del(x, n, i, nkeys);
			return -ENOMEM;
		}
	return 0;
}

static uint32_t node_new(struct kvindex *x)
{
	uint32_t id = cell_alloc(x, NODES);

	if (id) {
		node_at(x, id)->live = 1;
		stat_add(&x->st.nodes, 1);
	}
	return id;
}

static void node_undo(struct kvindex *x, uint32_t id)
{
	stat_add(&x->st.nodes, UINT64_MAX);
	cell_retire(x, NODES, id);
}

uint32_t root_find(const struct kvindex *x, uint64_t ns)
{
	const struct table *t = atomic_load_explicit(&x->table, memory_order_acquire);
	uint64_t key = index_key(x, 0, 0, 0, ns), at = table_home(t, key);
	uint32_t id;

	while ((id = table_next(t, key, &at)))
		if (node_is_root(x, node_at(x, id)) && node_at(x, id)->in.ns == ns)
			break;
	return id;
}

uint32_t root_get(struct kvindex *x, uint64_t ns)
{
	uint32_t id = root_find(x, ns);
	struct node *n;

	if (id)
		return id;
	id = node_new(x);
	if (!id)
		return 0;
	n = node_at(x, id);
	n->in.ns = ns;
	n->root = id;
	if (table_add(x, index_key(x, 0, 0, 0, ns), id)) {
		node_undo(x, id);
		return 0;
	}
	return id;
}

uint32_t spec_get(struct kvindex *x, uint32_t root, uint64_t h, uint64_t bytes, bool make)
{
	struct table *t = atomic_load_explicit(&x->table, memory_order_relaxed);
	uint64_t key = index_key(x, h, 0, bytes, node_at(x, root)->in.ns), at = table_home(t, key);
	struct node *n;
	uint32_t id;

	while ((id = table_next(t, key, &at))) {
		n = node_at(x, id);
		if (n->spec && n->root == root && n->h == h && n->byte_end == bytes)
			return id;
	}
	id = make ? node_new(x) : 0;
	if (!id)
		return 0;
	n = node_at(x, id);
	n->h = h;
	n->byte_end = (uint32_t)bytes;
	n->parent = root;
	n->root = root;
	n->spec = 1;
	if (table_add(x, key, id)) {
		node_undo(x, id);
		return 0;
	}
	node_at(x, root)->prev++;
	atomic_store_explicit(&x->nspec, x->nspec + 1, memory_order_release);
	return id;
}

uint32_t child_get(struct kvindex *x, uint32_t parent, const struct state *end, uint32_t tok_end, const uint64_t *keys,
		   unsigned nkeys)
{
	struct table *t = atomic_load_explicit(&x->table, memory_order_relaxed);
	struct node *p = node_at(x, parent);
	uint64_t key = index_key(x, end->h, end->acc, end->bytes, ns_of(x, p)), at = table_home(t, key);
	struct node *n;
	uint32_t id, first;

	while ((id = table_next(t, key, &at))) {
		n = node_at(x, id);
		if (n->parent == parent && !n->spec && n->byte_end == end->bytes && n->h == end->h &&
		    n->acc == end->acc && n->tok_end == tok_end && !node_is_root(x, n))
			return id;
	}
	id = node_new(x);
	if (!id)
		return 0;
	n = node_at(x, id);
	n->h = end->h;
	n->acc = end->acc;
	n->byte_end = (uint32_t)end->bytes;
	atomic_store_explicit(&n->tok_end, tok_end, memory_order_relaxed);
	n->depth = p->depth + 1;
	n->parent = parent;
	n->root = p->root;
	if (keys_add(x, n, keys, nkeys)) {
		node_undo(x, id);
		return 0;
	}
	if (table_add(x, key, id)) {
		keys_del(x, n, nkeys, nkeys);
		node_undo(x, id);
		return 0;
	}
	first = link_get(&p->child);
	atomic_store_explicit(&n->next, first, memory_order_relaxed);
	if (first)
		node_at(x, first)->prev = id;
	link_set(&p->child, id);
	return id;
}

static void node_unlink(struct kvindex *x, struct node *n)
{
	struct node *p = node_at(x, n->parent);
	uint32_t next = link_get(&n->next);

	table_del(x, end_key(x, n), node_id(x, n));
	if (n->spec) {
		p->prev--;
		atomic_store_explicit(&x->nspec, x->nspec - 1, memory_order_release);
		return;
	}
	keys_del(x, n, keys_between(p->byte_end, n->byte_end), keys_between(p->byte_end, n->byte_end));
	link_set(n->prev ? &node_at(x, n->prev)->next : &p->child, next);
	if (next)
		node_at(x, next)->prev = n->prev;
}

void node_free_unused(struct kvindex *x, uint32_t id)
{
	while (id && id != x->pin) {
		struct node *n = node_at(x, id);
		uint32_t up = n->parent;
		uint64_t set = atomic_load_explicit(&n->set, memory_order_relaxed);

		if (link_get(&n->child) || node_held(x, n))
			return;
		if (!node_is_root(x, n))
			node_unlink(x, n);
		else if (n->prev)
			return;
		else
			table_del(x, end_key(x, n), id);
		if (set & SET_EXT)
			cell_retire(x, SETS, set & ID_MASK);
		if (set & SET_EXT && levels_id(set))
			cell_retire(x, SETS, levels_id(set));
		stat_add(&x->st.nodes, UINT64_MAX);
		cell_retire(x, NODES, id);
		id = up;
	}
}
