/* SPDX-License-Identifier: Apache-2.0
 * A sequence of ids is *viable* if some text's ids begin with it. Whether it is can be told by encoding its own text: a
 * word's tokens up to any token are what merging makes of the text up to there (no merge reaches over a place in a
 * longer text that it does not reach over in a shorter one that has both tokens). Only where words end depends on what
 * follows, in runs of white space above all; so a sequence that its own text does not give is tried with some text
 * behind it.
 *
 * Ids are taken by the handful behind the tail; mostly all of them are viable at once. Else they are added one by one,
 * and where viability ends there is a mark, and the sequence starts anew. A character whose bytes are not all there yet
 * is judged when they are.
 *
 * Hard places: behind an added token that cuts the raw text; and, with a byte-level pre-tokenizer, between a line end
 * and a visible ASCII character (but '/'), before a space behind something else, between a letter and a punctuation
 * mark or symbol (but '), at all of which a word ends in each of the known patterns whatever stands around it.
 */
#include "model/canon.h"

#include <errno.h>
#include <stdlib.h>

#include "model/encoder_int.h"
#include "model/unicode.h"

#define HANDFUL 32

struct canon {
	struct encoder *e;
	uint64_t *loose; /* bits: ids whose surroundings are not told by their text: added tokens in normal form */
	uint64_t *hard;	 /* bits: ids behind which nothing is joined */
	struct buf ids;	 /* the sequence: the tail and what came since */
	struct buf text, encoded; /* scratch */
};

static bool has(const uint64_t *bits, uint32_t id)
{
	return bits[id / 64] >> id % 64 & 1;
}

static void find_hard(struct canon *c)
{
	const struct vocab *v = c->e->v;
	const struct image_rules *r = &v->img->rules;
	bool rewrites = r->normal != NORMAL_NONE || r->prepend == PREPEND_NORMAL;

	for (uint32_t i = 0; i < v->nnodes; i++) {
		const struct trie_node *n = &v->nodes[i];
		const struct added *a = n->added ? &v->added[n->added - 1] : NULL;

		if (!a)
			continue;
		if (!a->raw && rewrites)
			c->loose[a->id / 64] |= UINT64_C(1) << a->id % 64;
		else if (!n->n)
			c->hard[a->id / 64] |= UINT64_C(1) << a->id % 64;
	}
}

struct canon *canon_new(struct vocab *v)
{
	struct canon *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->e = encoder_new(v);
	c->hard = c->e ? calloc(vocab_size(v) / 64 + 1, sizeof(*c->hard)) : NULL;
	c->loose = c->e ? calloc(vocab_size(v) / 64 + 1, sizeof(*c->loose)) : NULL;
	if (!c->hard || !c->loose) {
		canon_free(c);
		return NULL;
	}
	find_hard(c);
	return c;
}

void canon_free(struct canon *c)
{
	if (!c)
		return;
	encoder_free(c->e);
	free(c->hard);
	free(c->loose);
	buf_free(&c->ids);
	buf_free(&c->text);
	buf_free(&c->encoded);
	free(c);
}

static uint32_t *ids_of(struct canon *c, size_t *ret_n)
{
	*ret_n = buf_len(&c->ids) / sizeof(uint32_t);
	return (uint32_t *)(void *)buf_data(&c->ids);
}

static void ids_drop(struct canon *c, size_t n)
{
	buf_consume(&c->ids, n * sizeof(uint32_t));
}

/* Does c->text, and what is behind it, begin with these ids? 1, 0 or -ENOMEM. */
static int begins(struct canon *c, const char *behind, const uint32_t *ids, size_t n)
{
	size_t len = buf_len(&c->text);
	int r = buf_puts(&c->text, behind);

	c->encoded.len = c->encoded.off = 0;
	if (!r)
		r = encoder_inside(c->e, buf_str(&c->text), &c->encoded);
	c->text.len -= buf_len(&c->text) - len;
	if (r)
		return r == -ENOMEM ? r : 0;
	return buf_len(&c->encoded) >= n * sizeof(*ids) && memcmp(buf_data(&c->encoded), ids, n * sizeof(*ids)) == 0;
}

