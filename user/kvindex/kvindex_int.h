/* SPDX-License-Identifier: Apache-2.0
 * The index's parts and who may touch them.
 *
 *   arenas  cells of 64 bytes at stable addresses, named by 26-bit ids: nodes; holder sets of popular nodes
 *   tree    a root per namespace; below it engine blocks, shared by all holders that have the same text cut alike
 *   table   key(prefix hash, length, namespace) → the deepest node of the tree that ends at or before that length
 *   maps    per holder: engine hash → node (writer only)
 *   guesses speculative chunks: nodes outside of the tree, with one record per holder (writer only)
 *
 * Keys stand in the table for the end of each node, and for each multiple of INDEX_SPAN strictly inside of a node's
 * text: those name the node's *parent*, so that ten thousand siblings that differ only behind that length share one
 * entry, which counts them.
 *
 * Readers follow: table → slots → nodes (fields marked r, and atomics). What they can reach is unlinked first and freed
 * when qsbr says so (index_reclaim). Everything else is the writer's.
 */
#ifndef KVS_KVINDEX_INT_H
#define KVS_KVINDEX_INT_H

#include <stdatomic.h>
#include <string.h>

#include "base/rand.h"
#include "kvindex/kvindex.h"

#define INDEX_SPAN  (2 * INDEX_CHUNK) /* a look-up bisects over multiples of this */
#define ID_BITS	    26
#define ID_MASK	    ((UINT32_C(1) << ID_BITS) - 1)
#define P61	    ((UINT64_C(1) << 61) - 1)
#define SET_WORDS   (INDEX_HOLDERS / 64)
#define WHEEL_SLOTS 256
#define WHEEL_SHIFT 24 /* 17 ms a slot */
#define REFS_BITS   10
#define REFS_MAX    ((1u << REFS_BITS) - 1)

/* One cache line. <set> holds up to four holders in 16-bit fields (holder + 1, level, REACH_BIT), or SET_EXT, the id of
 * a cell with levels (0: all are 0) and that of a cell with the sets. A holder's *level* at a node that it reaches is
 * the slowest tier that the way there needs.
 */
struct node {
	uint64_t h;   /* r: hash at the last whole word before the end */
	uint64_t acc; /* r: the bytes behind it */
	union {
		uint64_t ns;	/* r: of a root */
		uint64_t key;	/* the key inside, if there is one */
		uint64_t *keys; /* if there are more */
	} in;
	_Atomic uint64_t set;
	uint32_t byte_end;	  /* r */
	_Atomic uint32_t tok_end; /* speculative nodes: the latest estimate */
	uint32_t depth;		  /* r: blocks; speculative nodes: index->said when last said, atomically */
	uint32_t parent;	  /* r */
	uint32_t root : ID_BITS;  /* r; together with spec */
	uint32_t spec : 1;	  /* r */
	_Atomic uint32_t child;	  /* first */
	_Atomic uint32_t next;	  /* sibling */
	uint32_t prev : ID_BITS; /* sibling; of a root: number of guesses below it; in a free or limbo list: the next */
	uint32_t live : 1;	 /* it is a node in use */
	uint32_t touched : 1;	 /* stored again since the eviction hand came by */
	uint32_t twice : 1;	 /* some holder has it under several engine hashes: see index->twice */
};
_Static_assert(sizeof(struct node) == 64, "a node is one cache line");

#define SET_EXT	    (UINT64_C(1) << 63)
#define REACH_BIT   0x4000u
#define LEVEL_AT    9 /* two bits of a field */
#define HOLDER_BITS 0x1ffu
#define UNREACHED   TIER_N /* as a level: worse than any tier */

struct node_set {
	_Atomic uint64_t reach[SET_WORDS];
	uint64_t have[SET_WORDS];
};
_Static_assert(sizeof(struct node_set) == 64, "a set is one cell");

/* Holders whose level is slower than GPU, slower than CPU. */
struct node_levels {
	_Atomic uint64_t above[TIER_N - 1][SET_WORDS];
};
_Static_assert(sizeof(struct node_levels) == 64, "levels are one cell");

