/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "http/http.h"

#define ROWS(a) (sizeof(a) / sizeof((a)[0]))

static void keep(void *arg, const char *p, size_t n)
{
	assert_true(n > 0);
	assert_int_equal(buf_put(arg, p, n), 0);
}

/* Walk <s> in pieces of <cut> bytes. The bytes used, or the error. */
static ssize_t walk(struct str s, size_t cut, struct http_chunks *c, struct buf *data)
{
	size_t used = 0;

	http_chunks_init(c);
	while (used < s.n && !http_chunks_done(c)) {
		size_t n = s.n - used < cut ? s.n - used : cut;
		ssize_t r = http_chunks_walk(c, s.p + used, n, data ? keep : NULL, data);

		if (r < 0) {
			assert_int_equal(http_chunks_walk(c, "0\r\n\r\n", 5, NULL, NULL), r);
			return r;
		}
		used += (size_t)r;
		assert_true((size_t)r == n || http_chunks_done(c));
	}
	return (ssize_t)used;
}

enum { WHOLE, MORE, BAD };

static void chunks_are_exactly_what_the_rfc_says(void **state)
{
	static const struct {
		const char *name;
		struct str bytes;
		int end;
		const char *data;
	} rows[] = {
		{ "empty body", STR("0\r\n\r\n"), WHOLE, "" },
		{ "two chunks", STR("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), WHOLE, "abcde" },
		{ "upper and lower hex", STR("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), WHOLE,
		  "01234567890123456789" },
		{ "CRLF in the data", STR("4\r\n\r\n\r\n\r\n0\r\n\r\n"), WHOLE, "\r\n\r\n" },
		{ "leading zeros", STR("0003\r\nabc\r\n000\r\n\r\n"), WHOLE, "abc" },
		{ "seventeen digits", STR("00000000000000003\r\nabc\r\n"), BAD, NULL },
		{ "extension", STR("3;a=b;c=\"d e\"\r\nabc\r\n0;x\r\n\r\n"), WHOLE, "abc" },
		{ "trailers", STR("3\r\nabc\r\n0\r\nX-A: b\r\nX-B:\r\n\r\n"), WHOLE, "abc" },
		{ "next message stays", STR("0\r\n\r\nPOST / HTTP/1.1\r\n\r\n"), WHOLE, "" },
		{ "cut in the size", STR("3"), MORE, "" },
		{ "cut in the data", STR("3\r\nab"), MORE, "ab" },
		{ "cut before the last CRLF", STR("3\r\nabc\r\n0\r\n"), MORE, "abc" },
		{ "cut in the last CRLF", STR("3\r\nabc\r\n0\r\n\r"), MORE, "abc" },
		{ "more than 32 bits must wait", STR("100000003\r\nabc\r\n0\r\n\r\n"), MORE, "abc\r\n0\r\n\r\n" },
		{ "2^60 must wait", STR("1000000000000000\r\nabc\r\n0\r\n\r\n"), MORE, "abc\r\n0\r\n\r\n" },
		{ "2^60 + 1", STR("1000000000000001\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "2^64 - 1", STR("ffffffffffffffff\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "2^64 + 3", STR("10000000000000003\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "no hex", STR("zz\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "0x", STR("0x3\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "negative", STR("-1\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "plus", STR("+3\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "space before", STR(" 3\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "space behind", STR("3 \r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "space before an extension", STR("3 ;a\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "no size", STR("\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "no size behind a chunk", STR("3\r\nabc\r\n\r\n\r\n"), BAD, NULL },
		{ "extension without a size", STR(";a\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "no CRLF behind the data", STR("3\r\nabcXX0\r\n\r\n"), BAD, NULL },
		{ "LF only", STR("3\nabc\n0\n\n"), BAD, NULL },
		{ "LF behind the size", STR("3\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "LF behind the data", STR("3\r\nabc\n0\r\n\r\n"), BAD, NULL },
		{ "LF in an extension", STR("3;a\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "LF at the end", STR("3\r\nabc\r\n0\r\n\n"), BAD, NULL },
		{ "LF behind the last size", STR("3\r\nabc\r\n0\n\r\n"), BAD, NULL },
		{ "CR in an extension", STR("3;a\rb\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "NUL in an extension", STR("3;a\0b\r\nabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "CR X behind the size", STR("3\rXabc\r\n0\r\n\r\n"), BAD, NULL },
		{ "trailer without a colon", STR("0\r\nGET / HTTP/1.1\r\n\r\n"), BAD, NULL },
		{ "trailer without a name", STR("0\r\n: a\r\n\r\n"), BAD, NULL },
		{ "folded trailer", STR("0\r\nA: a\r\n b\r\n\r\n"), BAD, NULL },
		{ "NUL in a trailer", STR("0\r\nA: \0\r\n\r\n"), BAD, NULL },
		{ "LF in a trailer", STR("0\r\nA: b\nC: d\r\n\r\n"), BAD, NULL },
	};

	for (size_t i = 0; i < ROWS(rows); i++)
		for (size_t cut = 1; cut <= rows[i].bytes.n; cut++) {
			struct http_chunks c;
			struct buf data = { 0 };
			ssize_t r = walk(rows[i].bytes, cut, &c, &data);

			if (r < 0 ? rows[i].end != BAD : rows[i].end != (http_chunks_done(&c) ? WHOLE : MORE))
				fail_msg("%s by %zu: %zd, done %d", rows[i].name, cut, r, http_chunks_done(&c));
			if (rows[i].end == MORE)
				assert_int_equal(r, rows[i].bytes.n);
			if (rows[i].data && !str_eq(buf_str(&data), str_of(rows[i].data)))
				fail_msg("%s by %zu: data %.*s", rows[i].name, cut, (int)buf_len(&data),
					 buf_data(&data));
			buf_free(&data);
		}
}

static void the_end_is_found_to_the_byte(void **state)
{
	struct http_chunks c;

	assert_int_equal(walk(STR("3\r\nabc\r\n0\r\n\r\nPOST"), 100, &c, NULL), 13);
	assert_int_equal(walk(STR("0\r\nA: b\r\n\r\n0\r\n\r\n"), 100, &c, NULL), 11);
	assert_int_equal(http_chunks_walk(&c, "0\r\n\r\n", 5, NULL, NULL), 0);
}

/* Extensions and trailers cost a peer nothing to send: neither may go on without end. */
static void lines_are_bounded(void **state)
{
	static const struct {
		const char *before;
		size_t fill;
		const char *after;
		bool bad;
	} rows[] = {
		{ "3;", 4096, "\r\nabc\r\n0\r\n\r\n", false },	    { "3;", 4097, "\r\nabc\r\n0\r\n\r\n", true },
		{ "3;", 1 << 20, "\r\nabc\r\n0\r\n\r\n", true },    { "0\r\nA:", HTTP_HEAD_MAX - 6, "\r\n\r\n", false },
		{ "0\r\nA:", HTTP_HEAD_MAX - 5, "\r\n\r\n", true }, { "0\r\n", 1 << 20, ":\r\n\r\n", true },
	};

	for (size_t i = 0; i < ROWS(rows); i++) {
		struct buf b = { 0 };
		struct http_chunks c;
		ssize_t r;

		assert_int_equal(buf_puts(&b, rows[i].before), 0);
		memset(buf_room(&b, rows[i].fill), 'e', rows[i].fill);
		buf_commit(&b, rows[i].fill);
		assert_int_equal(buf_puts(&b, rows[i].after), 0);
		r = walk(buf_str(&b), 1000, &c, NULL);
		if (rows[i].bad ? r != -EBADMSG : r != (ssize_t)buf_len(&b) || !http_chunks_done(&c))
			fail_msg("row %zu: %zd", i, r);
		buf_free(&b);
	}
}

/* Each chunk may have its extension of 4 KB: the bound is a line's, not the body's. */
static void many_extensions_are_not_one_long_one(void **state)
{
	struct buf b = { 0 };
	struct http_chunks c;

	for (int i = 0; i < 20; i++)
		assert_int_equal(buf_printf(&b, "1;%*s\r\nx\r\n", 4000, "e"), 0);
	assert_int_equal(buf_puts(&b, "0\r\n\r\n"), 0);
	assert_int_equal(walk(buf_str(&b), 7, &c, NULL), buf_len(&b));
	assert_true(http_chunks_done(&c));
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chunks_are_exactly_what_the_rfc_says),
		cmocka_unit_test(the_end_is_found_to_the_byte),
		cmocka_unit_test(lines_are_bounded),
		cmocka_unit_test(many_extensions_are_not_one_long_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
