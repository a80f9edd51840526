/* SPDX-License-Identifier: Apache-2.0
 * Prefix index in byte space: which pod holds how much of a prompt.
 *
 * Text is hashed by a polynomial over 7-byte words modulo 2^61 - 1 with a secret base; at every INDEX_CHUNK bytes the
 * prefix's hash, mixed with its namespace, is a key. A key leads to *nodes*: engine blocks of known text end, in bytes
 * and in tokens. A node knows which holders have it *and all of its ancestors* (the writer keeps this true when a block
 * in mid-chain is evicted), so presence is prefix-closed and a look-up may gallop and bisect.
 *
 * A holder is one cache: a pod's data-parallel rank. It is a small number that the caller gives out and takes back.
 *
 * Threads: one writer (index_put … index_tick), any number of readers that hold a qsbr section around index_match.
 * Memory: bounded by <max_bytes>; at the ceiling unconfirmed, then least recently stored nodes go first, counted.
 */
#ifndef KVS_KVINDEX_KVINDEX_H
#define KVS_KVINDEX_KVINDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/qsbr.h"
#include "base/str.h"

#define INDEX_CHUNK   56 /* bytes: eight words; about one block of 16 tokens */
#define INDEX_HOLDERS 256

struct kvindex;

/* Where a block lies. A hit in a slower tier is worth less. */
enum index_tier { TIER_GPU, TIER_CPU, TIER_DISK, TIER_N };

/* What makes one index's hashes and keys others than another's. Keep it from who may send prompts. */
struct index_secrets {
	uint64_t base, key;
};

struct kvindex *index_new(struct qsbr *q, size_t max_bytes, unsigned holders); /* NULL and errno */
/* With the secrets of an earlier one, to load what that has saved. EINVAL: they are none. */
struct kvindex *index_new_with(struct qsbr *q, size_t max_bytes, unsigned holders, const struct index_secrets *s);
void index_free(struct kvindex *x); /* no reader may be left */

/* Namespaces: equal text in two of them never matches. <parts> are model or LoRA name, salt, media keys, in order. */
uint64_t index_namespace(const struct kvindex *x, const struct str *parts, unsigned n);

/* --- a prompt's hashes (readers; no shared state but the secret) --- */

/* Hashes of a text's prefixes while it is fed. The caller owns <at>, which has room for <cap> chunk hashes. */
struct index_text {
	uint64_t *at; /* at[i]: hash of the first (i + 1) * INDEX_CHUNK bytes */
	uint32_t cap, n;
	uint64_t bytes; /* fed so far */
	/* private: the hash so far and the partial chunk */
	uint64_t h;
	uint32_t fill;
	char part[INDEX_CHUNK];
};

void index_text_init(struct index_text *t, uint64_t *at, uint32_t cap);
/* 0, or -ENOSPC when <at> is full (what was hashed stays usable). */
int index_text_feed(const struct kvindex *x, struct index_text *t, const char *p, size_t n);

/* --- look-up (readers) --- */

struct index_hit {
	uint16_t holder;
	bool exact;	 /* ends at the end of an engine block that events announced; else from speculation */
	uint32_t tokens; /* in whole engine blocks */
	uint32_t sure;	 /* of <tokens>, those of blocks that events announced */
	/* Of <tokens>, how many are at hand in which tier; the sum is <tokens>. As an engine uses them: GPU counts up
	 * to the first block that is not there, what follows comes from CPU up to the first that is in neither. Guesses
	 * count as GPU. */
	uint32_t in_tier[TIER_N];
	uint32_t blocks;
	uint32_t age;	/* not exact: chunks speculated, by anyone, since all of it was last said; else 0 */
	uint64_t bytes; /* where the match ends */
	uint32_t node;	/* private */
};

/* Depth per holder that has at least one chunk or block of the prompt. <text>/<len> is the whole text that <t> was fed
 * with: the last blocks are compared by their own end. Fills up to <cap> hits, unordered; returns how many.
 * A hit by speculation is counted from the end of the holder's real blocks: their tokens and blocks, then the estimate
 * for the rest and one block for each chunk begun.
 * A prompt that is cached to its very end counts one block less, as engines compute its last token anew (B is the
 * holder's block size): min(hit, floor((L - 1) / B) * B). */
unsigned index_match(const struct kvindex *x, uint64_t ns, const struct index_text *t, const char *text, size_t len,
		     struct index_hit *hits, unsigned cap);

/* An exact hit ends a block earlier: the caller knows that an engine would not use the last one. In the section of its
 * look-up. */
