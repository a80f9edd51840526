/* SPDX-License-Identifier: Apache-2.0
 * The key table, which readers probe while the writer changes it, and the writer's small maps.
 *
 * A slot is one atomic word, so a reader sees an entry whole or not at all. An entry that goes leaves a tomb, which a
 * later entry may take; where nothing lies behind it the slot becomes empty again. To grow, the writer fills a new
 * table and publishes it; the old one waits in limbo. Homes have the same order in tables of every size, so that is one
 * pass through both.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kvindex/kvindex_int.h"

#define TABLE_MIN 1024

void *big_alloc(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (n >= (size_t)4 << 20)
		madvise(p, n, MADV_HUGEPAGE);
	return p;
}

void big_free(void *p, size_t n)
{
	if (p)
		munmap(p, n);
}

struct table *table_new(size_t slots)
{
	struct table *t = calloc(1, sizeof(*t));
	void *behind;

	if (!t)
		return NULL;
	t->cap = slots < TABLE_MIN ? TABLE_MIN : slots;
	t->bytes = t->cap * SLOT_SIZE;
	t->slot = big_alloc(t->bytes);
	if (!t->slot) {
		free(t);
		errno = ENOMEM;
		return NULL;
	}
	behind = (void *)(t->slot + t->cap);
	t->refs = behind;
	behind = t->refs + t->cap;
	t->low = behind;
	return t;
}

void table_free(struct table *t)
{
	if (!t)
		return;
	big_free((void *)t->slot, t->bytes);
	free(t);
}

static inline uint64_t slot_get(const struct table *t, uint64_t i)
{
	return atomic_load_explicit(&t->slot[i], memory_order_relaxed);
}

static inline void slot_set(struct table *t, uint64_t i, uint64_t v)
{
	atomic_store_explicit(&t->slot[i], v, memory_order_release);
}

static void table_copy(struct table *to, const struct table *from)
{
	for (uint64_t i = 0; i < from->cap; i++) {
		uint64_t v = slot_get(from, i), at;

		if (!(v & ID_MASK))
			continue;
		for (at = table_home(to, (v & TOMB) | from->low[i]); slot_get(to, at);
		     at = at + 1 == to->cap ? 0 : at + 1)
			;
		atomic_store_explicit(&to->slot[at], v, memory_order_relaxed);
		to->refs[at] = from->refs[i];
		to->low[at] = from->low[i];
	}
	to->live = to->used = from->live;
}

int table_resize(struct kvindex *x)
{
	struct table *old = atomic_load_explicit(&x->table, memory_order_relaxed);
	struct table *t = table_new(old->live * 9 / 5 + 64);

	if (!t)
		return -ENOMEM;
	table_copy(t, old);
	atomic_store_explicit(&x->table, t, memory_order_release);
	stat_add(&x->st.bytes, t->bytes);
	old->retired = x->open.tables;
	x->open.tables = old;
	x->open.bytes += old->bytes;
	/* Free at once unless a reader is inside. */
	index_reclaim(x);
	index_reclaim(x);
	return 0;
}

int table_add(struct kvindex *x, uint64_t key, uint32_t id)
{
	struct table *t = atomic_load_explicit(&x->table, memory_order_relaxed);
	uint64_t want = (key & TOMB) | id, tomb = UINT64_MAX, at, v;

	if ((t->used + 1) * 4 > t->cap * 3) {
		int r = table_resize(x);

		if (r)
			return r;
		t = atomic_load_explicit(&x->table, memory_order_relaxed);
	}
	for (at = table_home(t, key); (v = slot_get(t, at)); at = at + 1 == t->cap ? 0 : at + 1) {
		if (v == want && t->low[at] == (uint16_t)key) {
			t->refs[at]++;
			return 0;
		}
		if (v == TOMB && tomb == UINT64_MAX)
			tomb = at;
	}
	if (tomb != UINT64_MAX)
		at = tomb;
	else
		t->used++;
	t->live++;
	t->refs[at] = 1;
	t->low[at] = (uint16_t)key;
	slot_set(t, at, want);
	stat_add(&x->st.keys, 1);
	return 0;
}

