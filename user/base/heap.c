/* SPDX-License-Identifier: Apache-2.0 */
#include "base/heap.h"

#include <errno.h>
#include <stdlib.h>

static void place(struct heap *h, struct heap_node *n, uint32_t pos)
{
	h->v[pos] = n;
	n->pos = pos;
}

static void up(struct heap *h, struct heap_node *n, uint32_t pos)
{
	while (pos > 0 && h->v[(pos - 1) / 2]->key > n->key) {
		place(h, h->v[(pos - 1) / 2], pos);
		pos = (pos - 1) / 2;
	}
	place(h, n, pos);
}

static void down(struct heap *h, struct heap_node *n, uint32_t pos)
{
	for (;;) {
		uint32_t c = 2 * pos + 1;

		if (c >= h->n)
			break;
		if (c + 1 < h->n && h->v[c + 1]->key < h->v[c]->key)
			c++;
		if (h->v[c]->key >= n->key)
			break;
		place(h, h->v[c], pos);
		pos = c;
	}
	place(h, n, pos);
}

int heap_set(struct heap *h, struct heap_node *n, uint64_t key)
{
	if (n->pos != HEAP_NOWHERE) {
		uint64_t old = n->key;

		n->key = key;
		if (key < old)
			up(h, n, n->pos);
		else
			down(h, n, n->pos);
		return 0;
	}
	if (h->n == h->cap) {
		uint32_t cap = h->cap ? 2 * h->cap : 64;
		struct heap_node **v = realloc(h->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		h->v = v;
		h->cap = cap;
	}
	n->key = key;
	up(h, n, h->n++);
	return 0;
}

void heap_del(struct heap *h, struct heap_node *n)
{
	struct heap_node *last;
	uint32_t pos = n->pos;

	if (pos == HEAP_NOWHERE)
		return;
	n->pos = HEAP_NOWHERE;
	last = h->v[--h->n];
	if (last == n)
		return;
	if (pos > 0 && h->v[(pos - 1) / 2]->key > last->key)
		up(h, last, pos);
	else
		down(h, last, pos);
}

void heap_free(struct heap *h)
{
	free(h->v);
	*h = (struct heap){ 0 };
}
