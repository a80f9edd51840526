/* SPDX-License-Identifier: Apache-2.0 */
#include "hist.h"

#include <math.h>

#define LAST (LHIST_OCTAVES * LHIST_SUB - 1)

/* Below 128 a bucket each; then the exponent and the seven bits behind the leading one. */
static unsigned place(uint64_t v)
{
	unsigned e, i;

	if (v < LHIST_SUB)
		return (unsigned)v;
	e = 63 - (unsigned)__builtin_clzll(v);
	i = (e - 6) * LHIST_SUB + (unsigned)(v >> (e - 7) & (LHIST_SUB - 1));
	return i > LAST ? LAST : i;
}

static uint64_t end_of(unsigned i)
{
	unsigned e = i / LHIST_SUB + 6;

	if (i < LHIST_SUB)
		return i;
	return ((uint64_t)(LHIST_SUB + i % LHIST_SUB + 1) << (e - 7)) - 1;
}

void lhist_add(struct lhist *h, uint64_t v)
{
	h->count[place(v)]++;
	h->n++;
	h->sum += (double)v;
	if (v > h->max)
		h->max = v;
}

void lhist_merge(struct lhist *to, const struct lhist *from)
{
	for (unsigned i = 0; i <= LAST; i++)
		to->count[i] += from->count[i];
	to->n += from->n;
	to->sum += from->sum;
	if (from->max > to->max)
		to->max = from->max;
}

uint64_t lhist_quantile(const struct lhist *h, double q)
{
	uint64_t want = (uint64_t)ceil(q * (double)h->n), seen = 0;

	if (!h->n)
		return 0;
	if (!want)
		want = 1;
	for (unsigned i = 0; i <= LAST; i++) {
		seen += h->count[i];
		if (seen >= want)
			return i == LAST || end_of(i) > h->max ? h->max : end_of(i);
	}
	return h->max;
}
