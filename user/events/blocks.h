/* SPDX-License-Identifier: Apache-2.0
 * The hashes and tokens of an event that is being decoded. Arrays grow with the elements really read: what a message
 * declares costs nothing. Private to events/.
 */
#ifndef KVS_EVENTS_BLOCKS_H
#define KVS_EVENTS_BLOCKS_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#define HASHES_MAX (1u << 20)
#define TOKENS_MAX (8u << 20)

struct kv_blocks {
	uint64_t *hashes;
	uint32_t *tokens;
	unsigned nhashes, ntokens, cap_hashes, cap_tokens;
};

static inline int blocks_grow(void *arr, unsigned *cap, unsigned max, size_t size)
{
	unsigned n = *cap ? *cap * 2 : 1024;
	void **a = arr, *mem;

	if (*cap >= max)
		return -EBADMSG;
	mem = realloc(*a, n * size);
	if (!mem)
		return -ENOMEM;
	*a = mem;
	*cap = n;
	return 0;
}

/* Room for one more: 0, -EBADMSG for too many, -ENOMEM. */
static inline int blocks_hash_room(struct kv_blocks *b)
{
	return b->nhashes < b->cap_hashes ? 0 : blocks_grow(&b->hashes, &b->cap_hashes, HASHES_MAX, sizeof(*b->hashes));
}

static inline int blocks_token_room(struct kv_blocks *b)
{
	return b->ntokens < b->cap_tokens ? 0 : blocks_grow(&b->tokens, &b->cap_tokens, TOKENS_MAX, sizeof(*b->tokens));
}

static inline void blocks_free(struct kv_blocks *b)
{
	free(b->hashes);
	free(b->tokens);
}

#endif
