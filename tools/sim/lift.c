/* SPDX-License-Identifier: Apache-2.0
 *
 * A megabyte of prompt costs jansson ten milliseconds, on the cores that the gateway under test runs on too. So strings
 * of LONG bytes and more are taken out of a body before it is parsed, a mark put in their place, and unescaped by
 * themselves when they are asked for. One request is read at a time, so one set of them is enough.
 */
#include <stdlib.h>
#include <string.h>

#include "http/json.h"
#include "sim.h"

#define LONG 2048
#define MANY 4096
#define MARK "\x7fkvsim-lifted:"

static struct {
	struct str raw[MANY]; /* between the quotes, escapes as they stand */
	bool escaped[MANY];
	unsigned n;
	struct buf slim, text[MANY];
} lifted;

static void forget(void)
{
	for (unsigned i = 0; i < lifted.n; i++)
		buf_free(&lifted.text[i]);
	lifted.n = 0;
	buf_free(&lifted.slim);
}

void lift_free(void)
{
	forget();
}

/* The closing quote of the string that begins at <p>; NULL: there is none. */
static const char *string_end(const char *p, const char *end)
{
	for (const char *from = p;; from++) {
		const char *b;

		from = memchr(from, '"', (size_t)(end - from));
		if (!from)
			return NULL;
		for (b = from; b > p && b[-1] == '\\'; b--)
			;
		if ((from - b) % 2 == 0)
			return from;
	}
}

json_t *lift_parse(struct str body, json_error_t *err)
{
	const char *p = body.p, *end = body.p + body.n, *from = p;

	forget();
	while (p < end && (p = memchr(p, '"', (size_t)(end - p)))) {
		const char *q = string_end(p + 1, end);

		if (!q)
			break;
		if (q - p > LONG && lifted.n < MANY) {
			buf_put(&lifted.slim, from, (size_t)(p + 1 - from));
			buf_printf(&lifted.slim, MARK "%u", lifted.n);
			lifted.raw[lifted.n] = (struct str){ p + 1, (size_t)(q - p - 1) };
			lifted.escaped[lifted.n++] = memchr(p, '\\', (size_t)(q - p)) != NULL;
			from = q;
		}
		p = q + 1;
	}
	if (!lifted.n)
		return json_loadb(body.p, body.n, JSON_ALLOW_NUL, err);
	buf_put(&lifted.slim, from, (size_t)(end - from));
	return json_loadb(buf_data(&lifted.slim), buf_len(&lifted.slim), JSON_ALLOW_NUL, err);
}

struct str lift_text(const json_t *s)
{
	struct str t = { json_string_value(s), json_string_length(s) };
	struct json_val v = { .kind = JSON_T_STR, .escaped = true };
	unsigned long i;

	if (!lifted.n || !str_starts(t, STR(MARK)))
		return t;
	i = strtoul(t.p + sizeof(MARK) - 1, NULL, 10);
	if (i >= lifted.n)
		return t;
	if (!lifted.escaped[i])
		return lifted.raw[i];
	v.raw = lifted.raw[i];
	if (!buf_len(&lifted.text[i]) && json_unescape(&v, &lifted.text[i]))
		return lifted.raw[i];
	return buf_str(&lifted.text[i]);
}
