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

enum { SIZE, EXT, SIZE_LF, DATA, DATA_CR, DATA_LF, LINE, NAME, VALUE, LINE_LF, END_LF, DONE, BAD };

void http_chunks_init(struct http_chunks *c)
{
	*c = (struct http_chunks){ .state = SIZE };
}

bool http_chunks_done(const struct http_chunks *c)
{
	return c->state == DONE;
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
			return BAD;
		c->left = c->left << 4 | (unsigned)d;
		return c->left > CHUNK_SIZE_MAX ? BAD : SIZE;
	}
	if (c->digits == 0)
		return BAD;
	return b == '\r' ? SIZE_LF : b == ';' ? EXT : BAD;
}

static int trailer_step(struct http_chunks *c, char b)
{
	if (++c->trailer > HTTP_HEAD_MAX)
		return BAD;
	switch (c->state) {
	case LINE:
		return b == '\r' ? END_LF : http_is(b, HTTP_C_TOKEN) ? NAME : BAD;
	case NAME:
		return b == ':' ? VALUE : http_is(b, HTTP_C_TOKEN) ? NAME : BAD;
	case VALUE:
		return b == '\r' ? LINE_LF : http_is(b, HTTP_C_VALUE) ? VALUE : BAD;
	case LINE_LF:
		return b == '\n' ? LINE : BAD;
	default: /* END_LF */
		return b == '\n' ? DONE : BAD;
	}
}

static int step(struct http_chunks *c, char b)
{
	switch (c->state) {
	case SIZE:
		return size_step(c, b);
	case EXT:
		if (b == '\r')
			return SIZE_LF;
		return http_is(b, HTTP_C_VALUE) && ++c->line <= CHUNK_LINE_MAX ? EXT : BAD;
	case SIZE_LF:
		c->digits = 0;
		c->line = 0;
		return b != '\n' ? BAD : c->left ? DATA : LINE;
	case DATA_CR:
		return b == '\r' ? DATA_LF : BAD;
	case DATA_LF:
		return b == '\n' ? SIZE : BAD;
	default:
		return trailer_step(c, b);
	}
}

ssize_t http_chunks_walk(struct http_chunks *c, const char *p, size_t n,
			 void (*data)(void *arg, const char *p, size_t n), void *arg)
{
	size_t i = 0;

	while (i < n && c->state < DONE) {
		if (c->state == DATA) {
			size_t k = n - i < c->left ? n - i : (size_t)c->left;

			if (data)
				data(arg, p + i, k);
			i += k;
			c->left -= k;
			if (c->left == 0)
				c->state = DATA_CR;
			continue;
		}
		c->state = (uint8_t)step(c, p[i++]);
	}
	return c->state == BAD ? -EBADMSG : (ssize_t)i;
}
