/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that is given back all at once. Between two renderings some of its chunks stay, so that most renderings ask
 * the system for nothing, and touch pages that are there.
 */
#include <stdlib.h>

#include "model/template_int.h"

#define CHUNK_MIN (64u << 10)
#define CHUNK_MAX (2u << 20) /* but for what alone is larger */
#define KEPT	  (8u << 20)

struct template_mem_chunk {
	struct template_mem_chunk *next;
	size_t size;
	char data[] __attribute__((aligned(MEM_ALIGN)));
};

static void begin(struct template_mem *a, struct template_mem_chunk *c)
{
	c->next = a->chunks;
	a->chunks = c;
	a->total += c->size;
	a->at = c->data;
	a->end = c->data + c->size;
}

static bool more_room(struct template_mem *a, size_t n)
{
	size_t size = a->chunks ? a->chunks->size * 2 : CHUNK_MIN;
	struct template_mem_chunk *c;

	if (n > a->limit || a->total > a->limit - n)
		return false;
	for (struct template_mem_chunk **at = &a->spare; (c = *at); at = &c->next)
		if (c->size >= n && c->size <= a->limit - a->total) {
			*at = c->next;
			begin(a, c);
			return true;
		}
	if (size > CHUNK_MAX)
		size = CHUNK_MAX;
	if (size < n)
		size = n;
	if (size > a->limit - a->total)
		size = a->limit - a->total;
	c = malloc(sizeof(*c) + size);
	if (!c)
		return false;
	c->size = size;
	begin(a, c);
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

static void give_back(struct template_mem_chunk *c)
{
	for (struct template_mem_chunk *next; c; c = next) {
		next = c->next;
		free(c);
	}
}

void template_mem_reset(struct template_mem *a)
{
	struct template_mem_chunk *c, *next;
	size_t kept = 0;

	/* What was not used this time goes, for the rest there is a limit. */
	give_back(a->spare);
	a->spare = NULL;
	for (c = a->chunks; c; c = next) {
		next = c->next;
		if (c->size > KEPT - kept) {
			free(c);
			continue;
		}
		kept += c->size;
		c->next = a->spare;
		a->spare = c;
	}
	a->chunks = NULL;
	a->total = 0;
	a->at = a->end = NULL;
}

void template_mem_free(struct template_mem *a)
{
	give_back(a->chunks);
	give_back(a->spare);
	*a = (struct template_mem){ .limit = a->limit };
}
