/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as tokenizer.json: refused with a line that names the file, or a vocabulary that passes its own check, with
 * an encoder or a reason why there is none.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "model/encoder.h"
#include "model/vocab_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/kvs-fuzz-XXXXXX", path[64];

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void tidy(void)
{
	unlink(path);
	rmdir(dir);
}

static void try_encoder(struct vocab *v)
{
	static const char *const texts[] = { "a b", "ab  don't 12345\n\n x", "\xe2\x96\x81\xe4\xb8\xad e\xcc\x81 <s>",
					     "" };
	struct encoder *e = encoder_new(v);
	struct buf ids = { 0 }, back = { 0 };

	require(!e == !!vocab_no_encoder(v));
	for (size_t i = 0; e && i < sizeof(texts) / sizeof(texts[0]); i++)
		require(encoder_encode(e, str_of(texts[i]), true, &ids) == 0);
	if (buf_len(&ids)) {
		int r = vocab_text(v, (const uint32_t *)(const void *)buf_data(&ids), buf_len(&ids) / 4, &back);

		require(r == 0);
	}
	buf_free(&ids);
	buf_free(&back);
	encoder_free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char err[512] = "";
	struct vocab *v;
	FILE *f;

	if (!*path) {
		require(mkdtemp(dir) != NULL);
		snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
		atexit(tidy);
	}
	f = fopen(path, "w");
	require(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
	v = vocab_load(dir, NULL, err, sizeof(err));
	require(v || (errno && strncmp(err, path, strlen(path)) == 0));
	if (v) {
		require(!image_check(v->img, v->img->bytes));
		try_encoder(v);
	}
	vocab_unref(v);
	return 0;
}
