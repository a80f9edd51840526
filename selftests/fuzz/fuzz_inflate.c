/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a packed body: bounded output, the same however they are cut.
 */
#include <errno.h>
#include <stdlib.h>

#include "http/inflate.h"

#define MAX (1u << 18)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int unpack(struct str coding, const char *p, size_t n, size_t step, struct buf *out)
{
	struct http_inflate *f = http_inflate_new(coding);
	int r = 0;

	if (!f)
		return -ENOTSUP;
	for (size_t at = 0; at < n && r >= 0; at += step)
		r = http_inflate_feed(f, p + at, step < n - at ? step : n - at, out, MAX);
	http_inflate_free(f);
	if (buf_len(out) > MAX)
		abort();
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct str codings[] = { STR("gzip"), STR("deflate"), STR("zstd") };
	const char *p = (const char *)data + 2;

	if (size < 3)
		return 0;
	for (size_t i = 0; i < 3; i++) {
		struct buf one = { 0 }, many = { 0 };
		int a = unpack(codings[i], p, size - 2, size, &one), b;

		b = unpack(codings[i], p, size - 2, 1 + data[0] % 16, &many);
		/* What is both broken and too large may be said to be either. */
		if ((a < 0) != (b < 0) || (a >= 0 && a != b) || (a >= 0 && !str_eq(buf_str(&one), buf_str(&many))))
			abort();
		buf_free(&one);
		buf_free(&many);
	}
	return 0;
}
