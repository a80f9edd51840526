/* SPDX-License-Identifier: Apache-2.0 */
#include "base/jw.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

void jw_init(struct jw *w, struct buf *b)
{
	*w = (struct jw){ .b = b };
}

static void put(struct jw *w, const char *p, size_t n)
{
	int r = buf_put(w->b, p, n);

	if (r)
		w->err = r;
}

static void lead(struct jw *w)
{
	if (w->comma)
		put(w, ",", 1);
	w->comma = true;
}

void jw_obj(struct jw *w)
{
	lead(w);
	put(w, "{", 1);
	w->comma = false;
}

void jw_end_obj(struct jw *w)
{
	put(w, "}", 1);
	w->comma = true;
}

void jw_arr(struct jw *w)
{
	lead(w);
	put(w, "[", 1);
	w->comma = false;
}

void jw_end_arr(struct jw *w)
{
	put(w, "]", 1);
	w->comma = true;
}

/* Length of the well-formed UTF-8 sequence at <p>, 0 if there is none. */
static size_t utf8_len(const unsigned char *p, size_t n)
{
	unsigned char c = p[0];
	size_t len;

	if (c < 0x80)
		return 1;
	if (c < 0xc2 || c > 0xf4)
		return 0;
	len = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	if (n < len)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) || (c == 0xf0 && p[1] < 0x90) ||
	    (c == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

static void quoted(struct jw *w, struct str s)
{
	const unsigned char *p = (const unsigned char *)s.p;
	size_t plain = 0;

	put(w, "\"", 1);
	for (size_t i = 0; i < s.n;) {
		size_t len = utf8_len(p + i, s.n - i);
		char esc[8];
		size_t k;

		if (len > 1 || (len == 1 && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\' && p[i] != 0x7f)) {
			i += len;
			continue;
		}
		put(w, s.p + plain, i - plain);
		if (len == 0)
			k = (size_t)snprintf(esc, sizeof(esc), "\xef\xbf\xbd");
		else if (p[i] == '"' || p[i] == '\\')
			k = (size_t)snprintf(esc, sizeof(esc), "\\%c", p[i]);
		else if (p[i] == '\n')
			k = (size_t)snprintf(esc, sizeof(esc), "\\n");
		else
			k = (size_t)snprintf(esc, sizeof(esc), "\\u%04x", p[i]);
		put(w, esc, k);
		plain = ++i;
	}
	put(w, s.p + plain, s.n - plain);
	put(w, "\"", 1);
}

void jw_key(struct jw *w, const char *key)
{
	lead(w);
	quoted(w, str_of(key));
	put(w, ":", 1);
	w->comma = false;
}

void jw_strn(struct jw *w, struct str s)
{
	if (!s.p) {
		jw_null(w);
		return;
	}
	lead(w);
	quoted(w, s);
}

void jw_str(struct jw *w, const char *s)
{
	jw_strn(w, str_of(s));
}

static void formatted(struct jw *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void formatted(struct jw *w, const char *fmt, ...)
{
	va_list ap;
	int r;

	lead(w);
	va_start(ap, fmt);
	r = buf_vprintf(w->b, fmt, ap);
	va_end(ap);
	if (r)
		w->err = r;
}

void jw_u64(struct jw *w, uint64_t v)
{
	formatted(w, "%" PRIu64, v);
}

void jw_i64(struct jw *w, int64_t v)
{
	formatted(w, "%" PRId64, v);
}

void jw_num(struct jw *w, double v)
{
	if (isfinite(v))
		formatted(w, "%.6g", v);
	else
		jw_null(w);
}

void jw_bool(struct jw *w, bool v)
{
	formatted(w, "%s", v ? "true" : "false");
}

void jw_null(struct jw *w)
{
	formatted(w, "null");
}

int jw_err(const struct jw *w)
{
	return w->err;
}
