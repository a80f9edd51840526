/* SPDX-License-Identifier: Apache-2.0
 * One blob holds all tokens' bytes in the order of their ids, off[i] … off[i + 1] is token i. An id that the tokenizer
 * does not have carries HOLE in its offset (an empty token is not a hole).
 */
#include "model/vocab.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "model/vocab_int.h"

#define HOLE UINT32_C(0x80000000)

struct vocab {
	atomic_uint refs;
	uint32_t n;
	struct str prefix; /* in the same allocation as the blob */
	uint32_t *off;	   /* n + 1 */
	char *blob;
};

struct vocab *vocab_make(const char *text, const struct vocab_span *span, uint32_t n, struct str prefix)
{
	struct vocab *v = calloc(1, sizeof(*v));
	size_t bytes = 0, at = 0;

	for (uint32_t i = 0; i < n; i++)
		bytes += span[i].len;
	if (bytes >= HOLE) {
		free(v);
		errno = EFBIG;
		return NULL;
	}
	if (!v)
		return NULL;
	v->off = malloc(((size_t)n + 1) * sizeof(*v->off));
	v->blob = malloc(bytes + prefix.n + 1);
	if (!v->off || !v->blob) {
		vocab_unref(v);
		errno = ENOMEM;
		return NULL;
	}
	for (uint32_t i = 0; i < n; i++) {
		v->off[i] = (uint32_t)at | (span[i].known ? 0 : HOLE);
		if (span[i].len)
			memcpy(v->blob + at, text + span[i].off, span[i].len);
		at += span[i].len;
	}
	v->off[n] = (uint32_t)at;
	if (prefix.n)
		memcpy(v->blob + at, prefix.p, prefix.n);
	v->prefix = (struct str){ v->blob + at, prefix.n };
	v->n = n;
	atomic_init(&v->refs, 1);
	return v;
}

struct vocab *vocab_bytes(void)
{
	struct vocab_span span[256];
	char text[256];

	for (unsigned i = 0; i < 256; i++) {
		text[i] = (char)i;
		span[i] = (struct vocab_span){ .off = i, .len = 1, .known = true };
	}
	return vocab_make(text, span, 256, STR(""));
}

struct vocab *vocab_ref(struct vocab *v)
{
	atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
	return v;
}

void vocab_unref(struct vocab *v)
{
	/* A table that is not finished has no references yet. */
	if (!v || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) > 1)
		return;
	free(v->off);
	free(v->blob);
	free(v);
}

uint32_t vocab_size(const struct vocab *v)
{
	return v->n;
}

struct str vocab_token(const struct vocab *v, uint32_t id)
{
	uint32_t at;

	if (id >= v->n || v->off[id] & HOLE)
		return (struct str){ NULL, 0 };
	at = v->off[id];
	return (struct str){ v->blob + at, (v->off[id + 1] & ~HOLE) - at };
}

int vocab_text(const struct vocab *v, const uint32_t *ids, size_t n, struct buf *out)
{
	size_t bytes = 0;
	char *to;

	for (size_t i = 0; i < n; i++) {
		struct str s = vocab_token(v, ids[i]);

		if (!s.p)
			return -ERANGE;
		bytes += s.n;
	}
	if (!bytes)
		return 0;
	to = buf_room(out, bytes);
	if (!to)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct str s = vocab_token(v, ids[i]);

		if (s.n)
			memcpy(to, s.p, s.n);
		to += s.n;
	}
	buf_commit(out, bytes);
	return 0;
}

struct str vocab_prefix(const struct vocab *v)
{
	return v->prefix;
}
