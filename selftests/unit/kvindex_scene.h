/* SPDX-License-Identifier: Apache-2.0
 * For stories about one index. Text is made of tokens of four bytes; a block's hash is a number that the story gives.
 */
#ifndef KVS_TEST_KVINDEX_SCENE_H
#define KVS_TEST_KVINDEX_SCENE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/time.h"
#include "guess.h"
#include "kvindex/kvindex.h"

#define BLOCK  16 /* tokens */
#define BBYTES (BLOCK * 4)

static struct qsbr qsbr;

static inline struct kvindex *fresh(void)
{
	struct kvindex *x;

	qsbr_init(&qsbr, 1);
	x = index_new(&qsbr, (size_t)64 << 20, 8);
	assert_non_null(x);
	return x;
}

/* Token i of document <doc> is four characters of its own. */
static inline char *text_of(unsigned doc, unsigned tokens)
{
	static char text[1 << 20];

	for (unsigned i = 0; i < tokens; i++)
		snprintf(text + (size_t)i * 4, 5, "%c%03x", 'a' + doc, (i * 7919 + doc) & 0xfff);
	return text;
}

static inline int put_from(struct kvindex *x, unsigned holder, uint64_t ns, bool has_parent, uint64_t parent,
			   uint64_t first_hash, const char *text, unsigned nblocks, unsigned block,
			   enum index_tier tier)
{
	uint64_t *hashes = calloc(nblocks + 1, sizeof(*hashes));
	uint32_t *ends = calloc(nblocks + 1, sizeof(*ends));
	int r;

	for (unsigned i = 0; i < nblocks; i++) {
		hashes[i] = first_hash + i;
		ends[i] = (i + 1) * block * 4;
	}
	r = index_put(x, holder, ns, has_parent, parent, hashes, ends, nblocks, text, block, tier, 0);
	free(hashes);
	free(ends);
	return r;
}

static inline void put(struct kvindex *x, unsigned holder, uint64_t hash, const char *text, unsigned nblocks)
{
	assert_int_equal(put_from(x, holder, 0, false, 0, hash, text, nblocks, BLOCK, TIER_GPU), 0);
}

static inline unsigned remove_one(struct kvindex *x, unsigned holder, uint64_t hash)
{
	return index_remove(x, holder, &hash, 1, TIER_GPU);
}

static inline struct index_hit look(struct kvindex *x, unsigned holder, uint64_t ns, const char *text, size_t len)
{
	uint64_t *at = calloc(len / INDEX_CHUNK + 1, sizeof(*at));
	struct index_hit hits[8], none = { 0 };
	struct index_text t;
	unsigned n;

	assert_non_null(at);
	index_text_init(&t, at, (uint32_t)(len / INDEX_CHUNK + 1));
	assert_int_equal(index_text_feed(x, &t, text, len), 0);
	qsbr_enter(&qsbr, 0);
	n = index_match(x, ns, &t, text, len, hits, 8);
	qsbr_leave(&qsbr, 0);
	free(at);
	for (unsigned i = 0; i < n; i++)
		if (hits[i].holder == holder)
			return hits[i];
	return none;
}

static inline uint32_t tokens(struct kvindex *x, unsigned holder, const char *text, unsigned ntokens)
{
	return look(x, holder, 0, text, (size_t)ntokens * 4).tokens;
}

static inline struct index_stats stats(const struct kvindex *x)
{
	struct index_stats st;

	index_stats(x, &st);
	return st;
}

static inline void chunks_of(const struct kvindex *x, const char *text, size_t len, uint64_t *at, uint32_t cap)
{
	struct index_text t;

	index_text_init(&t, at, cap);
	assert_int_equal(index_text_feed(x, &t, text, len), 0);
}

#endif
