/* SPDX-License-Identifier: Apache-2.0
 * Intrusive binary min-heap over 64-bit keys. The array of pointers is the heap's, the nodes are their owners'.
 */
#ifndef KVS_BASE_HEAP_H
#define KVS_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAP_NOWHERE UINT32_MAX

struct heap_node {
	uint64_t key;
	uint32_t pos; /* HEAP_NOWHERE: in no heap */
};

struct heap {
	struct heap_node **v;
	uint32_t n, cap;
};

static inline void heap_node_init(struct heap_node *n)
{
	n->pos = HEAP_NOWHERE;
}

static inline struct heap_node *heap_min(const struct heap *h)
{
	return h->n ? h->v[0] : NULL;
}

int heap_set(struct heap *h, struct heap_node *n, uint64_t key); /* insert or move; 0 or -ENOMEM */
void heap_del(struct heap *h, struct heap_node *n);		 /* no-op if it is in no heap */
void heap_free(struct heap *h);

#endif
