/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bench.h"

enum { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, DONE };

void reply_init(struct reply *r)
{
	r->state = HEAD;
	r->status = 0;
	r->chunked = r->close = false;
	r->left = r->body = 0;
	r->n = 0;
}

bool reply_done(const struct reply *r)
{
	return r->state == DONE;
}

bool reply_begun(const struct reply *r)
{
	return r->state != HEAD || r->n;
}

static void keep(struct reply *r, const char *p, size_t n)
{
	size_t room = sizeof(r->line) - 1 - r->n;

	if (n > room)
		n = room;
	memcpy(r->line + r->n, p, n);
	r->n += (uint32_t)n;
}

static void body_feed(struct reply *r, const char *p, size_t n, reply_line_fn *fn, void *arg)
{
	const char *nl;
	size_t part;

	r->body += n;
	while (n) {
		nl = memchr(p, '\n', n);
		part = nl ? (size_t)(nl - p) : n;
		if (nl && !r->n) {
			fn(arg, p, part);
		} else {
			keep(r, p, part);
			if (nl) {
				fn(arg, r->line, r->n);
				r->n = 0;
			}
		}
		part += nl ? 1 : 0;
		p += part;
		n -= part;
	}
}

static void body_end(struct reply *r, reply_line_fn *fn, void *arg)
{
	if (r->n)
		fn(arg, r->line, r->n);
	r->n = 0;
	r->state = DONE;
}

/* One line of the head without its end; an empty one ends it. */
static int head_line(struct reply *r, reply_line_fn *fn, void *arg)
{
	char *s = r->line;

	r->line[r->n] = '\0';
	if (r->n && s[r->n - 1] == '\r')
		s[--r->n] = '\0';
	if (!r->status) {
		if (strncmp(s, "HTTP/1.", 7) != 0 || r->n < 12)
			return -EPROTO;
		r->status = atoi(s + 9);
	} else if (!strncasecmp(s, "content-length:", 15)) {
		r->left = strtoull(s + 15, NULL, 10);
	} else if (!strncasecmp(s, "transfer-encoding:", 18)) {
		r->chunked = strcasestr(s, "chunked") != NULL;
	} else if (!strncasecmp(s, "connection:", 11)) {
		r->close = strcasestr(s, "close") != NULL;
	} else if (!r->n) {
		r->state = r->chunked ? CHUNK_SIZE : BODY;
		if (!r->chunked && !r->left)
			body_end(r, fn, arg);
	}
	r->n = 0;
	return 0;
}

/* Lines of framing are taken byte by byte, so that a cut anywhere does not matter. */
static int frame_byte(struct reply *r, char c, reply_line_fn *fn, void *arg)
{
	int d;

	switch (r->state) {
	case HEAD:
		if (c != '\n') {
			keep(r, &c, 1);
			return 0;
		}
		return head_line(r, fn, arg);
	case CHUNK_SIZE:
		if (c == '\n') {
			r->state = r->left ? CHUNK : TRAILER;
			return 0;
		}
		d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
		if (d >= 0)
			r->left = r->left * 16 + (uint64_t)d;
		else if (c != '\r')
			return -EPROTO;
		return 0;
	case CHUNK_END:
		if (c == '\n') {
			r->state = CHUNK_SIZE;
			r->left = 0;
		} else if (c != '\r') {
			return -EPROTO;
		}
		return 0;
	case TRAILER:
		if (c == '\n')
			body_end(r, fn, arg);
		else if (c != '\r')
			return -EPROTO;
		return 0;
	default:
		return -EPROTO;
	}
}

int reply_feed(struct reply *r, const char *p, size_t n, reply_line_fn *fn, void *arg)
{
	size_t part;
	int err;

	while (n) {
		if (r->state != BODY && r->state != CHUNK) {
			err = frame_byte(r, *p, fn, arg);
			if (err)
				return err;
			p++;
			n--;
			continue;
		}
		part = n < r->left ? n : (size_t)r->left;
		body_feed(r, p, part, fn, arg);
		r->left -= part;
		p += part;
		n -= part;
		if (r->left)
			continue;
		if (r->state == CHUNK)
			r->state = CHUNK_END;
		else
			body_end(r, fn, arg);
	}
	return 0;
}
