/* SPDX-License-Identifier: Apache-2.0
 * Speculation: chunks that a holder should have, because a prompt was sent to it.
 *
 * A chunk is a node outside of the tree (found by its key alone, shared by holders); what a holder knows of it is a
 * record in guess[]: how often it was guessed and until when it holds. Records with an end hang in the holder's wheel,
 * one list per 17 ms, a longer wait goes round; the others in its LRU, until events flow that could confirm them. What
 * is left of a prompt has to be a prefix: so its chunks enter the LRU from the last to the first, as the oldest goes
 * first, and the wheel from the first to the last, as the head of a list does when room is needed.
 */
#include <errno.h>
#include <stdlib.h>

#include "kvindex/kvindex_int.h"

static uint32_t *wheel_of(const struct kvindex *x, const struct guess *g)
{
	return &x->holder[g->holder].wheel[g->until >> WHEEL_SHIFT & (WHEEL_SLOTS - 1)];
}

/* The LRU's length is counted in chunks, as its limit is. */
static uint32_t weight_of(const struct kvindex *x, const struct guess *g)
{
	return guess_weight(node_at(x, g->node)->byte_end / INDEX_CHUNK);
}

static void guess_link(struct kvindex *x, uint32_t i)
{
	struct guess *g = &x->guess[i];
	struct holder *h = &x->holder[g->holder];
	uint32_t *head = g->until ? wheel_of(x, g) : &h->lru_head;

	g->prev = 0;
	g->next = *head;
	if (g->next)
		x->guess[g->next].prev = i;
	else if (!g->until)
		h->lru_tail = i;
	*head = i;
	if (!g->until)
		h->lru_n += weight_of(x, g);
}

static void guess_unlink(struct kvindex *x, uint32_t i)
{
	struct guess *g = &x->guess[i];
	struct holder *h = &x->holder[g->holder];

	if (g->prev)
		x->guess[g->prev].next = g->next;
	else if (g->until)
		*wheel_of(x, g) = g->next;
	else
		h->lru_head = g->next;
	if (g->next)
		x->guess[g->next].prev = g->prev;
	else if (!g->until)
		h->lru_tail = g->prev;
	if (!g->until)
		h->lru_n -= weight_of(x, g);
}

static void guess_free(struct kvindex *x, uint32_t i)
{
	struct guess *g = &x->guess[i];
	uint32_t id = g->node;

	guess_unlink(x, i);
	pmap_del(&x->guess_of, pair_key(g->holder, id));
	count_add(&x->holder[g->holder].guesses, UINT32_MAX);
	node_drop(x, node_at(x, id), g->holder);
	g->next = x->guess_free;
	x->guess_free = i;
	node_free_unused(x, id);
}

static uint32_t guess_next_cap(const struct kvindex *x)
{
	return x->guess_cap ? x->guess_cap + x->guess_cap / 2 : 256;
}

size_t guess_more(const struct kvindex *x)
{
	bool full = !x->guess_free && x->nguess >= x->guess_cap;

	return (full ? (guess_next_cap(x) - x->guess_cap) * sizeof(*x->guess) : 0) + pmap_more(&x->guess_of);
}

static uint32_t guess_alloc(struct kvindex *x)
{
	uint32_t i = x->guess_free;

	if (i) {
		x->guess_free = x->guess[i].next;
		return i;
	}
	if (x->nguess >= x->guess_cap) {
		uint32_t cap = guess_next_cap(x);
		struct guess *more = realloc(x->guess, cap * sizeof(*more));

		if (!more)
			return 0;
		stat_add(&x->st.bytes, (uint64_t)(cap - x->guess_cap) * sizeof(*more));
		x->guess = more;
		x->guess_cap = cap;
	}
	return x->nguess++;
}

/* Refresh what is there, or make it. */
static int guess_put(struct kvindex *x, unsigned holder, uint32_t id, uint64_t until, bool exact)
{
	uint32_t before = x->guess_of.cap;
	uint32_t *at = pmap_put(&x->guess_of, pair_key(holder, id));
	struct guess *g;

	if (!at)
		return -ENOMEM;
	stat_add(&x->st.bytes, (uint64_t)(x->guess_of.cap - before) * (sizeof(uint64_t) + sizeof(uint32_t)));
	if (*at) {
		g = &x->guess[*at];
		guess_unlink(x, *at);
		g->until = g->until && until ? (until > g->until ? until : g->until) : 0;
		g->refs += g->refs < GUESS_REFS_MAX;
		guess_link(x, *at);
		return 0;
	}
	*at = guess_alloc(x);
	if (!*at || node_take(x, node_at(x, id), holder)) {
		if (*at) {
			x->guess[*at].next = x->guess_free;
			x->guess_free = *at;
		}
		pmap_del(&x->guess_of, pair_key(holder, id));
		return -ENOMEM;
	}
	node_set_level(x, node_at(x, id), holder, TIER_GPU);
	x->guess[*at] =
		(struct guess){ .until = until, .node = id, .holder = (uint16_t)holder, .exact = exact, .refs = 1 };
	guess_link(x, *at);
	count_add(&x->holder[holder].guesses, 1);
	stat_add(&x->st.speculated, 1);
	return 0;
}