void table_del(struct kvindex *x, uint64_t key, uint32_t id)
{
	struct table *t = atomic_load_explicit(&x->table, memory_order_relaxed);
	uint64_t want = (key & TOMB) | id, at, v;

	for (at = table_home(t, key); (v = slot_get(t, at)) != want || t->low[at] != (uint16_t)key;
	     at = at + 1 == t->cap ? 0 : at + 1)
		if (!v)
			return;
	if (--t->refs[at])
		return;
	t->live--;
	stat_add(&x->st.keys, (uint64_t)-1);
	slot_set(t, at, TOMB);
	if (slot_get(t, at + 1 == t->cap ? 0 : at + 1))
		return;
	while (slot_get(t, at) == TOMB) {
		slot_set(t, at, 0);
		t->used--;
		at = at ? at - 1 : t->cap - 1;
	}
}

static uint32_t pmap_home(const struct pmap *m, uint64_t key)
{
	return (uint32_t)(mix64(key) & (m->cap - 1));
}

uint32_t *pmap_find(const struct pmap *m, uint64_t key)
{
	if (!m->n)
		return NULL;
	for (uint32_t i = pmap_home(m, key); m->k[i]; i = (i + 1) & (m->cap - 1))
		if (m->k[i] == key)
			return &m->v[i];
	return NULL;
}

static bool pmap_full(const struct pmap *m)
{
	return (m->n + 1) * 4 > m->cap * 3;
}

static uint32_t pmap_next_cap(const struct pmap *m)
{
	return m->cap ? m->cap * 2 : 64;
}

size_t pmap_more(const struct pmap *m)
{
	return pmap_full(m) ? (pmap_next_cap(m) - m->cap) * (sizeof(*m->k) + sizeof(*m->v)) : 0;
}

static int pmap_grow(struct pmap *m)
{
	struct pmap to = { .cap = pmap_next_cap(m), .n = m->n };

	to.k = calloc(to.cap, sizeof(*to.k));
	to.v = calloc(to.cap, sizeof(*to.v));
	if (!to.k || !to.v) {
		free(to.k);
		free(to.v);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < m->cap; i++) {
		uint32_t at;

		if (!m->k[i])
			continue;
		for (at = pmap_home(&to, m->k[i]); to.k[at]; at = (at + 1) & (to.cap - 1))
			;
		to.k[at] = m->k[i];
		to.v[at] = m->v[i];
	}
	pmap_free(m);
	*m = to;
	return 0;
}

uint32_t *pmap_put(struct pmap *m, uint64_t key)
{
	uint32_t *found = pmap_find(m, key);
	uint32_t i;

	if (found)
		return found;
	if (pmap_full(m) && pmap_grow(m))
		return NULL;
	for (i = pmap_home(m, key); m->k[i]; i = (i + 1) & (m->cap - 1))
		;
	m->k[i] = key;
	m->v[i] = 0;
	m->n++;
	return &m->v[i];
}

void pmap_del(struct pmap *m, uint64_t key)
{
	uint32_t *found = pmap_find(m, key);
	uint32_t mask = m->cap - 1, hole, i;

	if (!found)
		return;
	hole = (uint32_t)(found - m->v);
	for (i = (hole + 1) & mask; m->k[i]; i = (i + 1) & mask) {
		if (((i - pmap_home(m, m->k[i])) & mask) < ((i - hole) & mask))
			continue;
		m->k[hole] = m->k[i];
		m->v[hole] = m->v[i];
		hole = i;
	}
	m->k[hole] = 0;
	m->n--;
}

void pmap_free(struct pmap *m)
{
	free(m->k);
	free(m->v);
	*m = (struct pmap){ 0 };
}