/* Open addressing, linear. A slot is a tag, the key's upper 38 bits, and a node's id; 0 is empty, TOMB was in use.
 * Where a key belongs is told by its lower 16 bits first. Were it told by the tag, neighbours would have similar tags,
 * and a key that is not there would find another's once in 2^38 / live probes, often enough to be seen; so it is once
 * in 2^54 / live. What a look-up reports is checked against the text, what is probed on the way there is not. refs[]
 * and low[] (those bits, for the next table) are the writer's. */
#define TOMB	  (~(uint64_t)ID_MASK)
#define SLOT_SIZE (sizeof(uint64_t) + sizeof(uint32_t) + sizeof(uint16_t))
struct table {
	uint64_t cap, live, used; /* used: live and tombs */
	size_t bytes;
	uint32_t *refs;
	uint16_t *low;
	_Atomic uint64_t *slot;
	struct table *retired; /* next in limbo */
};

/* u64 → u32, open addressing with backward shift; key 0 is not used. */
struct pmap {
	uint64_t *k;
	uint32_t *v;
	uint32_t cap, n;
};

struct entry {
	uint64_t hash;
	uint32_t node; /* 0: empty */
	uint32_t refs; /* REFS_BITS per tier */
};

#define GUESS_REFS_MAX 0x7fffu
struct guess {
	uint64_t until; /* 0: in the LRU */
	uint32_t node;
	uint16_t holder;
	uint16_t exact : 1;  /* of a text that events may confirm */
	uint16_t refs : 15;  /* up to GUESS_REFS_MAX */
	uint32_t next, prev; /* in the LRU: from the latest to the oldest */
};

struct holder {
	struct entry *map;
	uint32_t cap;
	uint32_t unreachable; /* blocks whose chain to the root is broken */
	_Atomic uint32_t blocks;
	_Atomic uint32_t guesses;
	uint32_t nslow; /* blocks that are in no GPU */
	uint32_t lru_head, lru_tail, lru_n;
	bool live;	 /* events flow */
	uint32_t *wheel; /* WHEEL_SLOTS list heads, made when first used */
};

/* Address space for all cells that the ceiling allows; pages come when they are touched. Lists of cells run through
 * the last 26 bits that a cell's writer owns (node.prev; the top of node_set.have). */
struct arena {
	void *mem;
	size_t bytes;
	uint32_t n, high, free; /* capacity, first never used, list */
};
enum { NODES, SETS };

struct limbo {
	uint64_t epoch;
	uint32_t cells[2];
	uint32_t ncells;
	struct table *tables;
	size_t bytes;
};

struct counters {
	_Atomic uint64_t nodes, keys, bytes;
	_Atomic uint64_t stored, removed, cleared, unknown_parent, evicted, speculated, expired, unreachable;
};

struct kvindex {
	/* readers */
	struct arena arena[2];
	_Atomic(struct table *) table;
	uint64_t pow[9]; /* of the secret base */
	uint64_t secret;
	unsigned nholders;
	_Atomic uint64_t active[SET_WORDS]; /* holders that have anything */
	_Atomic uint64_t real[SET_WORDS];   /* those that have blocks */
	_Atomic uint32_t nspec;		    /* speculative nodes */
	_Atomic uint32_t said;		    /* chunks ever speculated, modulo 2^32 */
	_Atomic uint32_t nslow;		    /* pairs of holder and block that are in no GPU */

	/* writer */
	struct qsbr *q;
	size_t max_bytes;
	struct limbo open, wait;
	uint32_t hand; /* of eviction */
	uint32_t pin;  /* the node that a put stands on: not to be freed */
	uint64_t ticked;
	struct pmap twice; /* pair → further engine hashes of that holder for that node */
	struct pmap slow;  /* pair → the fastest tier it is in, of those that are in no GPU */
	struct guess *guess;
	uint32_t nguess, guess_cap, guess_free;
	struct pmap guess_of; /* pair → index in guess[] */
	struct holder holder[INDEX_HOLDERS];
	struct counters st;
};

/* A prompt of a megabyte has 18,000 chunks, and each guess costs the writer some cache misses: far from the beginning
 * fewer are kept, what lies between two is a sixteenth of what stands before at most. In a short prompt it is four
 * chunks, some 60 tokens, which no engine takes a millisecond for; a guess at each chunk was a tenth of all that a
 * small request costs. All multiples of GUESS_GRID are kept. Steps are powers of two. */
