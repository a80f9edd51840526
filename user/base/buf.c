/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

char *buf_room(struct buf *b, size_t n)
{
	size_t used = b->len - b->off;
	size_t cap;
	char *mem;

	if (b->cap - b->len >= n && b->mem)
		return b->mem + b->len;
	if (n > SIZE_MAX / 4 - used) {
		errno = ENOMEM;
		return NULL;
	}
	/* Moving pays only where it frees at least half, else a slow reader makes it quadratic. */
	if (b->cap - used >= n && b->off >= used && b->mem) {
		memmove(b->mem, b->mem + b->off, used);
		b->off = 0;
		b->len = used;
		return b->mem + b->len;
	}
	cap = b->cap ? b->cap : 256;
	while (cap < used + n)
		cap *= 2;
	if (b->off == 0 || !b->mem) {
		mem = realloc(b->mem, cap);
		if (!mem)
			return NULL;
	} else {
		mem = malloc(cap);
		if (!mem)
			return NULL;
		memcpy(mem, b->mem + b->off, used);
		free(b->mem);
		b->off = 0;
		b->len = used;
	}
	b->mem = mem;
	b->cap = cap;
	return mem + b->len;
}

int buf_put(struct buf *b, const void *p, size_t n)
{
	char *to;

	if (n == 0)
		return 0;
	to = buf_room(b, n);
	if (!to)
		return -ENOMEM;
	memcpy(to, p, n);
	b->len += n;
	return 0;
}

int buf_puts(struct buf *b, const char *s)
{
	return buf_put(b, s, strlen(s));
}

int buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	char *to = buf_room(b, 128);
	int n;

	if (!to)
		return -ENOMEM;
	va_copy(again, ap);
	n = vsnprintf(to, b->cap - b->len, fmt, ap);
	if (n >= 0 && (size_t)n >= b->cap - b->len) {
		to = buf_room(b, (size_t)n + 1);
		if (to)
			vsnprintf(to, b->cap - b->len, fmt, again);
	}
	va_end(again);
	if (!to)
		return -ENOMEM;
	if (n < 0)
		return -EINVAL;
	b->len += (size_t)n;
	return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = buf_vprintf(b, fmt, ap);
	va_end(ap);
	return r;
}

void buf_free(struct buf *b)
{
	free(b->mem);
	*b = (struct buf){ 0 };
}