/* 1, 0 or -ENOMEM. <quick>: only by its own text. */
static int viable(struct canon *c, size_t n, bool quick)
{
	/* The first is nobody's letter, digit or space, and merges with nothing. */
	static const char *const behind[] = { "\xf3\xb0\x80\x80", "\n", "a", " ", "A", "1", "VE", "LL", "RE" };
	const uint32_t *ids = (const uint32_t *)(const void *)buf_data(&c->ids);
	bool cut;
	int r;

	c->text.len = c->text.off = 0;
	r = vocab_text(c->e->v, ids, n, &c->text);
	if (r)
		return r;
	if (utf8_valid(buf_data(&c->text), buf_len(&c->text), &cut) != buf_len(&c->text))
		return cut && !quick;
	r = begins(c, "", ids, n);
	if (r == 1 && buf_len(&c->encoded) != n * sizeof(*ids))
		r = 0;
	for (size_t i = 0; r == 0 && !quick && i < sizeof(behind) / sizeof(behind[0]); i++)
		r = begins(c, behind[i], ids, n);
	return r;
}

bool hard_between(const struct image_rules *r, uint32_t before, uint32_t after)
{
	if (r->characters)
		return after == ' ' && before != ' ' && (r->spaces_cut || r->scheme == SCHEME_SPACES);
	if (r->scheme == SCHEME_WHOLE)
		return false;
	if (after == ' ')
		return !(unicode_class(before) & CLASS_SPACE);
	if (before == '\n' || before == '\r')
		return after > ' ' && after < 0x7f && after != '/';
	return unicode_class(before) & CLASS_L && unicode_class(after) & (CLASS_P | CLASS_S) && after != '\'';
}

/* Is the place between two tokens hard? Their characters may be cut. */
static bool hard_tokens(struct canon *c, uint32_t left, uint32_t right)
{
	struct str a = vocab_token(c->e->v, left), b = vocab_token(c->e->v, right);
	const unsigned char *end = (const unsigned char *)a.p + a.n, *p;
	bool cut;
	unsigned len;

	if (has(c->hard, left))
		return true;
	if (!a.n || !b.n)
		return false;
	p = char_before(end, (const unsigned char *)a.p);
	if (utf8_valid((const char *)p, (size_t)(end - p), &cut) != (size_t)(end - p) || !utf8_valid(b.p, b.n, &cut))
		return false;
	return hard_between(&c->e->v->img->rules, utf8_char(p, &len), utf8_char((const unsigned char *)b.p, &len));
}

/* The first place in c->text from which the text's end may be the beginning of an added token. */
static size_t added_from(struct canon *c)
{
	const struct vocab *v = c->e->v;
	const unsigned char *p = (const unsigned char *)buf_data(&c->text);
	size_t n = buf_len(&c->text), k;

	for (size_t i = 0; i < n; i++)
		for (unsigned root = 0; root < 512; root += 256) {
			uint32_t at = v->root[root + p[i]];

			for (k = i + 1; at && k < n; k++)
				at = trie_next(v, &v->nodes[at], p[k]);
			if (at)
				return i;
		}
	return n;
}

/* Leave only what is behind the last hard place; c->text is the text of c->ids. */
static void settle(struct canon *c)
{
	size_t n, at = buf_len(&c->text), limit;
	const uint32_t *ids = ids_of(c, &n);

	if (n && has(c->hard, ids[n - 1])) {
		ids_drop(c, n);
		return;
	}
	limit = n ? added_from(c) : 0;
	for (size_t i = n; i > 1; i--) {
		at -= vocab_token(c->e->v, ids[i - 1]).n;
		if (at <= limit && hard_tokens(c, ids[i - 2], ids[i - 1])) {
			ids_drop(c, i - 1);
			return;
		}
	}
}

/* Behind an unknown beginning, of which c->ids has the last one: how many ids are before the first hard place. False:
 * there is none, c->ids is the last one again. */
static int find_start(struct canon *c, const uint32_t *ids, size_t n, size_t *ret, bool *ret_found)
{
	size_t have, i = 0;
	const uint32_t *last = ids_of(c, &have);

	if (!have || !hard_tokens(c, *last, ids[0]))
		for (i = 1; i < n && !hard_tokens(c, ids[i - 1], ids[i]); i++)
			;
	ids_drop(c, have);
	*ret = i;
	*ret_found = i < n || has(c->hard, ids[n - 1]);
	return *ret_found ? 0 : buf_put(&c->ids, &ids[n - 1], sizeof(*ids));
}

