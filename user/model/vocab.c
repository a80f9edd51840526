/* SPDX-License-Identifier: Apache-2.0 */
#include "model/vocab.h"

#include <errno.h>
#include <stdlib.h>

#include "model/vocab_int.h"

struct vocab *vocab_bytes(void)
{
	static const char why[] = "the table of bytes has no tokenizer";
	static const uint64_t source[2];
	static const struct image_rules rules;
	struct str part[IMG_PARTS] = { 0 };
	uint32_t off[257];
	struct image *g;
	char text[256];

	for (unsigned i = 0; i < 256; i++)
		text[i] = (char)i;
	for (unsigned i = 0; i <= 256; i++)
		off[i] = i;
	part[IMG_OFF] = (struct str){ (char *)off, sizeof(off) };
	part[IMG_TEXT] = (struct str){ text, sizeof(text) };
	part[IMG_WHY] = (struct str){ why, sizeof(why) };
	g = image_make(&rules, 256, source, part);
	return g ? vocab_adopt(g, false) : NULL;
}

struct vocab *vocab_ref(struct vocab *v)
{
	atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
	return v;
}

void vocab_unref(struct vocab *v)
{
	if (!v || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) > 1)
		return;
	image_release(v->img, v->mapped);
	free(v);
}

uint32_t vocab_size(const struct vocab *v)
{
	return v->img->ids;
}

struct str vocab_token(const struct vocab *v, uint32_t id)
{
	uint32_t at;

	if (id >= v->img->ids || v->off[id] & HOLE)
		return (struct str){ NULL, 0 };
	at = v->off[id];
	return (struct str){ v->text + at, (v->off[id + 1] & ~HOLE) - at };
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
	return image_str(v->img, IMG_PREFIX);
}

struct str vocab_name(const struct vocab *v)
{
	return image_str(v->img, IMG_NAME);
}

void vocab_source(const struct vocab *v, char ret[VOCAB_SOURCE])
{
	static const char digit[] = "0123456789abcdef";

	for (unsigned i = 0; i < 32; i++)
		ret[i] = digit[v->img->source[i / 16] >> (60 - i % 16 * 4) & 15];
	ret[32] = '\0';
}
