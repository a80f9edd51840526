/* SPDX-License-Identifier: Apache-2.0
 *
 * Strings: bytes of valid UTF-8, counted by code points as Python does. Where a string is ASCII, which a glance at each
 * word tells, a place is an offset.
 */
#include "model/template_int.h"

uint32_t utf8_next(const char **pp)
{
	const unsigned char *p = (const unsigned char *)*pp;
	uint32_t c = p[0];
	int n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

	c = n == 1 ? c : n == 2 ? c & 0x1f : n == 3 ? c & 0x0f : c & 0x07;
	for (int i = 1; i < n; i++)
		c = c << 6 | (p[i] & 0x3f);
	*pp += n;
	return c;
}

static const char *prev(const char *p)
{
	do
		p--;
	while (((unsigned char)*p & 0xc0) == 0x80);
	return p;
}

bool text_ascii(struct val v)
{
	const char *p = v.s, *end = p + v.n;
	uint64_t high = 0;

	if (v.f & F_ASCII)
		return true;
	for (; end - p >= 32; p += 32) {
		uint64_t w[4];

		memcpy(w, p, 32);
		high = (w[0] | w[1] | w[2] | w[3]) & 0x8080808080808080u;
		if (high)
			return false;
	}
	for (; p < end; p++)
		if ((unsigned char)*p >= 0x80)
			return false;
	return true;
}

int64_t text_len(struct run *r, struct val s)
{
	int64_t n = 0;

	run_step_bytes(r, s.n);
	for (uint32_t i = 0; i < s.n; i++)
		n += ((unsigned char)s.s[i] & 0xc0) != 0x80;
	return n;
}

size_t text_offset(struct run *r, struct val s, int64_t chars)
{
	const char *p = s.s, *end = p + s.n;

	if (chars <= 0)
		return 0;
	if (s.f & F_ASCII)
		return chars < (int64_t)s.n ? (size_t)chars : s.n;
	run_step_bytes(r, chars < (int64_t)s.n ? (size_t)chars : s.n);
	while (p < end && chars--) {
		p++;
		while (p < end && ((unsigned char)*p & 0xc0) == 0x80)
			p++;
	}
	return (size_t)(p - s.s);
}

const char *text_find(struct str s, struct str what)
{
	return what.n ? memmem(s.p, s.n, what.p, what.n) : s.p;
}

static struct val same_kind(struct val of, const char *p, size_t n)
{
	return (struct val){ .t = V_STR, .f = of.f & (F_MARKUP | F_ASCII), .n = (uint32_t)n, .s = p };
}

/* --- strip --- */

static bool in_set(uint32_t c, const struct val *chars)
{
	const char *p = chars->s, *end = p + chars->n;

	while (p < end)
		if (utf8_next(&p) == c)
			return true;
	return false;
}

static bool stripped(struct run *r, uint32_t c, const struct val *chars)
{
	if (!chars)
		return uni_flags(c) & U_SPACE;
	run_step(r, chars->n / 16);
	return in_set(c, chars);
}

struct val text_strip(struct run *r, struct val s, const struct val *chars, int sides)
{
	const char *p = s.s, *end = p + s.n, *q;

	if (chars && chars->t == V_NONE)
		chars = NULL;
	if (chars && chars->t != V_STR)
		run_raise(r, "strip wants a string, not a %s", val_type_name(*chars));
	while (sides & 1 && p < end) {
		q = p;
		if (!stripped(r, utf8_next(&q), chars))
			break;
		p = q;
	}
	while (sides & 2 && p < end) {
		q = prev(end);
		const char *at = q;

		if (!stripped(r, utf8_next(&at), chars))
			break;
		end = q;
	}
	run_step_bytes(r, s.n - (size_t)(end - p));
	return same_kind(s, p, (size_t)(end - p));
}

/* --- case --- */

#define SIGMA 0x3a3

static bool cased(uint32_t c)
{
	return uni_flags(c) & (U_UPPER | U_LOWER | U_TITLE);
}

