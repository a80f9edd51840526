/* SPDX-License-Identifier: Apache-2.0
 *
 * One machine reads tokens; the cursor over complete text is made of it.
 *
 *   want:   VALUE ──scalar──► NEXT ──','──► KEY or ELEMENT         (at depth 0: END instead of NEXT)
 *             │                 └──close──► NEXT, one level up
 *             ├──'{'──► FIRST_KEY ──string──► COLON ──':'──► VALUE
 *             └──'['──► FIRST_ELEMENT ──► as VALUE
 *
 * j->at is the next byte to read, an offset, since the text may move while it grows. A number or literal that is cut
 * off is read again when there is more, which is cheap because both are short. A string is not: it is scanned once, in
 * windows that stay in the nearest cache, so that whoever goes on with what has been copied finds it there.
 *
 * UTF-8 is checked by window too, and only if the window had a byte outside ASCII: all before j->valid is known to be
 * good, at most three bytes of a character that is cut off lie between it and j->at.
 */
#include "http/json.h"

#include <errno.h>

#include "http/json_scan.h"

#define WINDOW 8192

enum { VALUE, FIRST_KEY, KEY, COLON, FIRST_ELEMENT, ELEMENT, NEXT, END };

static int broken(struct json *j)
{
	j->at = j->n;
	return j->err = -EBADMSG;
}

void json_start(struct json *j)
{
	*j = (struct json){ .want = VALUE };
}

void json_feed(struct json *j, struct str text, bool whole)
{
	j->text = text.p ? text.p : "";
	j->n = text.n;
	j->whole = whole;
}

void json_init(struct json *j, struct str text)
{
	json_start(j);
	json_feed(j, text, true);
}

static inline const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

static inline int took_value(struct json *j)
{
	j->want = j->depth ? NEXT : END;
	return 1;
}

/* --- strings --- */

/* Scan on from *p to <stop>, or a few bytes beyond to the end of an escape: a surrogate alone is no error here. */
static inline enum unescape scan_run(struct json *j, const char **pp, const char *stop, const char *end, uint64_t *high)
{
	const char *p = *pp;
	enum unescape r = UNESCAPE_STOP;

	while (p < stop) {
		int n;

		p = json_scan.text(p, stop, high);
		if (p == stop)
			break;
		n = *p == '\\' ? escape_len(p, end) : -1;
		if (n <= 0) {
			r = *p == '"' ? UNESCAPE_QUOTE : n ? UNESCAPE_BAD : UNESCAPE_CUT;
			break;
		}
		j->escaped = true;
		p += n;
	}
	*pp = p;
	return r;
}

/* The same, with the string's value appended to <into>. */
static enum unescape copy_run(struct json *j, const char **p, const char *stop, const char *end, uint64_t *high)
{
	char *to = buf_room(j->into, (size_t)(stop - *p) + 2 * JSON_SLACK), *start = to;
	enum unescape r;

	if (!to) {
		j->err = -ENOMEM;
		return UNESCAPE_BAD;
	}
	r = json_unescape_run(p, stop, end, &to, high);
	buf_commit(j->into, (size_t)(to - start));
	return r;
}

/* The start of the character that ends beyond <p>, or <p>. */
static const char *whole_chars(const char *from, const char *p)
{
	for (int i = 1; i <= 3 && p - i >= from; i++) {
		unsigned char c = (unsigned char)p[-i];

		if (c < 0x80)
			break;
		if (c >= 0xc0)
			return i < (c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4) ? p - i : p;
	}
	return p;
}

static bool check_utf8(struct json *j, const char *p, bool high, bool closed)
{
	const char *from = j->text + j->valid, *to = p;

	if (high || j->valid < j->at) {
		to = closed ? p : whole_chars(from, p);
		if (!json_scan.utf8_valid(from, (size_t)(to - from)))
			return false;
	}
	j->valid = (size_t)(to - j->text);
	return true;
}

/* The string under way: the token it ends with; if it is being copied, JSON_T_PART after each window; or 0. */
static int string_on(struct json *j, struct json_val *ret)
{
	const char *p = j->text + j->at, *end = j->text + j->n;
	struct buf *into = j->key ? NULL : j->into;
	enum unescape r;

	do {
		const char *stop = end - p > WINDOW ? p + WINDOW : end;
		uint64_t high = 0;

		r = into ? copy_run(j, &p, stop, end, &high) : scan_run(j, &p, stop, end, &high);
		if (r == UNESCAPE_LONE) {
			ret->lone = j->lone = true;
			p += 6;
		}
		if (r == UNESCAPE_BAD || !check_utf8(j, p, high != 0, r == UNESCAPE_QUOTE))
			return j->err ? j->err : broken(j);
		j->at = (size_t)(p - j->text);
	} while (r == UNESCAPE_LONE || (r == UNESCAPE_STOP && p < end && !into));
	ret->raw = (struct str){ j->text + j->start, j->at - j->start };
	ret->lone = j->lone;
	if (r == UNESCAPE_STOP && p < end) {
		ret->kind = JSON_T_PART;
		return 1;
	}
	if (r != UNESCAPE_QUOTE)
		return j->whole ? broken(j) : 0;
	ret->escaped = into || j->escaped;
	j->at++;
	j->in_string = false;
	if (j->key) {
		ret->kind = JSON_T_KEY;
		j->want = COLON;
		return 1;
	}
	ret->kind = JSON_T_STR;
	j->into = NULL;
	return took_value(j);
}

static int string_start(struct json *j, bool key, struct json_val *ret)
{
	j->at++;
	j->start = j->valid = j->at;
	j->in_string = true;
	j->key = key;
	j->escaped = j->lone = false;
	return string_on(j, ret);
}

