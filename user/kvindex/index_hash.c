/* SPDX-License-Identifier: Apache-2.0
 * The polynomial Σ w[i] · B^(n - 1 - i) mod 2^61 - 1 over words of seven bytes. A word is below 2^56, so no two words
 * are congruent; who does not know B finds two texts of n words with one hash with a chance of n / 2^61.
 *
 * Eight words at a time: nine products below 2^122 add up in 128 bits, one reduction for 56 bytes.
 */
#include <errno.h>

#include "kvindex/kvindex_int.h"

#define M56 ((UINT64_C(1) << 56) - 1)

static inline uint64_t load64(const char *p)
{
	uint64_t w;

	memcpy(&w, p, 8);
	return w;
}

/* <h> comes in last: all else of a chunk does not wait for the one before. */
static inline uint64_t hash_chunk(const uint64_t *pow, uint64_t h, const char *p)
{
	unsigned __int128 a = (unsigned __int128)(load64(p) & M56) * pow[7];
	unsigned __int128 b = (unsigned __int128)(load64(p + 7) & M56) * pow[6];

	a += (unsigned __int128)(load64(p + 14) & M56) * pow[5];
	b += (unsigned __int128)(load64(p + 21) & M56) * pow[4];
	a += (unsigned __int128)(load64(p + 28) & M56) * pow[3];
	b += (unsigned __int128)(load64(p + 35) & M56) * pow[2];
	a += (unsigned __int128)(load64(p + 42) & M56) * pow[1];
	b += load64(p + 48) >> 8;
	a += b;
	return mod61(a + (unsigned __int128)h * pow[8]);
}

static inline uint64_t load_part(const char *p, size_t n)
{
	uint64_t w = 0;

	for (size_t i = 0; i < n; i++)
		w |= (uint64_t)(unsigned char)p[i] << (8 * i);
	return w;
}

void state_feed(const struct kvindex *x, struct state *s, const char *p, size_t n)
{
	unsigned fill = (unsigned)(s->bytes % 7);

	s->bytes += n;
	if (fill) {
		size_t take = n < 7 - fill ? n : 7 - fill;

		s->acc |= load_part(p, take) << (8 * fill);
		p += take;
		n -= take;
		if (fill + take < 7)
			return;
		s->h = hash_word(x, s->h, s->acc);
	}
	for (; n >= INDEX_CHUNK; p += INDEX_CHUNK, n -= INDEX_CHUNK)
		s->h = hash_chunk(x->pow, s->h, p);
	for (; n >= 8; p += 7, n -= 7)
		s->h = hash_word(x, s->h, load64(p) & M56);
	s->acc = load_part(p, n);
	if (n == 7) {
		s->h = hash_word(x, s->h, s->acc);
		s->acc = 0;
	}
}

void index_text_init(struct index_text *t, uint64_t *at, uint32_t cap)
{
	*t = (struct index_text){ .at = at, .cap = cap };
}

int index_text_feed(const struct kvindex *x, struct index_text *t, const char *p, size_t n)
{
	uint64_t h = t->h;
	uint32_t i = t->n;

	if (t->fill) {
		size_t take = n < INDEX_CHUNK - t->fill ? n : INDEX_CHUNK - t->fill;

		memcpy(t->part + t->fill, p, take);
		t->fill += (uint32_t)take;
		t->bytes += take;
		p += take;
		n -= take;
		if (t->fill < INDEX_CHUNK)
			return 0;
		t->fill = 0;
		t->at[i++] = h = hash_chunk(x->pow, h, t->part);
	}
	for (; n >= INDEX_CHUNK && i < t->cap; p += INDEX_CHUNK, n -= INDEX_CHUNK) {
		t->at[i++] = h = hash_chunk(x->pow, h, p);
		t->bytes += INDEX_CHUNK;
	}
	t->h = h;
	t->n = i;
	if (n && i == t->cap)
		return -ENOSPC;
	if (n) {
		memcpy(t->part, p, n);
		t->fill = (uint32_t)n;
		t->bytes += n;
	}
	return 0;
}

uint64_t index_namespace(const struct kvindex *x, const struct str *parts, unsigned n)
{
	struct state s = { 0 };

	for (unsigned i = 0; i < n; i++) {
		uint64_t len = parts[i].n;

		state_feed(x, &s, (const char *)&len, sizeof(len));
		if (len)
			state_feed(x, &s, parts[i].p, len);
	}
	return mix64(index_key(x, s.h, s.acc, s.bytes, x->secret) ^ x->secret);
}
