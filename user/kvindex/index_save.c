/* SPDX-License-Identifier: Apache-2.0
 * What a holder reaches, in a form that another process's index can take in. The text is not kept, only the states of
 * its hash, so that index must have the same secrets.
 *
 * A record is a block under one engine hash, with its node's number and the parent's: numbers mean something within one
 * saved holder only. Guesses are not saved, nor are blocks behind a gap: nothing counts them until the gap is filled,
 * and then they are announced again.
 */
#include <errno.h>
#include <stdlib.h>

#include "kvindex/node_set.h"

struct saved {
	uint64_t hash;	 /* the engine's */
	uint64_t h, acc; /* of the text up to the end */
	uint64_t ns;	 /* of a block behind a root; else 0 */
	uint32_t byte_end, tok_end, refs;
	uint32_t node, parent; /* parent 0: a root */
	uint32_t nkeys;	       /* behind the record: the keys inside */
};
_Static_assert(sizeof(struct saved) % 8 == 0, "records follow one another");

void index_secrets_of(const struct kvindex *x, struct index_secrets *ret)
{
	*ret = (struct index_secrets){ x->pow[1], x->secret };
}

static size_t saved_size(const struct kvindex *x, const struct node *n)
{
	return sizeof(struct saved) + keys_between(node_at(x, n->parent)->byte_end, n->byte_end) * sizeof(uint64_t);
}

int index_save(const struct kvindex *x, unsigned holder, struct buf *out)
{
	const struct holder *h = &x->holder[holder];
	size_t bytes = 0;
	char *to;

	if (holder >= x->nholders)
		return -EINVAL;
	for (uint32_t i = 0; i < h->cap; i++)
		if (h->map[i].node && node_reached(x, node_at(x, h->map[i].node), holder))
			bytes += saved_size(x, node_at(x, h->map[i].node));
	to = bytes ? buf_room(out, bytes) : NULL;
	if (!to)
		return bytes ? -ENOMEM : 0;
	for (uint32_t i = 0; i < h->cap; i++) {
		const struct entry *e = &h->map[i];
		const struct node *n = node_at(x, e->node), *up = node_at(x, n->parent);
		bool top = node_is_root(x, up);
		struct saved s;

		if (!e->node || !node_reached(x, n, holder))
			continue;
		s = (struct saved){
			.hash = e->hash,
			.h = n->h,
			.acc = n->acc,
			.ns = top ? up->in.ns : 0,
			.byte_end = n->byte_end,
			.tok_end = atomic_load_explicit(&n->tok_end, memory_order_relaxed),
			.refs = e->refs,
			.node = e->node,
			.parent = top ? 0 : n->parent,
			.nkeys = keys_between(up->byte_end, n->byte_end),
		};
		memcpy(to, &s, sizeof(s));
		to += sizeof(s);
		if (s.nkeys)
			memcpy(to, s.nkeys > 1 ? n->in.keys : &n->in.key, s.nkeys * sizeof(uint64_t));
		to += s.nkeys * sizeof(uint64_t);
	}
	buf_commit(out, bytes);
	return 0;
}

/* --- loading --- */

static int by_place(const void *a, const void *b)
{
	const struct saved *x = *(const struct saved *const *)a, *y = *(const struct saved *const *)b;

	return x->tok_end != y->tok_end ? (x->tok_end < y->tok_end ? -1 : 1) : 0;
}

/* The records, parents first. NULL: ENOMEM or EBADMSG. */
static const struct saved **records(const char *p, size_t n, size_t *ret_n)
{
	const struct saved **all, *s;
	size_t count = 0;

	for (size_t at = 0, left; at < n; at += left, count++) {
		if (n - at < sizeof(*s))
			goto bad;
		s = (const struct saved *)(const void *)(p + at);
		left = sizeof(*s) + s->nkeys * sizeof(uint64_t);
		if (left > n - at || !s->refs || s->refs >> TIER_N * REFS_BITS || !s->tok_end || !s->node ||
		    s->node > ID_MASK)
			goto bad;
	}
	all = malloc((count + 1) * sizeof(*all));
	if (!all)
		return NULL;
	count = 0;
	for (size_t at = 0; at < n; at += sizeof(*s) + s->nkeys * sizeof(uint64_t))
		all[count++] = s = (const struct saved *)(const void *)(p + at);
	qsort(all, count, sizeof(*all), by_place);
	*ret_n = count;
	return all;
bad:
	errno = EBADMSG;
	return NULL;
}

/* <ids>: from the file's numbers to ours. */
static int load_one(struct kvindex *x, unsigned holder, struct pmap *ids, const struct saved *s)
{
	uint32_t *known = pmap_find(ids, s->node), *up = s->parent ? pmap_find(ids, s->parent) : NULL, at, id;
	const uint64_t *keys = (const uint64_t *)(const void *)(s + 1);
	struct state end = { s->h, s->acc, s->byte_end };
	const struct node *up_node;
	uint32_t *to;
	int r;

	if (index_knows(x, holder, s->hash)) /* a record twice: what <ids> names could go */
		return -EBADMSG;
	if (known)
		return index_restore_entry(x, holder, s->hash, *known, s->refs);
	if (s->parent && !up)
		return 0; /* at the ceiling its parent had no room */
	at = s->parent ? *up : root_get(x, s->ns);
	if (!at)
		return -ENOMEM;
	up_node = node_at(x, at);
	if (up_node->byte_end > s->byte_end || up_node->tok_end >= s->tok_end ||
	    keys_between(up_node->byte_end, s->byte_end) != s->nkeys)
		r = -EBADMSG;
	else /* Nothing is evicted for it: that could be what <ids> names. */
		r = index_has_room(x, &x->holder[holder], s->nkeys) ? 0 : -ENOMEM;
	x->pin = at;
	id = r ? 0 : child_get(x, at, &end, s->tok_end, keys, s->nkeys);
	r = r ? r : id ? 0 : -ENOMEM;
	x->pin = id ? id : at;
	if (!r)
		r = index_restore_entry(x, holder, s->hash, id, s->refs);
	to = r ? NULL : pmap_put(ids, s->node);
	x->pin = 0;
	if (to)
		*to = id;
	else
		node_free_unused(x, id ? id : at);
	return r;
}

int index_load(struct kvindex *x, unsigned holder, const void *p, size_t n)
{
	const struct saved **all;
	struct pmap ids = { 0 };
	size_t count = 0;
	int r = 0;

	if (holder >= x->nholders)
		return -EINVAL;
	all = records(p, n, &count);
	if (!all)
		return -errno;
	for (size_t i = 0; i < count && !r; i++)
		r = load_one(x, holder, &ids, all[i]);
	pmap_free(&ids);
	free(all);
	holder_active(x, holder);
	if (r == -EBADMSG)
		index_clear(x, holder);
	return r;
}
