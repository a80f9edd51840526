/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a compiled vocabulary by somebody who can sum up: refused, or every index in it is good enough to encode
 * and to read back with.
 */
#include <stdlib.h>

#include "model/encoder.h"
#include "model/vocab_int.h"

static uint64_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(struct vocab *v)
{
	static const char *const texts[] = { "a b <|im_start|>x", "  don't 12345\n\n",
					     "\xe2\x96\x81\xe4\xb8\xad e\xcc\x81 aaaaaaaa", "" };
	struct encoder *e = encoder_new(v);
	struct buf ids = { 0 }, back = { 0 };

	for (size_t i = 0; e && i < sizeof(texts) / sizeof(texts[0]); i++) {
		ids.len = ids.off = back.len = back.off = 0;
		if (encoder_encode(e, str_of(texts[i]), true, &ids) == 0 && buf_len(&ids))
			vocab_text(v, (const uint32_t *)(const void *)buf_data(&ids), buf_len(&ids) / 4, &back);
	}
	for (uint32_t i = 0; i < vocab_size(v) && i < 4096; i++) {
		struct str s = vocab_token(v, i);

		for (size_t k = 0; k < s.n; k++)
			sink += (unsigned char)s.p[k];
	}
	buf_free(&ids);
	buf_free(&back);
	encoder_free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image *g = aligned_alloc(64, size / 64 * 64 + 64);
	struct vocab *v;
	uint64_t sum[2];

	if (!g)
		return 0;
	memcpy(g, data, size);
	if (size >= sizeof(*g)) {
		memcpy(g->magic, IMAGE_MAGIC, sizeof(g->magic));
		g->schema = IMAGE_SCHEMA;
		g->bytes = size;
		image_sum(g->source, size - offsetof(struct image, source), sum);
		g->sum = sum[0];
	}
	if (image_check(g, size)) {
		free(g);
		return 0;
	}
	v = vocab_adopt(g, false);
	if (v)
		use(v);
	vocab_unref(v);
	return 0;
}
