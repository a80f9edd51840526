/* SPDX-License-Identifier: Apache-2.0
 *
 * The cursor stands between tokens. j->stack[1..depth] are the containers it is in; j->first says that the innermost
 * one has just been opened, so that neither a comma is due nor "[,]" passes. Closing one leaves its parent with a value
 * read, hence first = 0. After an error the cursor stands at the end of the text and each further call repeats it.
 */
#include "http/json.h"

#include <errno.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "http/json_scan.h"

static int broken(struct json *j)
{
	j->p = j->end;
	return j->err = -EBADMSG;
}

void json_init(struct json *j, struct str text)
{
	j->p = text.p;
	j->end = text.n ? text.p + text.n : text.p;
	j->depth = 0;
	j->first = 1;
	j->err = 0;
}

static inline const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

/* One more than the digit's value, so that 0 is no digit. */
static const uint8_t hex_digit[256] = {
	['0'] = 1,  ['1'] = 2,	['2'] = 3,  ['3'] = 4,	['4'] = 5,  ['5'] = 6,	['6'] = 7,  ['7'] = 8,
	['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
	['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* Four hex digits, or something negative. */
static inline int hex4(const char *s, const char *end)
{
	const unsigned char *p = (const unsigned char *)s;

	if (end - s < 4)
		return -1;
	return (hex_digit[p[0]] - 1) * 4096 | (hex_digit[p[1]] - 1) * 256 | (hex_digit[p[2]] - 1) * 16 |
	       (hex_digit[p[3]] - 1);
}

/* What the character behind a backslash stands for; 0 if it may not stand there. */
static inline char short_escape(char c)
{
	switch (c) {
	case '"':
	case '\\':
	case '/':
		return c;
	case 'b':
		return '\b';
	case 'f':
		return '\f';
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	default:
		return 0;
	}
}

/* <p> behind the opening quote; returns what follows the closing one, or NULL. */
static const char *read_string(const char *p, const char *end, struct json_val *ret)
{
	uint64_t high = 0;

	ret->kind = JSON_T_STR;
	ret->escaped = false;
	ret->raw.p = p;
	for (;;) {
		p = json_scan.text(p, end, &high);
		if (p == end || (unsigned char)*p < 0x20)
			return NULL;
		if (*p == '"')
			break;
		ret->escaped = true;
		do {
			if (end - p < 2)
				return NULL;
			if (short_escape(p[1]))
				p += 2;
			else if (p[1] == 'u' && hex4(p + 2, end) >= 0)
				p += 6;
			else
				return NULL;
		} while (p < end && *p == '\\');
	}
	ret->raw.n = (size_t)(p - ret->raw.p);
	if (high && !json_scan.utf8_valid(ret->raw.p, ret->raw.n))
		return NULL;
	return p + 1;
}

static inline const char *digits(const char *p, const char *end)
{
	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p;
}

/* Returns what follows the number at <p>, or NULL. */
static inline const char *read_number(const char *p, const char *end, struct json_val *ret)
{
	const char *q;

	ret->kind = JSON_T_NUM;
	ret->raw.p = p;
	if (*p == '-')
		p++;
	q = digits(p, end);
	if (q == p || (*p == '0' && q != p + 1))
		return NULL;
	p = q;
	if (p < end && *p == '.') {
		q = digits(++p, end);
		if (q == p)
			return NULL;
		p = q;
	}
	if (p < end && (*p | 0x20) == 'e') {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		q = digits(p, end);
		if (q == p)
			return NULL;
		p = q;
	}
	ret->raw.n = (size_t)(p - ret->raw.p);
	return p;
}

static const char *read_literal(const char *p, const char *end, struct json_val *ret, enum json_kind kind,
				struct str lit)
{
	if ((size_t)(end - p) < lit.n || memcmp(p, lit.p, lit.n) != 0)
		return NULL;
	ret->kind = kind;
	ret->raw = (struct str){ p, 1 };
	return p + lit.n;
}

/* The value at <p>, which no blank precedes. Opens it if it is a container. */
static inline int read_value(struct json *j, const char *p, struct json_val *ret)
{
	if (p == j->end)
		return broken(j);
	switch (*p) {
	case '"':
		p = read_string(p + 1, j->end, ret);
		break;
	case '{':
	case '[':
		if (j->depth == JSON_DEPTH_MAX)
			return broken(j);
		ret->kind = *p == '{' ? JSON_T_OBJ : JSON_T_ARR;
		ret->raw = (struct str){ p, 1 };
		j->stack[++j->depth] = (uint8_t)ret->kind;
		ret->depth = j->depth;
		j->first = 1;
		j->p = p + 1;
		return 0;
	case 't':
		p = read_literal(p, j->end, ret, JSON_T_TRUE, STR("true"));
		break;
	case 'f':
		p = read_literal(p, j->end, ret, JSON_T_FALSE, STR("false"));
		break;
	case 'n':
		p = read_literal(p, j->end, ret, JSON_T_NULL, STR("null"));
		break;
	default:
		p = read_number(p, j->end, ret);
	}
	if (!p)
		return broken(j);
	j->p = p;
	j->first = 0;
	return 0;
}

int json_value(struct json *j, struct json_val *ret)
{
	if (j->err)
		return j->err;
	if (j->depth || !j->first)
		return broken(j);
	return read_value(j, skip_blanks(j->p, j->end), ret);
}

/* To the next member or element of the container <kind> with the closing byte <close>: 1 and *ret_p, 0 if it is closed.
 */
static inline int next_item(struct json *j, enum json_kind kind, char close, const char **ret_p)
{
	const char *p = skip_blanks(j->p, j->end);

	if (j->err || j->depth == 0 || j->stack[j->depth] != kind || p == j->end)
		return broken(j);
	if (*p == close) {
		j->depth--;
		j->first = 0;
		j->p = p + 1;
		return 0;
	}
	if (!j->first) {
		if (*p != ',')
			return broken(j);
		p = skip_blanks(p + 1, j->end);
	}
	*ret_p = p;
	return 1;
}

int json_member(struct json *j, struct json_val *ret_key, struct json_val *ret_val)
{
	const char *p;
	int r = next_item(j, JSON_T_OBJ, '}', &p);

	if (r <= 0)
		return r;
	if (p == j->end || *p != '"')
		return broken(j);
	p = read_string(p + 1, j->end, ret_key);
	if (!p)
		return broken(j);
	p = skip_blanks(p, j->end);
	if (p == j->end || *p != ':')
		return broken(j);
	r = read_value(j, skip_blanks(p + 1, j->end), ret_val);
	return r < 0 ? r : 1;
}

int json_element(struct json *j, struct json_val *ret_val)
{
	const char *p;
	int r = next_item(j, JSON_T_ARR, ']', &p);

	if (r <= 0)
		return r;
	r = read_value(j, p, ret_val);
	return r < 0 ? r : 1;
}

static struct str scalar_text(const struct json_val *v)
{
	switch (v->kind) {
	case JSON_T_STR:
		return (struct str){ v->raw.p - 1, v->raw.n + 2 };
	case JSON_T_FALSE:
		return (struct str){ v->raw.p, 5 };
	case JSON_T_TRUE:
	case JSON_T_NULL:
		return (struct str){ v->raw.p, 4 };
	default:
		return v->raw;
	}
}

int json_skip(struct json *j, const struct json_val *v, struct str *ret_raw)
{
	struct json_val key, val;

	if (j->err)
		return j->err;
	if (v->kind != JSON_T_OBJ && v->kind != JSON_T_ARR) {
		if (ret_raw)
			*ret_raw = scalar_text(v);
		return 0;
	}
	while (j->depth >= v->depth) {
		int r = j->stack[j->depth] == JSON_T_OBJ ? json_member(j, &key, &val) : json_element(j, &val);

		if (r < 0)
			return r;
	}
	if (ret_raw)
		*ret_raw = (struct str){ v->raw.p, (size_t)(j->p - v->raw.p) };
	return 0;
}

int json_end(struct json *j)
{
	if (j->err)
		return j->err;
	if (j->depth || j->first || skip_blanks(j->p, j->end) != j->end)
		return broken(j);
	return 0;
}

static unsigned utf8_put(char *out, unsigned c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* Decode the escape at *<pp> (already found to be well-formed) into <out> (4 bytes) and step over it. Its length, or 0
 * for a surrogate without its other half. */
static inline unsigned decode_escape(const char **pp, const char *end, char *out)
{
	const char *p = *pp;
	unsigned c, low;

	if (p[1] != 'u') {
		out[0] = short_escape(p[1]);
		*pp = p + 2;
		return 1;
	}
	c = (unsigned)hex4(p + 2, end);
	p += 6;
	if (c >= 0xd800 && c <= 0xdfff) {
		if (c >= 0xdc00 || end - p < 6 || p[0] != '\\' || p[1] != 'u')
			return 0;
		low = (unsigned)hex4(p + 2, end);
		if (low < 0xdc00 || low > 0xdfff)
			return 0;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
		p += 6;
	}
	*pp = p;
	return utf8_put(out, c);
}

bool json_str_is(const struct json_val *v, struct str lit)
{
	const char *p = v->raw.p, *end = p + v->raw.n;

	if (v->kind != JSON_T_STR)
		return false;
	if (!v->escaped)
		return str_eq(v->raw, lit);
	while (p < end) {
		char c[4] = { *p };
		unsigned n = 1;

		if (*p == '\\')
			n = decode_escape(&p, end, c);
		else
			p++;
		if (n == 0 || n > lit.n || memcmp(lit.p, c, n) != 0)
			return false;
		lit.p += n;
		lit.n -= n;
	}
	return lit.n == 0;
}

/* Copy up to the next backslash: look and copy in one pass, and write up to COPY_SLACK bytes more than were copied. */
#define COPY_SLACK 16
static size_t copy_plain(const char *p, const char *end, char *to)
{
	const char *start = p;

#ifdef __SSE2__
	const __m128i slash = _mm_set1_epi8('\\');

	for (; end - p >= 16; p += 16, to += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
		int m = _mm_movemask_epi8(_mm_cmpeq_epi8(v, slash));

		_mm_storeu_si128((__m128i *)(void *)to, v);
		if (m)
			return (size_t)(p - start) + (size_t)__builtin_ctz((unsigned)m);
	}
#endif
	while (p < end && *p != '\\')
		*to++ = *p++;
	return (size_t)(p - start);
}

int json_unescape(const struct json_val *v, struct buf *out)
{
	const char *p = v->raw.p, *end = p + v->raw.n;
	char *to, *start;

	if (v->kind != JSON_T_STR)
		return -EINVAL;
	if (!v->escaped)
		return buf_put(out, p, v->raw.n);
	/* No escape is shorter than what it stands for. */
	start = to = buf_room(out, v->raw.n + COPY_SLACK);
	if (!to)
		return -ENOMEM;
	while (p < end) {
		size_t n = copy_plain(p, end, to);

		to += n;
		p += n;
		while (p < end && *p == '\\') {
			unsigned k = decode_escape(&p, end, to);

			if (k == 0)
				return -EILSEQ;
			to += k;
		}
	}
	buf_commit(out, (size_t)(to - start));
	return 0;
}

int json_u64(const struct json_val *v, uint64_t *ret)
{
	return v->kind == JSON_T_NUM ? str_u64(v->raw, ret) : -EINVAL;
}
