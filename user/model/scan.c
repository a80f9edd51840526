/* SPDX-License-Identifier: Apache-2.0
 * Text → words: what the regular expressions of known tokenizers do, by hand. Each function is one pattern (the pattern
 * stands above it, its alternatives in the order of the code) and gives the end of the match at <p>. Every pattern but
 * DeepSeek's matches something at every place, so words lie end to end.
 *
 * The work is linear: a run of spaces is looked through at most three times, since behind a match nothing of it is left
 * or no line end is in what is left.
 */
#include "model/encoder_int.h"
#include "model/unicode.h"

typedef unsigned char u8;

#define END 0x100 /* the class of the text's end: none of the others */

static inline unsigned class_at(const u8 *p, const u8 *end, unsigned *ret_len)
{
	if (p >= end) {
		*ret_len = 0;
		return END;
	}
	return unicode_class(utf8_char(p, ret_len));
}

static inline const u8 *run_of(const u8 *p, const u8 *end, unsigned mask)
{
	unsigned len = 1;

	for (; p < end; p += len)
		if (!(unicode_class(utf8_char(p, &len)) & mask))
			break;
	return p;
}

static inline const u8 *run_not(const u8 *p, const u8 *end, unsigned mask)
{
	unsigned len = 1;

	for (; p < end; p += len)
		if (unicode_class(utf8_char(p, &len)) & mask)
			break;
	return p;
}

static const u8 *run_ends(const u8 *p, const u8 *end, bool slash)
{
	while (p < end && (*p == '\n' || *p == '\r' || (slash && *p == '/')))
		p++;
	return p;
}

static const u8 *one_of(const u8 *p, const u8 *end, unsigned mask)
{
	unsigned len;

	return class_at(p, end, &len) & mask ? p + len : p;
}

