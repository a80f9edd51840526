/* SPDX-License-Identifier: Apache-2.0
 * The order of things, which is part of the result:
 *   1. the raw text is split at added tokens that are not `normalized`, leftmost and longest first;
 *   2. each piece between them is normalized,
 *   3. and split at the added tokens that are `normalized`;
 *   4. each piece between those gets its space in front, where the tokenizer puts one, is cut into words, and each word
 *      is merged. Look-ahead ends at the piece.
 *
 * In a SentencePiece model a space and U+2581 are one and the same. Here both are a space, in the text and in the
 * tables, which saves two bytes of three.
 */
#include "model/encoder.h"

#include <errno.h>
#include <stdlib.h>

#include "model/encoder_int.h"
#include "model/unicode.h"

#define TEXT_MAX (UINT32_C(1) << 30)

const char *vocab_no_encoder(const struct vocab *v)
{
	struct str why = image_str(v->img, IMG_WHY);

	return why.n ? why.p : NULL; /* it has a NUL */
}

static struct encoder *new_with(struct vocab *v, unsigned cache_bits)
{
	struct encoder *e;

	if (vocab_no_encoder(v)) {
		errno = EOPNOTSUPP;
		return NULL;
	}
	unicode_init();
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->cache_shift = 64 - cache_bits;
	e->cache = calloc(1u << cache_bits, sizeof(*e->cache));
	if (!e->cache) {
		free(e);
		return NULL;
	}
	e->v = vocab_ref(v);
	return e;
}

struct encoder *encoder_new(struct vocab *v)
{
	return new_with(v, CACHE_BITS);
}

struct encoder *encoder_new_small(struct vocab *v)
{
	return new_with(v, SMALL_BITS);
}

void encoder_free(struct encoder *e)
{
	if (!e)
		return;
	vocab_unref(e->v);
	free(e->cache);
	buf_free(&e->normal);
	buf_free(&e->spaced);
	buf_free(&e->work);
	buf_free(&e->around);
	free(e);
}

int put_spaced(struct buf *out, const char *p, size_t n)
{
	const char *hit;
	int r = 0;

	while (!r && (hit = memmem(p, n, UNDERSCORE, 3))) {
		r = buf_put(out, p, (size_t)(hit - p));
		if (!r)
			r = buf_put(out, " ", 1);
		n -= (size_t)(hit + 3 - p);
		p = hit + 3;
	}
	return r ? r : buf_put(out, p, n);
}

/* Step 4. <first>: it begins where the text begins. */
static void put_piece(struct encoder *e, const char *p, size_t n, bool first)
{
	const struct image_rules *r = &e->v->img->rules;
	bool convert = r->spaces && r->normal != NORMAL_SPACES && memmem(p, n, UNDERSCORE, 3);
	bool lead = r->prepend == PREPEND_ALWAYS || (r->prepend == PREPEND_FIRST && first);

	lead &= !e->inside && *p != ' ' && !(convert && n >= 3 && memcmp(p, UNDERSCORE, 3) == 0);
	if (convert || lead) {
		buf_consume(&e->spaced, buf_len(&e->spaced));
		if (lead)
			e->err = buf_put(&e->spaced, " ", 1);
		if (!e->err)
			e->err = convert ? put_spaced(&e->spaced, p, n) : buf_put(&e->spaced, p, n);
		if (e->err)
			return;
		p = buf_data(&e->spaced);
		n = buf_len(&e->spaced);
	}
	scan_piece(e, p, n);
}

const struct added *find_added(const struct vocab *v, const uint32_t *root, const char *text, size_t i, size_t n,
			       size_t *ret_start, size_t *ret_end)
{
	const unsigned char *p = (const unsigned char *)text;

	for (; i < n; i++) {
		const struct added *hit = NULL;
		uint32_t at = root[p[i]];

		for (size_t k = i + 1; at; k++) {
			const struct trie_node *node = &v->nodes[at];

			if (node->added) {
				hit = &v->added[node->added - 1];
				*ret_end = k;
			}
			at = k < n ? trie_next(v, node, p[k]) : 0;
		}
		if (hit) {
			*ret_start = i;
			return hit;
		}
	}
	return NULL;
}