/* A sigma at the end of a word has a form of its own. */
static bool final_sigma(const char *start, const char *at, const char *end)
{
	const char *p = at;
	uint32_t c = 0;

	while (p > start) {
		const char *q = prev(p);

		p = q;
		c = utf8_next(&q);
		if (!(uni_flags(c) & U_IGNORABLE))
			break;
		c = 0;
	}
	if (!c || !cased(c))
		return false;
	for (p = at + 2; p < end;) {
		c = utf8_next(&p);
		if (!(uni_flags(c) & U_IGNORABLE))
			return !cased(c);
	}
	return true;
}

static struct val ascii_case(struct run *r, struct val s, char how)
{
	char *p = run_bytes(r, s.n + 1);
	bool word = false;

	for (uint32_t i = 0; i < s.n; i++) {
		char c = s.s[i], lower = c >= 'A' && c <= 'Z' ? c | 0x20 : c,
		     upper = c >= 'a' && c <= 'z' ? c & ~0x20 : c;

		switch (how) {
		case 'u':
			p[i] = upper;
			break;
		case 'c':
			p[i] = i ? lower : upper;
			break;
		case 't':
			p[i] = word ? lower : upper;
			break;
		case 's':
			p[i] = c == lower ? upper : lower;
			break;
		default: /* l, f */
			p[i] = lower;
		}
		word = lower >= 'a' && lower <= 'z';
	}
	s.f = (s.f & F_MARKUP) | F_ASCII;
	s.s = p;
	return s;
}

struct val text_case(struct run *r, struct val s, char how)
{
	const char *p = s.s, *end = p + s.n;
	bool word = false, first = true;
	char *to, *start;

	run_step_bytes(r, (size_t)s.n * 8);
	if (text_ascii(s))
		return ascii_case(r, s, how);
	/* No mapping is more than three times as long in UTF-8. */
	start = to = run_bytes(r, (size_t)s.n * 3 + 16);
	for (; p < end; first = false) {
		const char *at = p;
		uint32_t c = utf8_next(&p), out[3];
		char one = how;
		unsigned n;

		if (how == 'c')
			one = first ? 't' : 'l';
		else if (how == 't')
			one = word ? 'l' : 't';
		else if (how == 's')
			one = uni_flags(c) & U_UPPER ? 'l' : uni_flags(c) & U_LOWER ? 'u' : 0;
		n = one ? uni_case(c, one, out) : (out[0] = c, 1);
		if (one == 'l' && c == SIGMA && final_sigma(s.s, at, end))
			out[0] = 0x3c2;
		for (unsigned i = 0; i < n; i++)
			to += utf8_put(to, out[i]);
		word = cased(c);
	}
	s.f &= F_MARKUP;
	s.n = (uint32_t)(to - start);
	s.s = start;
	return s;
}

/* --- concatenation, repetition, replacement --- */

struct val text_concat(struct run *r, struct val a, struct val b)
{
	struct val v = { .t = V_STR, .f = a.f & b.f & F_ASCII, .n = a.n + b.n };
	char *p;

	v.f |= (a.f | b.f) & F_MARKUP;
	if ((uint64_t)a.n + b.n > UINT32_MAX / 4)
		run_fail(r, TEMPLATE_LIMIT, "a text is too long");
	if (b.n == 0 || a.n == 0) {
		v.s = b.n ? b.s : a.s;
		return v;
	}
	run_step(r, b.n / 256);
	if (template_mem_grow(r->mem, a.s, a.n, b.n)) {
		/* What ends the arena grows in place; whoever holds the shorter text does not see it. */
		memcpy((char *)a.s + a.n, b.s, b.n);
		v.s = a.s;
		return v;
	}
	run_step(r, a.n / 256);
	p = run_bytes(r, v.n);
	memcpy(p, a.s, a.n);
	memcpy(p + a.n, b.s, b.n);
	v.s = p;
	return v;
}

