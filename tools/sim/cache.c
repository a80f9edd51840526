/* SPDX-License-Identifier: Apache-2.0 */
#include "cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

int cache_init(struct cache *c, uint32_t nblocks, bool hits, struct kv_sink *sink)
{
	uint32_t nbuckets = 64;

	while (nbuckets < 2 * nblocks)
		nbuckets *= 2;
	*c = (struct cache){ .nblocks = nblocks, .nfree = nblocks, .mask = nbuckets - 1, .sink = sink, .hits = hits };
	list_init(&c->free);
	c->blocks = calloc(nblocks, sizeof(*c->blocks));
	c->bucket = malloc(nbuckets * sizeof(*c->bucket));
	if (!c->blocks || !c->bucket) {
		cache_free(c);
		return -ENOMEM;
	}
	memset(c->bucket, 0xff, nbuckets * sizeof(*c->bucket));
	for (uint32_t i = 0; i < nblocks; i++)
		list_add_tail(&c->free, &c->blocks[i].free);
	return 0;
}

void cache_free(struct cache *c)
{
	free(c->blocks);
	free(c->bucket);
	*c = (struct cache){ 0 };
}

static uint32_t *bucket_of(const struct cache *c, const struct digest *hash)
{
	return &c->bucket[digest_id(hash) & c->mask];
}

static uint32_t find(const struct cache *c, const struct digest *hash)
{
	uint32_t i = *bucket_of(c, hash);

	while (i != NONE && memcmp(&c->blocks[i].hash, hash, sizeof(*hash)) != 0)
		i = c->blocks[i].next;
	return i;
}

uint32_t cache_hits(const struct cache *c, const struct digest *hashes, uint32_t n, uint32_t *ret_blocks,
		    uint32_t *ret_idle)
{
	uint32_t i, at;

	*ret_idle = 0;
	for (i = 0; c->hits && i < n; i++) {
		at = find(c, &hashes[i]);
		if (at == NONE)
			break;
		ret_blocks[i] = at;
		*ret_idle += c->blocks[at].ref == 0;
	}
	return i;
}

void cache_take_hit(struct cache *c, uint32_t block)
{
	struct cache_block *b = &c->blocks[block];

	if (b->ref++ == 0) {
		list_del(&b->free);
		c->nfree--;
	}
}

static void forget(struct cache *c, uint32_t block)
{
	struct cache_block *b = &c->blocks[block];
	uint32_t *at = bucket_of(c, &b->hash);

	while (*at != block)
		at = &c->blocks[*at].next;
	*at = b->next;
	b->hashed = false;
}

static void copy_below(struct cache *c, const struct digest *hash)
{
	struct cache *to = c->below;
	uint32_t i;

	if (!to || find(to, hash) != NONE)
		return;
	i = cache_take_new(to);
	cache_fill(to, i, hash);
	c->sink->copied(c->sink, hash);
	cache_release(to, &i, 1);
}

uint32_t cache_hits_below(const struct cache *c, const struct digest *hashes, uint32_t n, uint32_t *scratch)
{
	uint32_t idle, hits = c->below ? cache_hits(c->below, hashes, n, scratch, &idle) : 0;

	for (uint32_t i = 0; i < hits; i++)
		cache_take_hit(c->below, scratch[i]);
	cache_release(c->below, scratch, hits);
	return hits;
}

uint32_t cache_take_new(struct cache *c)
{
	struct cache_block *b = container_of(c->free.next, struct cache_block, free);
	uint32_t i = (uint32_t)(b - c->blocks);

	list_del(&b->free);
	c->nfree--;
	b->ref = 1;
	if (b->hashed) {
		forget(c, i);
		copy_below(c, &b->hash);
		c->sink->removed(c->sink, &b->hash, c->is_below);
	}
	return i;
}

void cache_fill(struct cache *c, uint32_t block, const struct digest *hash)
{
	struct cache_block *b = &c->blocks[block];
	uint32_t *at = bucket_of(c, hash);

	b->hash = *hash;
	b->hashed = true;
	/* At the end: the oldest copy is the one that is hit. */
	while (*at != NONE)
		at = &c->blocks[*at].next;
	b->next = NONE;
	*at = block;
}

void cache_release(struct cache *c, const uint32_t *blocks, uint32_t n)
{
	while (n--) {
		struct cache_block *b = &c->blocks[blocks[n]];

		if (--b->ref)
			continue;
		/* What nobody can hit is taken first, as vLLM 0.32 does. */
		if (b->hashed)
			list_add_tail(&c->free, &b->free);
		else
			list_add(&c->free, &b->free);
		c->nfree++;
	}
}

int cache_reset(struct cache *c)
{
	if (c->nfree < c->nblocks)
		return -EBUSY;
	for (uint32_t i = 0; i < c->nblocks; i++)
		c->blocks[i].hashed = false;
	memset(c->bucket, 0xff, (c->mask + 1) * sizeof(*c->bucket));
	c->sink->cleared(c->sink);
	return 0;
}
