/* SPDX-License-Identifier: Apache-2.0
 * A growable run of bytes with a read mark: append at the end, consume from the front.
 *
 * Ownership: the struct is the caller's, the bytes are the buffer's. {0} is an empty buffer that holds no memory.
 * Threads: none; one owner at a time.
 */
#ifndef KVS_BASE_BUF_H
#define KVS_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

#include "base/str.h"

struct buf {
	char *mem;
	size_t off; /* first byte not consumed */
	size_t len; /* end of the data; len - off bytes are unread */
	size_t cap;
};

static inline char *buf_data(const struct buf *b)
{
	return b->mem ? b->mem + b->off : NULL;
}

static inline size_t buf_len(const struct buf *b)
{
	return b->len - b->off;
}

static inline struct str buf_str(const struct buf *b)
{
	return (struct str){ buf_data(b), b->len - b->off };
}

/* Room for <n> more bytes behind the data: the place to write to, or NULL (ENOMEM). Moves the data to the front
 * before it grows. Follow with buf_commit. */
char *buf_room(struct buf *b, size_t n);

static inline size_t buf_space(const struct buf *b)
{
	return b->cap - b->len;
}

static inline void buf_commit(struct buf *b, size_t n)
{
	b->len += n;
}

int buf_put(struct buf *b, const void *p, size_t n); /* 0 or -ENOMEM; all or nothing */
int buf_puts(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *b, const char *fmt, va_list ap);

/* <n> ≤ buf_len. An emptied buffer starts again at its front; it keeps its memory (buf_free gives it back). */
static inline void buf_consume(struct buf *b, size_t n)
{
	b->off += n;
	if (b->off == b->len)
		b->off = b->len = 0;
}

void buf_free(struct buf *b); /* back to {0} */

#endif
