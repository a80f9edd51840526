/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "http/inflate.h"

/* <text> packed by zlib with these windowBits. */
static struct buf pack(const char *text, size_t n, int bits)
{
	struct buf b = { 0 };
	z_stream z = { 0 };

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, bits, 9, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)(uintptr_t)text;
	z.avail_in = (uInt)n;
	z.avail_out = (uInt)deflateBound(&z, n);
	z.next_out = (Bytef *)buf_room(&b, z.avail_out);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	buf_commit(&b, z.total_out);
	deflateEnd(&z);
	return b;
}

static int unpack(const char *coding, struct str in, size_t step, struct buf *out, size_t max)
{
	struct http_inflate *f = http_inflate_new(str_of(coding));
	int r = 0;

	assert_non_null(f);
	for (size_t at = 0; at < in.n && r >= 0; at += step)
		r = http_inflate_feed(f, in.p + at, step < in.n - at ? step : in.n - at, out, max);
	http_inflate_free(f);
	return r;
}

static void each_flavour_unpacks_however_it_arrives(void **state)
{
	static const struct {
		const char *coding;
		int bits;
	} rows[] = { { "gzip", 31 }, { "X-GZip", 31 }, { "deflate", 15 }, { "deflate", -15 } };
	char *text = malloc(300000);

	for (size_t i = 0; i < 300000; i++)
		text[i] = (char)('a' + i * i % 23);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (size_t step = 1; step < 1000000; step *= 7) {
			struct buf z = pack(text, 300000, rows[i].bits), out = { 0 };

			assert_int_equal(unpack(rows[i].coding, buf_str(&z), step, &out, 300000), 1);
			assert_int_equal(buf_len(&out), 300000);
			assert_memory_equal(buf_data(&out), text, 300000);
			buf_free(&z);
			buf_free(&out);
		}
	free(text);
}

static void what_is_too_much_broken_or_unknown_is_said(void **state)
{
	char zeros[4096] = { 0 };
	struct buf z = pack(zeros, sizeof(zeros), 31), out = { 0 };
	struct str all = buf_str(&z);

	assert_int_equal(unpack("gzip", all, all.n, &out, sizeof(zeros) - 1), -E2BIG);
	buf_free(&out);
	assert_int_equal(unpack("gzip", (struct str){ all.p, all.n - 1 }, all.n, &out, 1 << 20), 0);
	buf_free(&out);
	buf_put(&z, "x", 1);
	assert_int_equal(unpack("gzip", buf_str(&z), 1, &out, 1 << 20), -EBADMSG);
	buf_free(&out);
	assert_int_equal(unpack("gzip", STR("no gzip at all"), 3, &out, 1 << 20), -EBADMSG);
	assert_int_equal(unpack("deflate", STR("x"), 1, &out, 1 << 20), 0);
	assert_int_equal(unpack("deflate", STR("\x78\x9cno"), 1, &out, 1 << 20), -EBADMSG);
	assert_null(http_inflate_new(STR("br")));
	assert_int_equal(errno, ENOTSUP);
	assert_null(http_inflate_new(STR("gzip, gzip")));
	buf_free(&out);
	buf_free(&z);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_flavour_unpacks_however_it_arrives),
		cmocka_unit_test(what_is_too_much_broken_or_unknown_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