/* Places among the first <chunks>. */
static uint32_t places(uint32_t chunks)
{
	return chunks <= 128	? chunks / 4
	       : chunks <= 512	? 32 + (chunks - 128) / 8
	       : chunks <= 2048 ? 80 + (chunks - 512) / 32
				: 128 + (chunks - 2048) / GUESS_GRID;
}

uint32_t index_places(uint32_t from, uint32_t n)
{
	return from < n ? places(n) - places(from) : 0;
}

void index_thin(const uint64_t *at, uint32_t from, uint32_t n, uint64_t *ret)
{
	uint32_t i = index_places(from, n);

	for (uint32_t c = guess_floor(n); c > from; c = guess_floor(c - 1))
		ret[--i] = at[c - 1];
}

#define AHEAD 8 /* guesses whose place in the table is fetched before it is needed */

static void fetch_ahead(const struct kvindex *x, uint64_t ns, uint64_t h, uint32_t chunks)
{
	const struct table *t = atomic_load_explicit(&x->table, memory_order_relaxed);
	uint64_t key = index_key(x, h, 0, (uint64_t)chunks * INDEX_CHUNK, ns);

	__builtin_prefetch((const void *)&t->slot[table_home(t, key)]);
}

static int guess_chunk(struct kvindex *x, const struct index_guess *g, uint32_t root, uint64_t h, uint32_t chunks,
		       uint64_t until)
{
	uint32_t id = spec_get(x, root, h, (uint64_t)chunks * INDEX_CHUNK, true);
	struct node *n = node_at(x, id);
	int r;

	if (!id)
		return -ENOMEM;
	count_add(&x->said, guess_weight(chunks));
	__atomic_store_n(&n->depth, x->said - g->age, __ATOMIC_RELAXED);
	atomic_store_explicit(&n->tok_end, (uint32_t)((uint64_t)chunks * g->tokens_per_chunk_q8 >> 8),
			      memory_order_relaxed);
	r = guess_put(x, g->holder, id, until, g->until_ns != 0);
	if (r)
		node_free_unused(x, id);
	return r;
}

/* Making room may take the last guess below the root. */
static int guess_place(struct kvindex *x, const struct index_guess *g, uint32_t root, uint32_t i, uint32_t chunks,
		       uint64_t until)
{
	int r;

	x->pin = root;
	r = index_room(x, NULL, 0);
	return r ? r : guess_chunk(x, g, root, g->at[i], chunks, until);
}

static int guess_forward(struct kvindex *x, const struct index_guess *g, uint32_t root, uint64_t until)
{
	uint32_t n = index_places(g->from, g->n), c = guess_floor(g->from);
	int r = 0;

	for (uint32_t i = 0; i < n && !r; i++) {
		uint32_t step = guess_step(c + 1);

		c += step;
		if (i + AHEAD < n)
			fetch_ahead(x, g->ns, g->at[i + AHEAD], c + AHEAD * step);
		r = guess_place(x, g, root, i, c, until);
	}
	return r;
}

static int guess_backward(struct kvindex *x, const struct index_guess *g, uint32_t root)
{
	uint32_t i = index_places(g->from, g->n);
	int r = 0;

	for (uint32_t c = guess_floor(g->n); c > g->from && !r; c = guess_floor(c - 1)) {
		if (--i >= AHEAD)
			fetch_ahead(x, g->ns, g->at[i - AHEAD], c - AHEAD * guess_step(c));
		r = guess_place(x, g, root, i, c, 0);
	}
	return r;
}

/* The slot of what has ended is the next to be looked at. */
static uint64_t end_of(const struct kvindex *x, uint64_t until)
{
	return until && until < x->ticked ? x->ticked : until;
}

static int wheel_make(struct kvindex *x, struct holder *h)
{
	if (h->wheel)
		return 0;
	h->wheel = calloc(WHEEL_SLOTS, sizeof(*h->wheel));
	if (!h->wheel)
		return -ENOMEM;
	stat_add(&x->st.bytes, WHEEL_SLOTS * sizeof(*h->wheel));
	return 0;
}