#define GUESS_GRID 128
static inline uint32_t guess_step(uint64_t chunks)
{
	return chunks <= 128 ? 4 : chunks <= 512 ? 8 : chunks <= 2048 ? 32 : GUESS_GRID;
}

/* How many chunks a guess at the end of the first <chunks> stands for; 0: none is kept there. */
static inline uint32_t guess_weight(uint64_t chunks)
{
	uint32_t step = guess_step(chunks);

	return chunks & (step - 1) ? 0 : step;
}

/* The last place at or before <chunks> where one is kept; 0: none. */
static inline uint32_t guess_floor(uint32_t chunks)
{
	return chunks & ~(guess_step(chunks) - 1);
}

/* Single writer: no read-modify-write is needed. */
static inline void stat_add(_Atomic uint64_t *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline uint64_t stat_get(const _Atomic uint64_t *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

static inline void set_bit(_Atomic uint64_t *words, unsigned holder, bool on)
{
	uint64_t bit = UINT64_C(1) << (holder % 64), w = stat_get(&words[holder / 64]);

	if (!!(w & bit) != on)
		atomic_store_explicit(&words[holder / 64], w ^ bit, memory_order_release);
}

static inline void count_add(_Atomic uint32_t *c, uint32_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline struct node *node_at(const struct kvindex *x, uint32_t id)
{
	return (struct node *)x->arena[NODES].mem + id;
}

static inline uint32_t node_id(const struct kvindex *x, const struct node *n)
{
	return (uint32_t)(n - (struct node *)x->arena[NODES].mem);
}

static inline bool node_is_root(const struct kvindex *x, const struct node *n)
{
	return n->root == node_id(x, n);
}

/* --- hash.c --- */

/* The running hash of a text at any byte. */
struct state {
	uint64_t h, acc;
	uint64_t bytes;
};

static inline uint64_t mod61(unsigned __int128 v)
{
	uint64_t s = ((uint64_t)v & P61) + (uint64_t)(v >> 61);

	s = (s & P61) + (s >> 61);
	return s >= P61 ? s - P61 : s;
}

static inline uint64_t hash_word(const struct kvindex *x, uint64_t h, uint64_t w)
{
	return mod61((unsigned __int128)h * x->pow[1] + w);
}

void state_feed(const struct kvindex *x, struct state *s, const char *p, size_t n);

/* <h>/<acc> as in struct state: a partial word counts as a word filled up with zeros; the length tells them apart. */
static inline uint64_t index_key(const struct kvindex *x, uint64_t h, uint64_t acc, uint64_t bytes, uint64_t ns)
{
	if (bytes % 7)
		h = hash_word(x, h, acc);
	return mix64(h ^ mix64(ns + bytes * UINT64_C(0x9e3779b97f4a7c15)));
}

/* --- table.c --- */
void *big_alloc(size_t n); /* zeroed; NULL and errno */
void big_free(void *p, size_t n);

struct table *table_new(size_t slots);
void table_free(struct table *t);
int table_add(struct kvindex *x, uint64_t key, uint32_t id); /* another reference; 0 or -ENOMEM */
void table_del(struct kvindex *x, uint64_t key, uint32_t id);
int table_resize(struct kvindex *x); /* to what it holds */

static inline uint64_t table_home(const struct table *t, uint64_t key)
{
	return (uint64_t)(((unsigned __int128)(key << 48 | (key & TOMB) >> 16) * t->cap) >> 64);
}

/* Ids under <key>, one after the other: *at from table_home, 0 at the end. */
static inline uint32_t table_next(const struct table *t, uint64_t key, uint64_t *at)
{
	for (;;) {
		uint64_t v = atomic_load_explicit(&t->slot[*at], memory_order_acquire);

		if (!v)
			return 0;
		*at = *at + 1 == t->cap ? 0 : *at + 1;
		if ((v ^ key) >> ID_BITS == 0 && (v & ID_MASK))
			return v & ID_MASK;
	}
}

size_t pmap_more(const struct pmap *m); /* bytes that one more key makes it grow */
uint32_t *pmap_find(const struct pmap *m, uint64_t key);
uint32_t *pmap_put(struct pmap *m, uint64_t key); /* found or made with value 0; NULL: ENOMEM */
void pmap_del(struct pmap *m, uint64_t key);
void pmap_free(struct pmap *m);

static inline uint64_t pair_key(unsigned holder, uint32_t node)
{
	return (uint64_t)holder << ID_BITS | node; /* no node has id 0 */
}

/* --- node.c --- */
int arena_init(struct arena *a, size_t cells);
void arena_free(struct arena *a);
uint32_t root_find(const struct kvindex *x, uint64_t ns);
uint32_t root_get(struct kvindex *x, uint64_t ns); /* found or made; 0: ENOMEM */
uint32_t spec_get(struct kvindex *x, uint32_t root, uint64_t h, uint64_t bytes, bool make);
/* The child of <parent> that ends in <end>; keys[0 … nkeys) are those inside of it. 0: ENOMEM. */
uint32_t child_get(struct kvindex *x, uint32_t parent, const struct state *end, uint32_t tok_end, const uint64_t *keys,
		   unsigned nkeys);
void node_free_unused(struct kvindex *x, uint32_t id); /* and its ancestors, where nobody has them any more */

bool node_has(const struct kvindex *x, const struct node *n, unsigned holder);
bool node_held(const struct kvindex *x, const struct node *n); /* by anybody */
void node_holders(const struct kvindex *x, const struct node *n, uint64_t ret[SET_WORDS]);
int node_take(struct kvindex *x, struct node *n, unsigned holder); /* 0 or -ENOMEM */
void node_drop(struct kvindex *x, struct node *n, unsigned holder);
/* A tier or UNREACHED. Without memory for levels the fastest one is set. */
void node_set_level(struct kvindex *x, struct node *n, unsigned holder, unsigned level);
/* The holder's level at <n>, which it has, follows from the parent's and its own tier there; below <n> likewise. */
void level_follow(struct kvindex *x, struct node *n, unsigned holder);
/* The levels below <n> follow after the holder has lost it. */
void level_below(struct kvindex *x, struct node *top, unsigned holder);
void index_reclaim(struct kvindex *x);

/* How many multiples of INDEX_SPAN lie strictly between. */
static inline unsigned keys_between(uint64_t start, uint64_t end)
{
	return end > start ? (unsigned)((end - 1) / INDEX_SPAN - start / INDEX_SPAN) : 0;
}

/* --- evict.c --- */
/* Below the ceiling, with room for one more node that has <nkeys> keys inside, and for what has to grow for it: as a
 * block of <h>; NULL: as a guess. 0 or -ENOMEM. */
int index_room(struct kvindex *x, const struct holder *h, uint64_t nkeys);
bool index_has_room(const struct kvindex *x, const struct holder *h, uint64_t nkeys); /* the same without eviction */
bool index_fits(const struct kvindex *x, size_t more);				      /* without eviction */

/* --- put.c --- */
void entry_sweep(struct kvindex *x, unsigned holder, const uint64_t *gone); /* drop entries of these nodes (bitmap) */
size_t entry_more(const struct kvindex *x, const struct holder *h); /* bytes that one more block makes the maps grow */
void holder_active(struct kvindex *x, unsigned holder);
bool index_knows(const struct kvindex *x, unsigned holder, uint64_t hash);
/* The holder has the node under this hash, with these references; 0 or -ENOMEM. */
int index_restore_entry(struct kvindex *x, unsigned holder, uint64_t hash, uint32_t id, uint32_t refs);

/* --- tier.c --- */
enum index_tier tier_own(const struct kvindex *x, unsigned holder, uint32_t id);
/* The holder has <id>, and it is now in <tier> at best; levels follow. */
void tier_set(struct kvindex *x, unsigned holder, uint32_t id, enum index_tier tier);
void tier_forget(struct kvindex *x, unsigned holder, uint32_t id); /* levels do not follow */

/* --- guess.c --- */
size_t guess_more(const struct kvindex *x);		/* bytes that one more makes the lists grow */
unsigned guess_evict(struct kvindex *x, unsigned want); /* how many went */
void guess_expire(struct kvindex *x, uint64_t now);
void guess_clear(struct kvindex *x, unsigned holder);

#endif
