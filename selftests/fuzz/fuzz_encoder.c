/* SPDX-License-Identifier: Apache-2.0
 * Any text with a tokenizer of each family: refused where it is no UTF-8; else the same ids again from the cache as
 * without it, which give the text back where no normalizer rewrites it and no added token strips it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/encoder.h"
#include "model/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
	const char *dir;
	bool exact; /* nothing is rewritten */
} families[] = {
	{ "qwen", false },	{ "llama3", true },
	{ "o200k", true },	{ "tekken", true },
	{ "deepseek", true },	{ "gpt2", true },
	{ "gemma", false },	{ "llama2", false },
	{ "metaspace", false }, { "metaspace-split", false },
};
static struct vocab *vocab[sizeof(families) / sizeof(families[0])];

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void encode(size_t i, struct str text, bool valid)
{
	struct encoder *e = encoder_new(vocab[i]);
	struct buf a = { 0 }, b = { 0 }, back = { 0 };
	int r;

	require(e != NULL);
	r = encoder_encode(e, text, false, &a);
	require(r == (valid ? 0 : -EILSEQ));
	require(encoder_encode(e, text, false, &b) == r);
	require(str_eq(buf_str(&a), buf_str(&b)));
	if (families[i].exact && valid && !memmem(text.p, text.n, "<left>", 6) &&
	    !memmem(text.p, text.n, "<right>", 7)) {
		require(vocab_text(vocab[i], (const uint32_t *)(const void *)buf_data(&a), buf_len(&a) / 4, &back) ==
			0);
		require(str_eq(buf_str(&back), text));
	}
	buf_free(&a);
	buf_free(&b);
	buf_free(&back);
	encoder_free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str text = { (const char *)data, size };
	char dir[64], err[256];
	bool cut;

	for (size_t i = 0; i < sizeof(vocab) / sizeof(vocab[0]); i++) {
		snprintf(dir, sizeof(dir), "selftests/data/bpe/%s", families[i].dir);
		if (!vocab[i])
			vocab[i] = vocab_load(dir, NULL, err, sizeof(err));
		require(vocab[i] != NULL);
		encode(i, text, utf8_valid(text.p, text.n, &cut) == text.n);
	}
	return 0;
}
