/* SPDX-License-Identifier: Apache-2.0
 * Free splice ids: a stack, so that few ids are in use again and again. Low ones are better, since only those below
 * KVS_TAILS keep a response's last bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "datapath/splice_int.h"

int ids_init(struct ids *s, uint32_t max)
{
	s->free = calloc(max, sizeof(*s->free));
	s->n = 0;
	s->max = max;
	return s->free ? 0 : -ENOMEM;
}

void ids_free(struct ids *s)
{
	free(s->free);
	s->free = NULL;
	s->n = 0;
}

unsigned ids_take(struct ids *s, uint32_t *ret, unsigned want)
{
	unsigned n = want < s->n ? want : s->n;

	s->n -= n;
	memcpy(ret, s->free + s->n, n * sizeof(*ret));
	return n;
}

void ids_give(struct ids *s, const uint32_t *v, unsigned n)
{
	memcpy(s->free + s->n, v, n * sizeof(*v));
	s->n += n;
}