/* --- other values --- */

static inline const char *digits(const char *p, const char *end)
{
	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p;
}

/* Returns what follows the number at <p>, or NULL: it is none, or may go on behind <end>. */
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

/* Is all that there is of it a number's? */
static bool may_be_number(const char *p, const char *end)
{
	if (*p != '-' && (*p < '0' || *p > '9'))
		return false;
	while (p < end && ((*p >= '0' && *p <= '9') || *p == '-' || *p == '+' || *p == '.' || (*p | 0x20) == 'e'))
		p++;
	return p == end;
}

static int number(struct json *j, const char *p, struct json_val *ret)
{
	const char *end = j->text + j->n, *q;

	if (!j->whole && may_be_number(p, end))
		return end - p > JSON_NUMBER_MAX ? broken(j) : 0;
	q = read_number(p, end, ret);
	if (!q || ret->raw.n > JSON_NUMBER_MAX)
		return broken(j);
	j->at = (size_t)(q - j->text);
	return took_value(j);
}

static int literal(struct json *j, const char *p, struct json_val *ret, enum json_kind kind, struct str lit)
{
	size_t n = j->n - j->at;

	if (memcmp(p, lit.p, n < lit.n ? n : lit.n) != 0 || (n < lit.n && j->whole))
		return broken(j);
	if (n < lit.n)
		return 0;
	ret->kind = kind;
	ret->raw = (struct str){ p, 1 };
	j->at += lit.n;
	return took_value(j);
}

static int open_container(struct json *j, const char *p, struct json_val *ret)
{
	if (j->depth == JSON_DEPTH_MAX)
		return broken(j);
	ret->kind = *p == '{' ? JSON_T_OBJ : JSON_T_ARR;
	ret->raw = (struct str){ p, 1 };
	j->stack[++j->depth] = (uint8_t)ret->kind;
	ret->depth = j->depth;
	j->at++;
	j->want = ret->kind == JSON_T_OBJ ? FIRST_KEY : FIRST_ELEMENT;
	return 1;
}

static int close_container(struct json *j, const char *p, struct json_val *ret)
{
	ret->kind = JSON_T_CLOSE;
	ret->raw = (struct str){ p, 1 };
	ret->depth = j->depth--;
	j->at++;
	return took_value(j);
}

static int value(struct json *j, const char *p, struct json_val *ret)
{
	if (*p == '"')
		return string_start(j, false, ret);
	j->into = NULL;
	switch (*p) {
	case '{':
	case '[':
		return open_container(j, p, ret);
	case 't':
		return literal(j, p, ret, JSON_T_TRUE, STR("true"));
	case 'f':
		return literal(j, p, ret, JSON_T_FALSE, STR("false"));
	case 'n':
		return literal(j, p, ret, JSON_T_NULL, STR("null"));
	default:
		return number(j, p, ret);
	}
}

int json_next(struct json *j, struct json_val *ret)
{
	if (j->err)
		return j->err;
	if (j->in_string)
		return string_on(j, ret);
	for (;;) {
		const char *end = j->text + j->n, *p = j->n ? skip_blanks(j->text + j->at, end) : end;
		bool object = j->depth && j->stack[j->depth] == JSON_T_OBJ;

		j->at = (size_t)(p - j->text);
		if (p == end)
			return j->whole && j->want != END ? broken(j) : 0;
		if (*p == (object ? '}' : ']') && (j->want == NEXT || j->want == FIRST_KEY || j->want == FIRST_ELEMENT))
			return close_container(j, p, ret);
		switch (j->want) {
		case NEXT:
		case COLON:
			if (*p != (j->want == NEXT ? ',' : ':'))
				return broken(j);
			j->at++;
			j->want = j->want == COLON ? VALUE : object ? KEY : ELEMENT;
			continue;
		case FIRST_KEY:
		case KEY:
			return *p == '"' ? string_start(j, true, ret) : broken(j);
		case END:
			return broken(j);
		default:
			return value(j, p, ret);
		}
	}
}

/* --- the cursor --- */

int json_value(struct json *j, struct json_val *ret)
{
	if (j->err)
		return j->err;
	return j->depth || j->want != VALUE || json_next(j, ret) <= 0 ? broken(j) : 0;
}

static int next_in(struct json *j, enum json_kind container, struct json_val *ret)
{
	if (j->err)
		return j->err;
	if (j->depth == 0 || j->stack[j->depth] != container || json_next(j, ret) <= 0)
		return broken(j);
	return ret->kind != JSON_T_CLOSE;
}

int json_member(struct json *j, struct json_val *ret_key, struct json_val *ret_val)
{
	int r = next_in(j, JSON_T_OBJ, ret_key);

	if (r <= 0)
		return r;
	return json_next(j, ret_val) > 0 ? 1 : broken(j);
}

int json_element(struct json *j, struct json_val *ret_val)
{
	return next_in(j, JSON_T_ARR, ret_val);
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
	struct json_val t;

	if (j->err)
		return j->err;
	if (v->kind != JSON_T_OBJ && v->kind != JSON_T_ARR) {
		if (ret_raw)
			*ret_raw = scalar_text(v);
		return 0;
	}
	while (j->depth >= v->depth)
		if (json_next(j, &t) <= 0)
			return broken(j);
	if (ret_raw)
		*ret_raw = (struct str){ v->raw.p, (size_t)(j->text + j->at - v->raw.p) };
	return 0;
}

int json_end(struct json *j)
{
	if (j->err)
		return j->err;
	if (j->want != END || skip_blanks(j->text + j->at, j->text + j->n) != j->text + j->n)
		return broken(j);
	return 0;
}
