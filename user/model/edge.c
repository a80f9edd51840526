/* SPDX-License-Identifier: Apache-2.0
 * What a prompt's own tokenization says of the blocks that others have left.
 *
 * A block's last token was chosen by what followed it. Where the next prompt goes on otherwise ("Get" + "Typed" behind
 * a block that ends in "GetType"), the text is the same up to the block's end and the tokens are not, so the engine
 * does not use the block. No event can tell: it is the prompt that decides. But a word's tokens up to any token are
 * what merging makes of the text up to there; so they agree exactly where the prompt has an end of a token at the
 * block's end, and for that only the words around it need to be encoded.
 *
 * And a text is indexed as ids give it back: what the tokenizer rewrites must be rewritten before it is looked up.
 */
#include <errno.h>

#include "model/encoder_int.h"
#include "model/unicode.h"

#define AROUND	  256 /* bytes on both sides in which a hard place is looked for */
#define ADDED_MAX 64  /* of an added token that is expected to reach over a place */

/* Does an added token reach over <at>? */
static bool in_added(const struct vocab *v, const char *p, size_t n, size_t at)
{
	size_t from = at > ADDED_MAX ? at - ADDED_MAX : 0, start, end;

	if (n > at + ADDED_MAX)
		n = at + ADDED_MAX;

	for (unsigned root = 0; root < 512; root += 256)
		for (size_t i = from; i < at; i = start + 1) {
			if (!find_added(v, v->root + root, p, i, n, &start, &end) || start >= at)
				break;
			if (end > at)
				return true;
		}
	return false;
}

static bool is_start(unsigned char c)
{
	return (c & 0xc0) != 0x80;
}

/* A place where what stands before has nothing to do with what follows. */
static bool is_hard(const struct vocab *v, const char *text, size_t n, size_t at)
{
	const unsigned char *p = (const unsigned char *)text;
	const unsigned char *before;
	unsigned len;

	if (at == 0 || at == n)
		return true;
	if (!is_start(p[at]))
		return false;
	before = char_before(p + at, p);
	return hard_between(&v->img->rules, utf8_char(before, &len), utf8_char(p + at, &len)) &&
	       !(v->nadded && in_added(v, text, n, at));
}

bool encoder_cuts(struct encoder *e, struct str text, size_t at)
{
	const struct vocab *v = e->v;
	size_t lo = at > AROUND ? at - AROUND : 0, hi = at + AROUND < text.n ? at + AROUND : text.n, from, to,
	       bytes = 0;
	struct buf *ids = &e->around;
	const uint32_t *id;
	bool cut, known;

	while (lo < at && !is_start((unsigned char)text.p[lo]))
		lo++;
	while (hi < text.n && hi > at && !is_start((unsigned char)text.p[hi]))
		hi--;
	/* The window as a text of its own: no place outside of it is looked at. */
	text = (struct str){ text.p + lo, hi - lo };
	at -= lo;
	if (utf8_valid(text.p, text.n, &cut) != text.n)
		return true;
	for (from = at; from && !is_hard(v, text.p, text.n, from); from--)
		;
	if (from == at || (!from && lo))
		return true;
	for (to = at + 1; to < text.n && !is_hard(v, text.p, text.n, to); to++)
		;
	ids->len = ids->off = 0;
	if (encoder_inside(e, (struct str){ text.p + from, to - from }, ids))
		return true;
	id = (const uint32_t *)(const void *)buf_data(ids);
	known = false;
	for (size_t i = 0; i < buf_len(ids) / sizeof(*id); i++) {
		bytes += vocab_token(v, id[i]).n;
		known |= bytes == at - from;
	}
	return known || bytes != to - from;
}

/* --- the form that ids give back --- */

/* U+2581 begins with 0xe2, so it is among those that NFC may change. */
bool text_may_be_rewritten(const char *p, size_t n)
{
	return nfc_may_change(p, n);
}

static int put_piece(const struct image_rules *r, const char *p, size_t n, struct buf *to)
{
	return r->normal == NORMAL_NFC ? nfc_put(to, p, n) : put_spaced(to, p, n);
}

int vocab_rewrite(const struct vocab *v, struct str text, struct buf *ret)
{
	const struct image_rules *r = &v->img->rules;
	size_t before = buf_len(ret), from = 0, start, end;
	bool cut;
	int e = 0;

	unicode_init();
	if (r->normal == NORMAL_NFC ? utf8_valid(text.p, text.n, &cut) != text.n || nfc_inert(text.p, text.n)
				    : !r->spaces || !memmem(text.p, text.n, UNDERSCORE, 3))
		return 0;
	/* Between the added tokens that cut the raw text. */
	while (!e && v->nadded && find_added(v, v->root, text.p, from, text.n, &start, &end)) {
		e = put_piece(r, text.p + from, start - from, ret);
		if (!e)
			e = buf_put(ret, text.p + start, end - start);
		from = end;
	}
	if (!e)
		e = put_piece(r, text.p + from, text.n - from, ret);
	if (e) {
		ret->len -= buf_len(ret) - before;
		return e;
	}
	return 1;
}