void index_hit_shorten(const struct kvindex *x, struct index_hit *hit);

/* --- writer --- */

/* A chain of <n> full blocks of <block_size> tokens each. <text> is the text of all of them, <ends[i]> the byte offset
 * in it at which block i ends. <parent>/<has_parent> name the block before the first; the chain's namespace is then the
 * parent's and <ns> is not looked at (a salt comes with the first block only). Blocks that the holder has already get
 * another reference; a hash that was another block's leaves that one. 0; -ENOENT: the parent is not known; -ENOMEM:
 * ceiling reached and nothing to evict (blocks before that one are stored); -EINVAL: <ends> decrease, a chain of 4 GB.
 */
int index_put(struct kvindex *x, unsigned holder, uint64_t ns, bool has_parent, uint64_t parent, const uint64_t *hashes,
	      const uint32_t *ends, unsigned n, const char *text, uint32_t block_size, enum index_tier tier,
	      uint64_t now_ns);

/* Known blocks are now in <tier> too (location-only updates). Returns how many of them were known. */
unsigned index_put_tier(struct kvindex *x, unsigned holder, const uint64_t *hashes, unsigned n, enum index_tier tier);

/* One reference less in that tier. Returns how many were known. */
unsigned index_remove(struct kvindex *x, unsigned holder, const uint64_t *hashes, unsigned n, enum index_tier tier);

void index_clear(struct kvindex *x, unsigned holder); /* everything of a holder, speculation too */
void index_clear_tier(struct kvindex *x, unsigned holder, enum index_tier tier);

/* A guess is that a holder will have a prompt, because it was sent there. Of a long prompt's chunks it is kept at some
 * only, the *places*: every fourth at first, fewer farther on (258 for a megabyte). How many are behind chunk <from> up
 * to <n>, and their hashes, from the first to the last, out of <at>, which has those of all chunks. Any thread. */
uint32_t index_places(uint32_t from, uint32_t n);
void index_thin(const uint64_t *at, uint32_t from, uint32_t n, uint64_t *ret);

struct index_guess {
	uint16_t holder;
	uint64_t ns;
	const uint64_t *at; /* at the places behind <from> up to <n>, as index_thin gives them */
	/* In chunks. The holder has what is before (from <= bytes of its hit / INDEX_CHUNK; over a gap nothing is sure
	 * to match). */
	uint32_t from, n;
	uint32_t age;		      /* of that hit: a prompt is as old as its oldest part */
	uint32_t tokens_per_chunk_q8; /* the tokens of one chunk times 256 (an estimate) */
	uint64_t until_ns;   /* the text is exact, so a live holder's events confirm the guess by then, or it goes */
	uint32_t lru_chunks; /* until_ns 0, or the holder is not live: what is over that many goes, oldest first */
};
int index_speculate(struct kvindex *x, const struct index_guess *g);
/* Do the holder's events flow? At first they do not. When they begin to, they tell what has come of what was guessed of
 * exact texts: that ends at <until_ns>. */
void index_live(struct kvindex *x, unsigned holder, bool live, uint64_t until_ns);
/* It failed: drop what that call inserted and is unconfirmed. */
void index_unspeculate(struct kvindex *x, const struct index_guess *g);

/* --- saved and loaded (the writer) --- */

void index_secrets_of(const struct kvindex *x, struct index_secrets *ret);
/* Append the blocks that a holder reaches (56 bytes and more each). 0 or -ENOMEM. */
int index_save(const struct kvindex *x, unsigned holder, struct buf *out);
/* Into a holder that has nothing, from an index with the same secrets; <p> at a multiple of 8. 0; -ENOMEM: what there
 * was room for is there; -EBADMSG: it is nothing that was saved, and the holder has nothing. */
int index_load(struct kvindex *x, unsigned holder, const void *p, size_t n);

/* Expire speculation, reclaim retired memory, resize. Call it every few ms to 100 ms. */
void index_tick(struct kvindex *x, uint64_t now_ns);

struct index_stats {
	uint64_t nodes, keys, bytes, max_bytes;
	uint64_t stored, removed, cleared, unknown_parent, evicted, speculated, expired, unreachable;
};
void index_stats(const struct kvindex *x, struct index_stats *ret); /* any thread; counters may be a moment old */
/* Blocks (of events) and speculative chunks that a holder has. */
void index_holder_stats(const struct kvindex *x, unsigned holder, uint64_t *ret_blocks, uint64_t *ret_speculative);

#endif
