/* SPDX-License-Identifier: Apache-2.0
 * The one form of a vocabulary, in memory and in the compiled file: a head, then parts without pointers.
 *
 * What the encoder needs is in the same image; where the tokenizer has a part that it does not know, IMG_WHY names it
 * and the other encoder parts are empty. Everything is little-endian and in units of the host: a file of another schema
 * or byte order is compiled anew. Readers trust an image only after image_check, which looks at every index in it.
 */
#ifndef KVS_MODEL_VOCAB_INT_H
#define KVS_MODEL_VOCAB_INT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "model/vocab.h"

#define IMAGE_MAGIC  "KVSVOCAB"
#define IMAGE_SCHEMA 3
#define IDS_MAX	     (1u << 24)
#define NO_ID	     UINT32_MAX
#define HOLE	     UINT32_C(0x80000000) /* in an offset: the tokenizer does not have that id */

enum image_part {
	IMG_OFF, /* uint32_t[ids + 1]: token i is bytes off[i] … off[i + 1] of the text; or HOLE */
	IMG_TEXT,
	IMG_PREFIX, /* text before a completions prompt */
	IMG_WHY,    /* why there is no encoder */
	IMG_NAME,   /* of the directory that it was made from */
	IMG_BEFORE, /* uint32_t[]: ids that the post-processor puts before a text */
	IMG_AFTER,  /* uint32_t[] */
	IMG_BYTES,  /* uint32_t[256]: the symbol of a byte, NO_ID for one that no UTF-8 has */
	IMG_CHARS,  /* struct char_slot[2^k]: symbols of characters (SentencePiece) */
	IMG_MERGES, /* struct merge_slot[2^k] */
	IMG_WORDS,  /* struct word_slot[2^k]: words that are one token */
	IMG_ADDED,  /* struct added[] */
	IMG_ROOT,   /* uint32_t[2][256]: the node behind a first byte, 0: none. [0]: tokens matched in the raw text */
	IMG_NODES,  /* struct trie_node[], 0 is unused */
	IMG_EDGES,  /* struct trie_edge[], a node's by byte */
	IMG_PARTS
};

struct char_slot {
	uint32_t c, id; /* NO_ID: empty */
};

struct merge_slot {
	uint32_t left, right, rank;
	uint32_t id; /* NO_ID: empty */
};

struct word_slot {
	uint32_t tag; /* the upper half of its hash */
	uint32_t id;  /* NO_ID: empty */
};

enum { ADDED_LSTRIP = 1, ADDED_RSTRIP = 2 };
struct added {
	uint32_t id, flags;
	uint32_t raw; /* it cuts the raw text */
};

struct trie_node {
	uint32_t edges, n;
	uint32_t added; /* its index + 1; 0: no token ends here */
};

struct trie_edge {
	uint32_t byte, node;
};

/* How text is cut into words before it is merged. */
enum scheme {
	SCHEME_WHOLE,  /* not at all */
	SCHEME_SPACES, /* before each space */
	SCHEME_GPT2,
	SCHEME_LLAMA, /* Llama 3's and Qwen's pattern: digits, marks_are_letters */
	SCHEME_O200K, /* digits, contractions */
	SCHEME_DEEPSEEK,
	SCHEME_N
};

enum normal { NORMAL_NONE, NORMAL_NFC, NORMAL_SPACES /* U+2581 and the space are one */, NORMAL_N };
enum prepend { PREPEND_NEVER, PREPEND_NORMAL, PREPEND_FIRST, PREPEND_ALWAYS, PREPEND_N };

struct image_rules {
	uint8_t scheme, normal, prepend;
	uint8_t digits;		   /* of a run of digits: at most so many in one word */
	uint8_t marks_are_letters; /* \p{M} beside \p{L} */
	uint8_t contractions;	   /* behind a word */
	uint8_t characters;	   /* symbols are characters, bytes only where there is none */
	uint8_t ignore_merges;	   /* a word that is a token is that token, whatever merging makes of it */
	uint8_t spaces_cut;	   /* no merge reaches over the place before a space that follows something else */
	uint8_t spaces;		   /* the model's text has spaces where its spelling has U+2581 */
	uint8_t unused[6];
};

struct image {
	char magic[8];
	uint32_t schema, ids;
	uint64_t bytes;	    /* of all */
	uint64_t sum;	    /* of everything behind this field */
	uint64_t source[2]; /* of the files that it was made from */
	struct image_rules rules;
	struct {
		uint64_t off, bytes;
	} part[IMG_PARTS];
};

struct vocab {
	atomic_uint refs;
	const struct image *img;
	bool mapped;
	/* into the image */
	const uint32_t *off;
	const char *text;
	const uint32_t *bytes;
	const struct char_slot *chars;
	const struct merge_slot *merges;
	const struct word_slot *words;
	const struct added *added;
	const uint32_t *root;
	const struct trie_node *nodes;
	const struct trie_edge *edges;
	uint32_t chars_mask, merges_mask, words_mask, nadded, nnodes;
};

static inline struct str image_str(const struct image *g, enum image_part p)
{
	return (struct str){ (const char *)g + g->part[p].off, g->part[p].bytes };
}

static inline uint32_t merge_hash(uint32_t left, uint32_t right)
{
	uint64_t x = ((uint64_t)left << 32 | right) * UINT64_C(0x9e3779b97f4a7c15);

	return (uint32_t)(x >> 32) ^ (uint32_t)(x >> 51);
}

static inline uint32_t char_hash(uint32_t c)
{
	return (c * UINT32_C(0x9e3779b1)) >> 12;
}

/* Of a word; short ones are the rule. */
static inline uint64_t word_hash(const char *p, size_t n)
{
	const uint64_t k = UINT64_C(0x9fb21c651e98df25);
	uint64_t h = n * UINT64_C(0xff51afd7ed558ccd), a, b;

	for (; n > 16; p += 8, n -= 8) {
		memcpy(&a, p, 8);
		h = (h ^ a) * k;
		h ^= h >> 29;
	}
	if (n >= 8) {
		memcpy(&a, p, 8);
		memcpy(&b, p + n - 8, 8);
	} else if (n >= 4) {
		uint32_t lo, hi;

		memcpy(&lo, p, 4);
		memcpy(&hi, p + n - 4, 4);
		a = lo;
		b = hi;
	} else {
		a = n ? (unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << 8 : 0;
		b = n ? (unsigned char)p[n - 1] : 0;
	}
	h = (h ^ a) * k;
	h = (h ^ h >> 32 ^ b) * k;
	return h ^ h >> 32;
}

/* --- image.c --- */
/* <part>: what goes into the image, in the order of enum image_part. malloc'ed; NULL and errno. */
struct image *image_make(const struct image_rules *rules, uint32_t ids, const uint64_t source[2],
			 const struct str part[IMG_PARTS]);
const char *image_check(const struct image *g, size_t bytes);  /* NULL, or what is wrong with it */
struct vocab *vocab_adopt(const struct image *g, bool mapped); /* takes it; NULL and errno: it is freed */
void image_release(const struct image *g, bool mapped);
void image_sum(const void *p, size_t n, uint64_t ret[2]);

/* --- vocab_load.c --- */
struct image *image_compile(const char *dir, const uint64_t source[2], char *err, size_t err_len); /* NULL and errno */

#endif
