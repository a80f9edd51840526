/* SPDX-License-Identifier: Apache-2.0
 *
 * zlib reads gzip and deflate, zstd its own; one loop feeds either, in steps of STEP bytes of output, so that a body
 * that unpacks a thousandfold is caught within one of them.
 */
#include "http/inflate.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#ifdef KVS_ZSTD
#include <zstd.h>
#endif

#define STEP (64u << 10)

struct http_inflate {
	bool ended;
	bool deflate; /* and it is not known yet whether it has zlib's frame, which some clients leave out */
	unsigned nhead;
	char head[2]; /* what tells */
	z_stream z;
#ifdef KVS_ZSTD
	ZSTD_DStream *zstd;
#endif
};

/* windowBits of zlib: 15 is the largest window, + 16 is gzip only, negative is deflate without a frame. */
static int start_zlib(struct http_inflate *f, int bits)
{
	return inflateInit2(&f->z, bits) == Z_OK ? 0 : -ENOMEM;
}

struct http_inflate *http_inflate_new(struct str coding)
{
	struct http_inflate *f = calloc(1, sizeof(*f));
	int e = -ENOTSUP;

	if (!f)
		return NULL;
	if (str_ieq(coding, STR("gzip")) || str_ieq(coding, STR("x-gzip"))) {
		e = start_zlib(f, 15 + 16);
	} else if (str_ieq(coding, STR("deflate"))) {
		f->deflate = true;
		e = 0;
	}
#ifdef KVS_ZSTD
	else if (str_ieq(coding, STR("zstd"))) {
		f->zstd = ZSTD_createDStream();
		/* RFC 8878: a window of 8 MB is what a receiver must support; more is not held for anyone. */
		e = f->zstd && !ZSTD_isError(ZSTD_DCtx_setParameter(f->zstd, ZSTD_d_windowLogMax, 23)) ? 0 : -ENOMEM;
	}
#endif
	if (e) {
		http_inflate_free(f);
		errno = -e;
		return NULL;
	}
	return f;
}

void http_inflate_free(struct http_inflate *f)
{
	if (!f)
		return;
	if (f->z.state)
		inflateEnd(&f->z);
#ifdef KVS_ZSTD
	ZSTD_freeDStream(f->zstd);
#endif
	free(f);
}

/* One step from *p to <to>, which has STEP bytes. How many bytes came out, or -EBADMSG. */
static ssize_t step(struct http_inflate *f, const char **p, size_t *n, char *to)
{
	int r;

#ifdef KVS_ZSTD
	if (f->zstd) {
		ZSTD_inBuffer in = { *p, *n, 0 };
		ZSTD_outBuffer out = { to, STEP, 0 };
		size_t left = ZSTD_decompressStream(f->zstd, &out, &in);

		if (ZSTD_isError(left))
			return -EBADMSG;
		*p += in.pos;
		*n -= in.pos;
		f->ended = left == 0;
		return (ssize_t)out.pos;
	}
#endif
	/* zlib's counters have 32 bits. */
	f->z.next_in = (Bytef *)(uintptr_t)*p;
	f->z.avail_in = *n > STEP ? STEP : (uInt)*n;
	f->z.next_out = (Bytef *)to;
	f->z.avail_out = STEP;
	r = inflate(&f->z, Z_NO_FLUSH);
	if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
		return -EBADMSG;
	*n -= (size_t)((const char *)f->z.next_in - *p);
	*p = (const char *)f->z.next_in;
	f->ended = r == Z_STREAM_END;
	return (ssize_t)(STEP - f->z.avail_out);
}

static int unpack(struct http_inflate *f, const char *p, size_t n, struct buf *out, size_t max)
{
	for (;;) {
		size_t before = n;
		ssize_t k;
		char *to;

		if (f->ended)
			return n ? -EBADMSG : 1; /* a second member, or what is none */
		to = buf_room(out, STEP);
		if (!to)
			return -ENOMEM;
		k = step(f, &p, &n, to);
		if (k < 0)
			return (int)k;
		if (buf_len(out) + (size_t)k > max)
			return -E2BIG;
		buf_commit(out, (size_t)k);
		if (!f->ended && n == 0 && k < (ssize_t)STEP)
			return 0;
		if (!f->ended && k == 0 && n == before)
			return -EBADMSG; /* no step forward */
	}
}

int http_inflate_feed(struct http_inflate *f, const char *p, size_t n, struct buf *out, size_t max)
{
	int r;

	if (f->deflate) {
		unsigned u;

		for (; f->nhead < 2 && n; n--)
			f->head[f->nhead++] = *p++;
		if (f->nhead < 2)
			return 0;
		u = (unsigned char)f->head[0] * 256u + (unsigned char)f->head[1];
		f->deflate = false;
		r = start_zlib(f, (u >> 8 & 15) == Z_DEFLATED && u % 31 == 0 ? 15 : -15);
		if (!r)
			r = unpack(f, f->head, 2, out, max);
		if (r)
			return r < 0 ? r : n ? -EBADMSG : r;
	}
	return unpack(f, p, n, out, max);
}