int index_speculate(struct kvindex *x, const struct index_guess *g)
{
	struct holder *h = &x->holder[g->holder];
	uint32_t root;
	uint64_t until;
	int r;

	if (g->holder >= x->nholders || (uint64_t)g->n * INDEX_CHUNK > UINT32_MAX)
		return -EINVAL;
	if (!index_places(g->from, g->n))
		return 0;
	until = h->live ? end_of(x, g->until_ns) : 0;
	if (until && wheel_make(x, h))
		return -ENOMEM;
	r = index_room(x, NULL, 0);
	root = r ? 0 : root_get(x, g->ns);
	if (!root)
		r = -ENOMEM;
	r = r ? r : until ? guess_forward(x, g, root, until) : guess_backward(x, g, root);
	x->pin = 0;
	if (root)
		node_free_unused(x, root);
	while (!until && h->lru_n > g->lru_chunks)
		guess_free(x, h->lru_tail);
	holder_active(x, g->holder);
	return r;
}

void index_live(struct kvindex *x, unsigned holder, bool live, uint64_t until_ns)
{
	struct holder *h = &x->holder[holder];
	uint64_t until = end_of(x, until_ns);
	bool begins, wheel;

	if (holder >= x->nholders)
		return;
	begins = live && !h->live;
	wheel = begins && h->lru_head && wheel_make(x, h) == 0;
	h->live = live;
	for (uint32_t i = begins ? h->lru_head : 0, next; i; i = next) {
		next = x->guess[i].next;
		if (!x->guess[i].exact)
			continue;
		if (!wheel || !until) {
			guess_free(x, i);
			continue;
		}
		guess_unlink(x, i);
		x->guess[i].until = until;
		guess_link(x, i);
	}
	holder_active(x, holder);
}

void index_unspeculate(struct kvindex *x, const struct index_guess *g)
{
	uint32_t root = g->holder < x->nholders ? root_find(x, g->ns) : 0, i = index_places(g->from, g->n);

	x->pin = root;
	for (uint32_t c = root ? guess_floor(g->n) : 0; c > g->from; c = guess_floor(c - 1)) {
		uint32_t id = spec_get(x, root, g->at[--i], (uint64_t)c * INDEX_CHUNK, false);
		uint32_t *of = id ? pmap_find(&x->guess_of, pair_key(g->holder, id)) : NULL;

		if (of && !--x->guess[*of].refs)
			guess_free(x, *of);
	}
	x->pin = 0;
	if (root) {
		node_free_unused(x, root);
		holder_active(x, g->holder);
	}
}

static void slot_expire(struct kvindex *x, struct holder *h, unsigned slot, uint64_t now)
{
	for (uint32_t i = h->wheel[slot], next; i; i = next) {
		next = x->guess[i].next;
		if (x->guess[i].until > now)
			continue;
		guess_free(x, i);
		stat_add(&x->st.expired, 1);
	}
}

void guess_expire(struct kvindex *x, uint64_t now)
{
	uint64_t first = x->ticked >> WHEEL_SHIFT, last = now >> WHEEL_SHIFT;

	if (last - first >= WHEEL_SLOTS)
		first = last - WHEEL_SLOTS + 1;
	for (unsigned holder = 0; holder < x->nholders; holder++) {
		struct holder *h = &x->holder[holder];

		if (!h->wheel || !h->guesses)
			continue;
		for (uint64_t slot = first; slot <= last; slot++)
			slot_expire(x, h, slot & (WHEEL_SLOTS - 1), now);
		holder_active(x, holder);
	}
	x->ticked = now;
}

void guess_clear(struct kvindex *x, unsigned holder)
{
	struct holder *h = &x->holder[holder];

	while (h->lru_head)
		guess_free(x, h->lru_head);
	for (unsigned slot = 0; h->wheel && slot < WHEEL_SLOTS; slot++)
		while (h->wheel[slot])
			guess_free(x, h->wheel[slot]);
	if (h->wheel)
		stat_add(&x->st.bytes, (uint64_t)0 - WHEEL_SLOTS * sizeof(*h->wheel));
	free(h->wheel);
	h->wheel = NULL;
}

/* Those that end soonest, else the oldest of each LRU. */
unsigned guess_evict(struct kvindex *x, unsigned want)
{
	unsigned gone = 0;

	for (unsigned i = 0; i < WHEEL_SLOTS && gone < want; i++)
		for (unsigned holder = 0; holder < x->nholders && gone < want; holder++) {
			struct holder *h = &x->holder[holder];
			unsigned slot = (unsigned)((x->ticked >> WHEEL_SHIFT) + i) & (WHEEL_SLOTS - 1);

			for (; h->wheel && h->wheel[slot] && gone < want; gone++)
				guess_free(x, h->wheel[slot]);
		}
	for (bool any = true; any && gone < want;) {
		any = false;
		for (unsigned holder = 0; holder < x->nholders && gone < want; holder++)
			if (x->holder[holder].lru_tail) {
				guess_free(x, x->holder[holder].lru_tail);
				gone++;
				any = true;
			}
	}
	for (unsigned holder = 0; gone && holder < x->nholders; holder++)
		holder_active(x, holder);
	stat_add(&x->st.evicted, gone);
	return gone;
}