static int put_text(struct canon *c, uint32_t id, struct buf *text)
{
	struct str s = vocab_token(c->e->v, id);

	return buf_put(text, s.p, s.n);
}

/* The slow way: one after the other. Marks, or -ENOMEM. */
static int one_by_one(struct canon *c, const uint32_t *ids, size_t n, struct buf *text)
{
	int marks = 0, r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		size_t have = buf_len(&c->ids) / sizeof(*ids) + 1;

		r = buf_put(&c->ids, &ids[i], sizeof(*ids));
		if (!r)
			r = viable(c, have, false);
		if (r == 0) {
			ids_drop(c, have - 1);
			r = buf_put(text, CANON_MARK, 1);
			marks++;
			/* Alone it may be no beginning either: then the next one is. */
			if (!r && have > 1)
				r = viable(c, 1, false);
			if (r == 0)
				ids_drop(c, buf_len(&c->ids) / sizeof(*ids));
		}
		r = r < 0 ? r : put_text(c, ids[i], text);
		settle(c);
	}
	return r ? r : marks;
}

static int handful(struct canon *c, const uint32_t *ids, size_t n, struct buf *text)
{
	size_t have = buf_len(&c->ids);
	int r = buf_put(&c->ids, ids, n * sizeof(*ids));

	if (!r)
		r = viable(c, have / sizeof(*ids) + n, true);
	if (r < 0)
		return r;
	if (r == 0) {
		c->ids.len -= n * sizeof(*ids);
		return one_by_one(c, ids, n, text);
	}
	r = vocab_text(c->e->v, ids, n, text);
	settle(c);
	return r;
}

/* How many of the next ids are judged together. */
static size_t step_of(const struct canon *c, const uint32_t *ids, size_t n)
{
	size_t i = 0;

	while (i < n && i < HANDFUL && !has(c->loose, ids[i]))
		i++;
	return i;
}

/* No hard place for long: of what there is only the last one is kept. */
static bool lose(struct canon *c)
{
	size_t have = buf_len(&c->ids) / sizeof(uint32_t);

	if (have <= CANON_TAIL)
		return false;
	ids_drop(c, have - 1);
	return true;
}

static int judge(struct canon *c, bool *unknown, const uint32_t *ids, size_t n, struct buf *text)
{
	size_t step;
	int marks = 0, r = 0;

	for (size_t i = 0; i < n && r >= 0; i += step) {
		if (*unknown) {
			bool found;

			r = find_start(c, ids + i, n - i, &step, &found);
			*unknown = !found;
			r = r ? r : vocab_text(c->e->v, ids + i, step, text);
			continue;
		}
		step = step_of(c, ids + i, n - i);
		if (step) {
			r = handful(c, ids + i, step, text);
			marks += r > 0 ? r : 0;
			*unknown = lose(c);
		} else {
			step = 1;
			ids_drop(c, buf_len(&c->ids) / sizeof(*ids));
			r = buf_put(&c->ids, &ids[i], sizeof(*ids));
			r = r ? r : put_text(c, ids[i], text);
			*unknown = true;
		}
	}
	return r < 0 ? r : marks;
}

int canon_text(struct canon *c, struct canon_tail *tail, const uint32_t *ids, size_t n, struct buf *text)
{
	size_t before = buf_len(text);
	bool unknown = tail->unknown;
	int r;

	for (size_t i = 0; i < n; i++)
		if (!vocab_token(c->e->v, ids[i]).p)
			return -ERANGE;
	c->ids.len = c->ids.off = 0;
	r = buf_put(&c->ids, tail->id, tail->n * sizeof(*ids));
	if (!r)
		r = judge(c, &unknown, ids, n, text);
	if (r < 0) {
		text->len -= buf_len(text) - before;
		return r;
	}
	tail->unknown = unknown;
	tail->n = (uint16_t)(buf_len(&c->ids) / sizeof(*ids));
	if (tail->n)
		memcpy(tail->id, buf_data(&c->ids), tail->n * sizeof(*ids));
	return r;
}