struct val text_repeat(struct run *r, struct val s, int64_t n)
{
	char *p;

	if (n <= 0 || s.n == 0)
		return same_kind(s, "", 0);
	if (n > UINT32_MAX / 4 / s.n)
		run_fail(r, TEMPLATE_LIMIT, "a text is too long");
	run_step_bytes(r, (size_t)n * s.n);
	p = run_bytes(r, (size_t)n * s.n);
	for (int64_t i = 0; i < n; i++)
		memcpy(p + (size_t)i * s.n, s.s, s.n);
	return same_kind(s, p, (size_t)n * s.n);
}

static void put(struct run *r, const char *p, size_t n)
{
	out_put(r, p, n);
}

struct val text_replace(struct run *r, struct val s, struct val from, struct val to, int64_t count)
{
	const char *p = s.s, *end = p + s.n, *q;
	uint8_t f = s.f & F_MARKUP;
	struct out o;

	run_step_bytes(r, s.n);
	if (count == 0 || (from.n && !text_find(val_str(s), val_str(from))))
		return s;
	out_capture(r, &o);
	if (from.n == 0) {
		for (; count; count--) {
			const char *at = p;

			run_step(r, 1);
			put(r, to.s, to.n);
			if (p == end)
				break;
			utf8_next(&p);
			put(r, at, (size_t)(p - at));
		}
	} else {
		for (; count && (q = text_find((struct str){ p, (size_t)(end - p) }, val_str(from))); count--) {
			run_step(r, 1);
			put(r, p, (size_t)(q - p));
			put(r, to.s, to.n);
			p = q + from.n;
		}
	}
	put(r, p, (size_t)(end - p));
	s = out_end(r, &o);
	s.f = f;
	return s;
}

struct val text_reverse(struct run *r, struct val s)
{
	const char *p = s.s, *end = p + s.n;
	char *to = run_bytes(r, s.n + 1), *at = to + s.n;

	run_step_bytes(r, (size_t)s.n * 4);
	while (p < end) {
		const char *from = p;

		utf8_next(&p);
		at -= p - from;
		memcpy(at, from, (size_t)(p - from));
	}
	return same_kind(s, to, s.n);
}

/* --- split and join --- */

struct pieces {
	struct val list;
	uint32_t cap;
};

static void add(struct run *r, struct pieces *x, struct val of, const char *p, size_t n)
{
	run_step(r, 1);
	if (x->list.n == x->cap) {
		uint32_t cap = x->cap ? x->cap * 2 : 4;
		struct val more = val_list(r, V_LIST, cap);

		if (x->list.n)
			memcpy(more.at, x->list.at, x->list.n * sizeof(of));
		x->list.at = more.at;
		x->cap = cap;
	}
	x->list.at[x->list.n++] = same_kind(of, p, n);
}

static void turn(struct val list)
{
	for (uint32_t i = 0; i < list.n / 2; i++) {
		struct val v = list.at[i];

		list.at[i] = list.at[list.n - 1 - i];
		list.at[list.n - 1 - i] = v;
	}
}

static const char *over_blanks(const char *p, const char *end, bool blank)
{
	while (p < end) {
		const char *q = p;

		if (!(uni_flags(utf8_next(&q)) & U_SPACE) == blank)
			break;
		p = q;
	}
	return p;
}

static const char *back_blanks(const char *from, const char *p, bool blank)
{
	while (p > from) {
		const char *q = prev(p), *at = q;

		if (!(uni_flags(utf8_next(&at)) & U_SPACE) == blank)
			break;
		p = q;
	}
	return p;
}

static void split_blanks(struct run *r, struct pieces *x, struct val s, int64_t max, bool right)
{
	const char *p = s.s, *end = p + s.n, *q;

	for (;;) {
		p = right ? p : over_blanks(p, end, true);
		end = right ? back_blanks(p, end, true) : end;
		if (p == end)
			return;
		if (max-- == 0)
			break;
		q = right ? back_blanks(p, end, false) : over_blanks(p, end, false);
		add(r, x, s, right ? q : p, (size_t)(right ? end - q : q - p));
		*(right ? &end : &p) = q;
	}
	add(r, x, s, p, (size_t)(end - p));
}

