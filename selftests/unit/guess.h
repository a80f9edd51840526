/* SPDX-License-Identifier: Apache-2.0
 * Guesses out of the hashes of all chunks.
 */
#ifndef KVS_TEST_GUESS_H
#define KVS_TEST_GUESS_H

#include <stdlib.h>

#include "kvindex/kvindex.h"

static inline int speculate(struct kvindex *x, unsigned holder, uint64_t ns, const uint64_t *at, uint32_t from,
			    uint32_t n, uint32_t q8, uint64_t until_ns, uint32_t lru_chunks)
{
	uint64_t *places = calloc(index_places(from, n) + 1, sizeof(*places));
	struct index_guess g = { .holder = (uint16_t)holder,
				 .ns = ns,
				 .at = places,
				 .from = from,
				 .n = n,
				 .tokens_per_chunk_q8 = q8,
				 .until_ns = until_ns,
				 .lru_chunks = lru_chunks };
	int r;

	index_thin(at, from, n, places);
	if (until_ns)
		index_live(x, holder, true, 0);
	r = index_speculate(x, &g);
	free(places);
	return r;
}

static inline void unspeculate(struct kvindex *x, unsigned holder, uint64_t ns, const uint64_t *at, uint32_t from,
			       uint32_t n)
{
	uint64_t *places = calloc(index_places(from, n) + 1, sizeof(*places));

	index_thin(at, from, n, places);
	index_unspeculate(
		x, &(struct index_guess){ .holder = (uint16_t)holder, .ns = ns, .at = places, .from = from, .n = n });
	free(places);
}

#endif
