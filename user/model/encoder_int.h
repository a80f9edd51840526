/* SPDX-License-Identifier: Apache-2.0
 * encoder.c: the order of things, added tokens, normalization. scan.c: text → words. bpe.c: word → tokens.
 */
#ifndef KVS_MODEL_ENCODER_INT_H
#define KVS_MODEL_ENCODER_INT_H

#include "model/encoder.h"
#include "model/vocab_int.h"

#define CACHE_BITS  15
#define SMALL_BITS  8
#define CACHED_TEXT 46
#define CACHED_IDS  20

/* Two cache lines, of which short words need the first. */
struct cached {
	uint8_t len; /* of the word; 0: empty */
	uint8_t n;
	char text[CACHED_TEXT];
	uint32_t id[CACHED_IDS];
};
_Static_assert(sizeof(struct cached) == 128, "two cache lines");

struct encoder {
	struct vocab *v;
	struct cached *cache;
	unsigned cache_shift;
	struct buf *out;   /* ids */
	struct buf normal; /* a piece's normal form */
	struct buf spaced; /* and with its space in front */
	struct buf work;   /* of one long word */
	struct buf around; /* ids of the words around a place */
	int err;	   /* the first failure of a call */
	bool inside;	   /* the text is a part of one: no space is put before it */
};

static inline const unsigned char *char_before(const unsigned char *p, const unsigned char *start)
{
	do
		p--;
	while (p > start && (*p & 0xc0) == 0x80);
	return p;
}

static inline uint32_t trie_next(const struct vocab *v, const struct trie_node *node, unsigned char byte)
{
	uint32_t lo = node->edges, hi = lo + node->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (v->edges[mid].byte == byte)
			return v->edges[mid].node;
		if (v->edges[mid].byte < byte)
			lo = mid + 1;
		else
			hi = mid;
	}
	return 0;
}

#define UNDERSCORE "\xe2\x96\x81" /* U+2581 */

/* --- encoder.c --- */
int put_spaced(struct buf *out, const char *p, size_t n); /* U+2581 → space */
/* The first added token at or behind <i>; *ret_end: where it ends. NULL: none. */
const struct added *find_added(const struct vocab *v, const uint32_t *root, const char *text, size_t i, size_t n,
			       size_t *ret_start, size_t *ret_end);
/* As encoder_encode without specials, of text from the middle of one, in the form that ids give back. */
int encoder_inside(struct encoder *e, struct str text, struct buf *ids);

/* --- canon.c --- */
/* Between these characters a word ends in each of the known patterns, whatever stands around them. */
bool hard_between(const struct image_rules *r, uint32_t before, uint32_t after);

/* --- bpe.c --- */
/* Merge one word, without cache and table of words. Appends to <ids>. 0, -ENOMEM, -EILSEQ (a byte without symbol). */
int bpe_merge(const struct vocab *v, struct buf *work, const char *p, size_t n, struct buf *ids);
/* The id of a word that is one token, or NO_ID. */
uint32_t bpe_word(const struct vocab *v, const char *p, size_t n, uint64_t hash);
void bpe_put(struct encoder *e, const char *p, size_t n);

/* --- scan.c --- */
/* Cut a piece into words and put each. */
void scan_piece(struct encoder *e, const char *p, size_t n);

#endif