/* \p{N}{1,max} */
static const u8 *digits(const u8 *p, const u8 *end, unsigned max)
{
	for (const u8 *q; max-- && (q = one_of(p, end, CLASS_N)) != p;)
		p = q;
	return p;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ at a space. */
static const u8 *spaces(const u8 *p, const u8 *end, bool lines)
{
	const u8 *q = run_of(p, end, CLASS_SPACE), *r = q;

	while (lines && r > p && r[-1] != '\n' && r[-1] != '\r')
		r--;
	if (lines && r > p)
		return r;
	if (q == end)
		return q;
	for (r = q - 1; (*r & 0xc0) == 0x80; r--)
		;
	return r > p ? r : q;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d); U+017F is an s too. */
static const u8 *contraction(const u8 *p, const u8 *end, bool fold)
{
	unsigned a, b;

	if (end - p < 2 || *p != '\'')
		return p;
	a = fold && p[1] < 0x80 ? p[1] | 0x20u : p[1];
	if (a == 's' || a == 't' || a == 'm' || a == 'd')
		return p + 2;
	if (end - p < 3)
		return p;
	if (fold && p[1] == 0xc5 && p[2] == 0xbf)
		return p + 3;
	b = fold ? p[2] | 0x20u : p[2];
	return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? p + 3 : p;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static const u8 *word_gpt2(const struct image_rules *r, const u8 *p, const u8 *end)
{
	const u8 *q = contraction(p, end, false);
	unsigned c, len;

	if (q > p)
		return q;
	q = p + (*p == ' ');
	c = class_at(q, end, &len);
	if (c & (CLASS_L | CLASS_N))
		return run_of(q, end, c & (CLASS_L | CLASS_N));
	if (!(c & (CLASS_SPACE | END)))
		return run_not(q, end, CLASS_SPACE | CLASS_L | CLASS_N);
	return spaces(p, end, false);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * Variants: \p{N} alone; [\p{L}\p{M}] for \p{L}. */
static const u8 *word_llama(const struct image_rules *r, const u8 *p, const u8 *end)
{
	const unsigned letters = r->marks_are_letters ? CLASS_L | CLASS_M : CLASS_L;
	unsigned len, next;
	unsigned c = class_at(p, end, &len);
	const u8 *q;

	if (*p == '\'') {
		q = contraction(p, end, true);
		if (q > p)
			return q;
	}
	if (c & letters)
		return run_of(p + len, end, letters);
	if (c & CLASS_N)
		return digits(p, end, r->digits);
	if (*p != '\r' && *p != '\n' && class_at(p + len, end, &next) & letters)
		return run_of(p + len + next, end, letters);
	q = p + (*p == ' ');
	if (!(class_at(q, end, &len) & (CLASS_SPACE | letters | CLASS_N | END)))
		return run_ends(run_not(q, end, CLASS_SPACE | letters | CLASS_N), end, false);
	return spaces(p, end, true);
}

/* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ at <p>; <p>: no match. *ret_upper: the end of the first
 * part at its longest. Where no lower letter follows, that gives back up to its last character of both classes. */
static const u8 *case_word(const u8 *p, const u8 *end, const u8 **ret_upper)
{
	const u8 *both = NULL, *q = p;
	unsigned len, c = 0;

	for (; q < end; q += len) {
		c = unicode_class(utf8_char(q, &len));
		if (!(c & CLASS_UPPER))
			break;
		if (c & CLASS_LOWER)
			both = q + len;
	}
	*ret_upper = q;
	if (q < end && c & CLASS_LOWER)
		return run_of(q, end, CLASS_LOWER);
	return both ? both : p;
}

/* [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
 * |[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
 * |\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ ; variants: \p{N} alone, no contractions */
static const u8 *word_o200k(const struct image_rules *r, const u8 *p, const u8 *end)
{
	unsigned len, c = class_at(p, end, &len);
	bool lead = !(c & (CLASS_L | CLASS_N)) && *p != '\r' && *p != '\n';
	const u8 *from = lead ? p + len : p, *upper, *q;

	if (c & CLASS_N)
		return digits(p, end, r->digits);
	q = case_word(from, end, &upper);
	if (q == from && c & CLASS_M) { /* the mark leads nothing: it is the word */
		from = p;
		q = case_word(p, end, &upper);
	}
	if (q == from && upper > from)
		q = upper;
	if (q > from)
		return r->contractions ? contraction(q, end, true) : q;
	q = p + (*p == ' ');
	if (!(class_at(q, end, &len) & (CLASS_SPACE | CLASS_L | CLASS_N | END)))
		return run_ends(run_not(q, end, CLASS_SPACE | CLASS_L | CLASS_N), end, true);
	return spaces(p, end, true);
}

static bool is_kana_or_han(uint32_t c)
{
	return (c >= 0x4e00 && c <= 0x9fa5) || (c >= 0x3040 && c <= 0x30ff);
}

/* [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*
 * |\s*[\r\n]+|\s+(?!\S)|\s+ ; <p>: no match here */
static const u8 *word_deepseek(const u8 *p, const u8 *end)
{
	unsigned len, next, c = class_at(p, end, &len);
	const u8 *q = p + 1;

	if (c & (CLASS_P | CLASS_S) && *p < 0x80) {
		while (q < end && (u8)((*q | 0x20) - 'a') < 26)
			q++;
		if (q > p + 1)
			return q;
	}
	if (c & (CLASS_L | CLASS_M))
		return run_of(p + len, end, CLASS_L | CLASS_M);
	if (!(c & (CLASS_P | CLASS_S)) && *p != '\r' && *p != '\n' &&
	    class_at(p + len, end, &next) & (CLASS_L | CLASS_M))
		return run_of(p + len + next, end, CLASS_L | CLASS_M);
	q = p + (*p == ' ');
	if (class_at(q, end, &len) & (CLASS_P | CLASS_S))
		return run_ends(run_of(q, end, CLASS_P | CLASS_S), end, false);
	return c & CLASS_SPACE ? spaces(p, end, true) : p;
}

static void put(struct encoder *e, const u8 *p, const u8 *end)
{
	if (end > p)
		bpe_put(e, (const char *)p, (size_t)(end - p));
}

/* What lies between two matches is a word too. */
static void scan_deepseek_part(struct encoder *e, const u8 *p, const u8 *end)
{
	const u8 *from = p;

	while (p < end) {
		const u8 *q = word_deepseek(p, end);

		if (q == p) {
			unsigned len;

			utf8_char(p, &len);
			p += len;
			continue;
		}
		put(e, from, p);
		put(e, p, q);
		p = from = q;
	}
	put(e, from, p);
}

/* Three patterns, each on the pieces of the one before: \p{N}{1,3}; [一-龥぀-ゟ゠-ヿ]+; the one above. */
static void scan_deepseek(struct encoder *e, const u8 *p, const u8 *end)
{
	const u8 *q;

	for (; p < end; p = q) {
		unsigned len;
		uint32_t c = utf8_char(p, &len);
		bool han = is_kana_or_han(c);

		if (unicode_class(c) & CLASS_N) {
			q = digits(p, end, 3);
			put(e, p, q);
			continue;
		}
		for (q = p + len; q < end; q += len) {
			c = utf8_char(q, &len);
			if (unicode_class(c) & CLASS_N || is_kana_or_han(c) != han)
				break;
		}
		scan_deepseek_part(e, p, q);
	}
}

/* Before each space; or only where something else precedes it, since the merges do not reach over that place. */
static void scan_spaces(struct encoder *e, const u8 *p, const u8 *end, bool runs)
{
	while (p < end) {
		const u8 *q = p + 1;

		while (runs && q < end && *q == ' ' && q[-1] == ' ')
			q++;
		q = memchr(q, ' ', (size_t)(end - q));
		if (!q)
			q = end;
		put(e, p, q);
		p = q;
	}
}

void scan_piece(struct encoder *e, const char *text, size_t n)
{
	const struct image_rules *r = &e->v->img->rules;
	const u8 *p = (const u8 *)text, *end = p + n, *q;

#define WORDS(next)                  \
	for (; p < end; p = q) {     \
		q = next(r, p, end); \
		put(e, p, q);        \
	}                            \
	break

	switch ((enum scheme)r->scheme) {
	case SCHEME_GPT2:
		WORDS(word_gpt2);
	case SCHEME_LLAMA:
		WORDS(word_llama);
	case SCHEME_O200K:
		WORDS(word_o200k);
	case SCHEME_DEEPSEEK:
		scan_deepseek(e, p, end);
		break;
	case SCHEME_SPACES:
		scan_spaces(e, p, end, false);
		break;
	case SCHEME_WHOLE:
	case SCHEME_N:
		if (r->spaces_cut)
			scan_spaces(e, p, end, true);
		else
			put(e, p, end);
		break;
	}
#undef WORDS
}