static const char *find_last(const char *p, const char *end, struct str what)
{
	for (const char *q = end - what.n; q >= p; q--)
		if (*q == *what.p && memcmp(q, what.p, what.n) == 0)
			return q;
	return NULL;
}

struct val text_split(struct run *r, struct val s, const struct val *sep, int64_t max, bool right)
{
	const char *p = s.s, *end = p + s.n, *q;
	struct pieces x = { .list = val_list(r, V_LIST, 0) };

	run_step_bytes(r, s.n);
	if (!sep || sep->t == V_NONE) {
		split_blanks(r, &x, s, max, right);
	} else {
		if (sep->t != V_STR)
			run_raise(r, "split wants a string, not a %s", val_type_name(*sep));
		if (sep->n == 0)
			run_raise(r, "empty separator");
		while (max--) {
			q = right ? find_last(p, end, val_str(*sep))
				  : text_find((struct str){ p, (size_t)(end - p) }, val_str(*sep));
			if (!q)
				break;
			if (right) {
				add(r, &x, s, q + sep->n, (size_t)(end - q - sep->n));
				end = q;
			} else {
				add(r, &x, s, p, (size_t)(q - p));
				p = q + sep->n;
			}
		}
		add(r, &x, s, p, (size_t)(end - p));
	}
	if (right)
		turn(x.list);
	return x.list;
}

static bool line_break(uint32_t c)
{
	return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

struct val text_lines(struct run *r, struct val s, bool keep)
{
	const char *p = s.s, *end = p + s.n, *line = p;
	struct pieces x = { .list = val_list(r, V_LIST, 0) };

	run_step_bytes(r, (size_t)s.n * 4);
	while (p < end) {
		const char *at = p;
		uint32_t c = utf8_next(&p);

		if (!line_break(c))
			continue;
		if (c == '\r' && p < end && *p == '\n')
			p++;
		add(r, &x, s, line, (size_t)((keep ? p : at) - line));
		line = p;
	}
	if (line < end)
		add(r, &x, s, line, (size_t)(end - line));
	return x.list;
}

/* str.join: <items> must be strings. */
struct val text_join(struct run *r, struct val sep, struct val items)
{
	struct out o;
	struct val v;
	bool first = true;

	out_capture(r, &o);
	for (struct iter it = iter_new(r, items); iter_next(r, &it, &v); first = false) {
		if (v.t != V_STR)
			run_raise(r, "join wants strings, not a %s", val_type_name(v));
		if (!first)
			put(r, sep.s, sep.n);
		put(r, v.s, v.n);
	}
	return out_end(r, &o);
}

struct val text_pad(struct run *r, struct val s, int64_t width, struct val fill, char how)
{
	int64_t n = text_len(r, s), pad = width - n, left = 0;
	struct out o;
	struct val v;

	if (pad <= 0)
		return s;
	if (text_len(r, fill) != 1)
		run_raise(r, "the fill character must be exactly one character long");
	if (how == 'r' || how == 'z')
		left = pad;
	else if (how == 'c')
		left = pad / 2 + (pad & width & 1);
	out_capture(r, &o);
	v = text_repeat(r, fill, left);
	if (how == 'z' && s.n && (s.s[0] == '-' || s.s[0] == '+')) {
		put(r, s.s, 1);
		put(r, v.s, v.n);
		put(r, s.s + 1, s.n - 1);
	} else {
		put(r, v.s, v.n);
		put(r, s.s, s.n);
	}
	v = text_repeat(r, fill, pad - left);
	put(r, v.s, v.n);
	v = out_end(r, &o);
	v.f = s.f & F_MARKUP;
	return v;
}