/* Spaces before <at> down to <floor>; behind it up to <n>. */
static size_t spaces_before(const char *p, size_t floor, size_t at)
{
	while (at > floor) {
		size_t i = at - 1;
		unsigned len;

		while (i > floor && ((unsigned char)p[i] & 0xc0) == 0x80)
			i--;
		if (!(unicode_class(utf8_char((const unsigned char *)p + i, &len)) & CLASS_SPACE))
			break;
		at = i;
	}
	return at;
}

static size_t spaces_behind(const char *p, size_t at, size_t n)
{
	unsigned len;

	for (; at < n; at += len)
		if (!(unicode_class(utf8_char((const unsigned char *)p + at, &len)) & CLASS_SPACE))
			break;
	return at;
}

static void put_normal(struct encoder *e, const char *p, size_t n, bool first);

/* Split at added tokens: the raw text's (<raw>), or those of a piece in normal form. */
static void split(struct encoder *e, const char *p, size_t n, bool first, bool raw)
{
	const uint32_t *root = e->v->root + (raw ? 0 : 256);
	const struct added *hit;
	size_t from = 0, search = 0, start = n, end = n;

	while (!e->err) {
		hit = e->v->nadded ? find_added(e->v, root, p, search, n, &start, &end) : NULL;
		search = end; /* before more of it is stripped */
		if (!hit) {
			start = n;
		} else {
			if (hit->flags & ADDED_LSTRIP)
				start = spaces_before(p, from, start);
			if (hit->flags & ADDED_RSTRIP)
				end = spaces_behind(p, end, n);
		}
		if (start > from && raw)
			put_normal(e, p + from, start - from, first && from == 0);
		else if (start > from)
			put_piece(e, p + from, start - from, first && from == 0);
		if (!hit || e->err)
			break;
		e->err = buf_put(e->out, &hit->id, sizeof(hit->id));
		from = end;
	}
}

/* Steps 2 and 3. */
static void put_normal(struct encoder *e, const char *p, size_t n, bool first)
{
	const struct image_rules *r = &e->v->img->rules;
	bool nfc = r->normal == NORMAL_NFC && !nfc_inert(p, n);
	bool convert = r->normal == NORMAL_SPACES && memmem(p, n, UNDERSCORE, 3);
	bool lead = r->prepend == PREPEND_NORMAL && !e->inside;

	if (nfc || convert || lead) {
		buf_consume(&e->normal, buf_len(&e->normal));
		if (lead)
			e->err = buf_put(&e->normal, " ", 1);
		if (!e->err)
			e->err = nfc	   ? nfc_put(&e->normal, p, n)
				 : convert ? put_spaced(&e->normal, p, n)
					   : buf_put(&e->normal, p, n);
		if (e->err)
			return;
		p = buf_data(&e->normal);
		n = buf_len(&e->normal);
	}
	split(e, p, n, first, false);
}

static void put_ids(struct encoder *e, struct str ids)
{
	if (!e->err)
		e->err = buf_put(e->out, ids.p, ids.n);
}

static int encode(struct encoder *e, struct str text, bool special, struct buf *ids)
{
	size_t before = buf_len(ids);
	bool cut;

	if (text.n > TEXT_MAX)
		return -EFBIG;
	if (utf8_valid(text.p, text.n, &cut) != text.n)
		return -EILSEQ;
	e->out = ids;
	e->err = 0;
	if (special)
		put_ids(e, image_str(e->v->img, IMG_BEFORE));
	split(e, text.p, text.n, true, true);
	if (special)
		put_ids(e, image_str(e->v->img, IMG_AFTER));
	if (e->err)
		ids->len -= buf_len(ids) - before;
	return e->err;
}

int encoder_encode(struct encoder *e, struct str text, bool special, struct buf *ids)
{
	e->inside = false;
	return encode(e, text, special, ids);
}

int encoder_inside(struct encoder *e, struct str text, struct buf *ids)
{
	e->inside = true;
	return encode(e, text, false, ids);
}
