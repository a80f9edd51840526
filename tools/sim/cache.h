/* SPDX-License-Identifier: Apache-2.0
 * A pod's KV cache: a fixed number of blocks, of which full ones have a hash and can be hit.
 *
 * As in vLLM: a block without references stays findable and stands in the free queue, blocks without a hash before all
 * others; the queue's front is taken (and its hash forgotten: "removed") when a block is needed; requests give their
 * blocks back last block first, so that a prefix outlives its continuations. One hash may be held by several blocks:
 * each is announced and removed by itself.
 *
 * A cache may have a slower one below it (host memory): what is forgotten above is copied there first.
 */
#ifndef SIM_CACHE_H
#define SIM_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/str.h"
#include "blockhash.h"

/* Who listens to what is stored and removed, in the order in which it happens. */
struct kv_stored {
	const struct digest *hashes; /* of <n> blocks that follow each other */
	uint32_t n;
	const struct digest *parent; /* NULL: the chain's start */
	const uint32_t *tokens;	     /* n × block size */
	struct str lora, salt;	     /* salt only where the first block is the chain's first */
};

struct kv_sink {
	void (*stored)(struct kv_sink *s, const struct kv_stored *e);
	void (*copied)(struct kv_sink *s, const struct digest *hash); /* to the cache below; may be NULL without one */
	void (*removed)(struct kv_sink *s, const struct digest *hash, bool below);
	void (*cleared)(struct kv_sink *s);
};

struct cache_block {
	struct list free; /* in the free queue while ref == 0 */
	struct digest hash;
	uint32_t next; /* in its hash bucket, UINT32_MAX at the end */
	uint32_t ref;
	bool hashed;
};

struct cache {
	struct cache_block *blocks;
	uint32_t nblocks, nfree;
	struct list free;
	uint32_t *bucket, mask;
	struct kv_sink *sink;
	bool hits;	     /* enable_prefix_caching */
	struct cache *below; /* NULL: none */
	bool is_below;
};

int cache_init(struct cache *c, uint32_t nblocks, bool hits, struct kv_sink *sink); /* 0 or -ENOMEM */
void cache_free(struct cache *c);

/* How many of the <n> chained blocks are held, from the first on; which goes to <ret_blocks>. <ret_idle> of them stand
 * in the free queue, so that taking them costs a free block each. */
uint32_t cache_hits(const struct cache *c, const struct digest *hashes, uint32_t n, uint32_t *ret_blocks,
		    uint32_t *ret_idle);
/* Reference a block that cache_hits has found. */
void cache_take_hit(struct cache *c, uint32_t block);
/* Reference a fresh block; nfree must not be 0. Tells the sink if it forgets a hash. */
uint32_t cache_take_new(struct cache *c);
/* The block is full and may be hit from now on. The sink is told by the caller, who knows the neighbours. */
void cache_fill(struct cache *c, uint32_t block, const struct digest *hash);
/* Give <n> blocks back, the last first. */
void cache_release(struct cache *c, const uint32_t *blocks, uint32_t n);

/* How many of the <n> chained blocks are held by the cache below, which are then used later than others. <scratch> has
 * room for n. */
uint32_t cache_hits_below(const struct cache *c, const struct digest *hashes, uint32_t n, uint32_t *scratch);

/* Forget all hashes, but not those below. -EBUSY while a block is referenced. */
int cache_reset(struct cache *c);

static inline double cache_usage(const struct cache *c)
{
	return c->nblocks ? 1.0 - (double)c->nfree / c->nblocks : 0;
}

#endif
