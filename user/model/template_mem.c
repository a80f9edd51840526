/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that is given back all at once. Between two renderings the largest chunk stays, if it is not too large, so
 * that most of them ask the system for nothing.
 */
#include <stdlib.h>

#include "model/template_int.h"

#define CHUNK_MIN  (64u << 10)
#define CHUNK_KEPT (4u << 20)

struct template_mem_chunk {
	struct template_mem_chunk *next;
	size_t size;
	char data[] __attribute__((aligned(MEM_ALIGN)));
};

static bool more_room(struct template_mem *a, size_t n)
{
	size_t size = a->chunks ? a->chunks->size * 2 : CHUNK_MIN;
	struct template_mem_chunk *c;

	if (n > a->limit || a->total > a->limit - n)
		return false;
	if (size > CHUNK_KEPT)
		size = CHUNK_KEPT;
	if (size < n)
		size = n;
	if (size > a->limit - a->total)
		size = a->limit - a->total;
	c = malloc(sizeof(*c) + size);
	if (!c)
		return false;
	c->size = size;
	c->next = a->chunks;
	a->chunks = c;
	a->total += size;
	a->at = c->data;
	a->end = c->data + size;
	return true;
}

void *template_mem_get(struct template_mem *a, size_t n)
{
	size_t pad = (size_t)(-(uintptr_t)a->at % MEM_ALIGN);
	char *p;

	if ((size_t)(a->end - a->at) < pad + n || !a->at) {
		if (!more_room(a, n))
			return NULL;
		pad = 0;
	}
	p = a->at + pad;
	a->at = p + n;
	return p;
}

char *template_mem_bytes(struct template_mem *a, size_t n)
{
	char *p;

	if (((size_t)(a->end - a->at) < n || !a->at) && !more_room(a, n))
		return NULL;
	p = a->at;
	a->at += n;
	return p;
}

bool template_mem_grow(struct template_mem *a, const void *p, size_t n, size_t more)
{
	if (!a->at || (const char *)p + n != a->at || (size_t)(a->end - a->at) < more)
		return false;
	a->at += more;
	return true;
}

void template_mem_reset(struct template_mem *a)
{
	struct template_mem_chunk *keep = NULL, *next;

	for (struct template_mem_chunk *c = a->chunks; c; c = next) {
		struct template_mem_chunk *drop = c;

		next = c->next;
		if (c->size <= CHUNK_KEPT && (!keep || c->size > keep->size)) {
			drop = keep;
			keep = c;
		}
		free(drop);
	}
	if (keep)
		keep->next = NULL;
	a->chunks = keep;
	a->total = keep ? keep->size : 0;
	a->at = keep ? keep->data : NULL;
	a->end = keep ? keep->data + keep->size : NULL;
}

void template_mem_free(struct template_mem *a)
{
	for (struct template_mem_chunk *c = a->chunks, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	*a = (struct template_mem){ .limit = a->limit };
}
