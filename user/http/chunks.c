/* SPDX-License-Identifier: Apache-2.0
 *
 *   SIZE ──';'──► EXT ─┐          ┌── LINE ◄─┐  (a trailer: NAME ':' VALUE CR LF)
 *     └───CR──► SIZE_LF ┴─ size 0 ─┴─CR─► END_LF ─► DONE
 *                  └── size > 0 ─► DATA ─► DATA_CR ─► DATA_LF ─► SIZE
 *
 * Framing is a handful of bytes a chunk and is walked one by one; data is skipped in one step. BAD is final.
 */
#include "http/http.h"

#include <errno.h>

#include "http/http_int.h"

#define CHUNK_SIZE_MAX	 (1ULL << 60)
#define CHUNK_DIGITS_MAX 16
#define CHUNK_LINE_MAX	 4096

void http_chunks_init(struct http_chunks *c)
{
	*c = (struct http_chunks){ .state = HTTP_CHUNK_SIZE };
}

bool http_chunks_done(const struct http_chunks *c)
{
	return c->state == HTTP_CHUNK_DONE;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int size_step(struct http_chunks *c, char b)
{
	int d = hex(b);

	if (d >= 0) {
		/* 16 digits fit into 64 bits, so the sum cannot wrap before it is compared. */
		if (++c->digits > CHUNK_DIGITS_MAX)
			return HTTP_CHUNK_BAD;
		c->left = c->left << 4 | (unsigned)d;
		return c->left > CHUNK_SIZE_MAX ? HTTP_CHUNK_BAD : HTTP_CHUNK_SIZE;
	}
	if (c->digits == 0)
		return HTTP_CHUNK_BAD;
	return b == '\r' ? HTTP_CHUNK_SIZE_LF : b == ';' ? HTTP_CHUNK_EXT : HTTP_CHUNK_BAD;
}

static int trailer_step(struct http_chunks *c, char b)
{
	if (++c->trailer > HTTP_HEAD_MAX)
		return HTTP_CHUNK_BAD;
	switch (c->state) {
	case HTTP_CHUNK_LINE:
		return b == '\r' ? HTTP_CHUNK_END_LF : http_is(b, HTTP_C_TOKEN) ? HTTP_CHUNK_NAME : HTTP_CHUNK_BAD;
	case HTTP_CHUNK_NAME:
		return b == ':' ? HTTP_CHUNK_VALUE : http_is(b, HTTP_C_TOKEN) ? HTTP_CHUNK_NAME : HTTP_CHUNK_BAD;
	case HTTP_CHUNK_VALUE:
		return b == '\r' ? HTTP_CHUNK_LINE_LF : http_is(b, HTTP_C_VALUE) ? HTTP_CHUNK_VALUE : HTTP_CHUNK_BAD;
	case HTTP_CHUNK_LINE_LF:
		return b == '\n' ? HTTP_CHUNK_LINE : HTTP_CHUNK_BAD;
	default: /* HTTP_CHUNK_END_LF */
		return b == '\n' ? HTTP_CHUNK_DONE : HTTP_CHUNK_BAD;
	}
}

static int step(struct http_chunks *c, char b)
{
	switch (c->state) {
	case HTTP_CHUNK_SIZE:
		return size_step(c, b);
	case HTTP_CHUNK_EXT:
		if (b == '\r')
			return HTTP_CHUNK_SIZE_LF;
		return http_is(b, HTTP_C_VALUE) && ++c->line <= CHUNK_LINE_MAX ? HTTP_CHUNK_EXT : HTTP_CHUNK_BAD;
	case HTTP_CHUNK_SIZE_LF:
		c->digits = 0;
		c->line = 0;
		return b != '\n' ? HTTP_CHUNK_BAD : c->left ? HTTP_CHUNK_DATA : HTTP_CHUNK_LINE;
	case HTTP_CHUNK_DATA_CR:
		return b == '\r' ? HTTP_CHUNK_DATA_LF : HTTP_CHUNK_BAD;
	case HTTP_CHUNK_DATA_LF:
		return b == '\n' ? HTTP_CHUNK_SIZE : HTTP_CHUNK_BAD;
	default:
		return trailer_step(c, b);
	}
}

ssize_t http_chunks_walk(struct http_chunks *c, const char *p, size_t n,
			 void (*data)(void *arg, const char *p, size_t n), void *arg)
{
	size_t i = 0;

	while (i < n && c->state < HTTP_CHUNK_DONE) {
		if (c->state == HTTP_CHUNK_DATA) {
			size_t k = n - i < c->left ? n - i : (size_t)c->left;

			if (data)
				data(arg, p + i, k);
			i += k;
			c->left -= k;
			if (c->left == 0)
				c->state = HTTP_CHUNK_DATA_CR;
			continue;
		}
		c->state = (uint8_t)step(c, p[i++]);
	}
	return c->state == HTTP_CHUNK_BAD ? -EBADMSG : (ssize_t)i;
}
