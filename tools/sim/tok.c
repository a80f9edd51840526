/* SPDX-License-Identifier: Apache-2.0
 *
 * Without a vocabulary, token i is the byte i, as in vocab_bytes. With one, its tokenizer's own ids.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/encoder.h"

#include "sim.h"

int ids_put(struct ids *t, uint32_t id)
{
	if (t->n == t->cap) {
		uint32_t cap = t->cap ? 2 * t->cap : 256;
		uint32_t *v = realloc(t->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		t->v = v;
		t->cap = cap;
	}
	t->v[t->n++] = id;
	return 0;
}

static struct {
	struct vocab *v;
	struct encoder *e;
	struct buf ids;
	struct ids words; /* tokens that are a space and a plain word */
} tok;

static bool plain_word(struct str s)
{
	if (s.n < 3 || s.p[0] != ' ')
		return false;
	for (size_t i = 1; i < s.n; i++)
		if (s.p[i] < 'a' || s.p[i] > 'z')
			return false;
	return true;
}

int tok_load(const char *dir, char *err, size_t err_len)
{
	int r = 0;

	tok.v = vocab_load(dir, NULL, err, err_len);
	if (!tok.v)
		return -errno;
	tok.e = encoder_new(tok.v);
	if (!tok.e) {
		r = -errno;
		snprintf(err, err_len, "%s: %s", dir, vocab_no_encoder(tok.v) ? vocab_no_encoder(tok.v) : strerror(-r));
	}
	for (uint32_t i = 0; !r && i < vocab_size(tok.v); i++)
		if (plain_word(vocab_token(tok.v, i)) && tok.words.n < 4096)
			r = ids_put(&tok.words, i);
	if (r)
		tok_unload();
	return r;
}

void tok_unload(void)
{
	encoder_free(tok.e);
	vocab_unref(tok.v);
	buf_free(&tok.ids);
	free(tok.words.v);
	memset(&tok, 0, sizeof(tok));
}

/* A token for each byte. */
static int encode_bytes(struct str text, struct ids *out)
{
	uint32_t n = out->n + (uint32_t)text.n;

	if (text.n > UINT32_MAX / 2 || n < out->n)
		return -E2BIG;
	if (n > out->cap) {
		uint32_t *v = realloc(out->v, n * sizeof(*v));

		if (!v)
			return -ENOMEM;
		out->v = v;
		out->cap = n;
	}
	for (size_t i = 0; i < text.n; i++)
		out->v[out->n + i] = (unsigned char)text.p[i];
	out->n = n;
	return 0;
}

int tok_encode(struct str text, struct ids *out)
{
	const uint32_t *id;
	int r = 0;

	if (!tok.v)
		return encode_bytes(text, out);
	tok.ids.len = tok.ids.off = 0;
	r = encoder_encode(tok.e, text, false, &tok.ids);
	id = (const uint32_t *)(const void *)buf_data(&tok.ids);
	for (size_t i = 0; !r && i < buf_len(&tok.ids) / sizeof(*id); i++)
		r = ids_put(out, id[i]);
	return r;
}

struct str tok_piece(uint32_t id)
{
	static char bytes[256];

	if (tok.v)
		return vocab_token(tok.v, id);
	if (id > 255)
		return (struct str){ 0 };
	bytes[id] = (char)id;
	return (struct str){ &bytes[id], 1 };
}

static uint32_t random_byte(struct rng *r, uint32_t *state)
{
	static const char *const words[] = {
		" the", " engine",  " answers", " with",   " words", " that", " mean",	   " nothing",
		" but", " come",    " one",	" by",	   " one",   " from", " a",	   " seed",
		" and", " a",	    " prompt,", " always", " in",    " the",  " same",	   " order",
		" as",	" long",    " as",	" both",   " stay",  " what", " they",	   " are;",
		" a",	" gateway", " sees",	" them",   " pass",  " and",  " forgets.", " café",
	};
	uint32_t word = *state >> 8, pos = *state & 0xff;

	if (!*state || !words[word - 1][pos]) {
		word = 1 + (uint32_t)rng_below(r, sizeof(words) / sizeof(words[0]));
		pos = 0;
	}
	*state = word << 8 | (pos + 1);
	return (unsigned char)words[word - 1][pos];
}

uint32_t tok_random(struct rng *r, uint32_t *state)
{
	if (!tok.v)
		return random_byte(r, state);
	if (!tok.words.n)
		return (uint32_t)rng_below(r, vocab_size(tok.v));
	return tok.words.v[rng_below(r, tok.words.n)];
}

static int put_content(const json_t *content, struct buf *out)
{
	const json_t *part;
	bool first = true;
	size_t i;

	struct str s;

	if (json_is_string(content)) {
		s = lift_text(content);
		return buf_put(out, s.p, s.n);
	}
	if (!json_is_array(content))
		return json_is_null(content) || !content ? 0 : -EINVAL;
	json_array_foreach((json_t *)(uintptr_t)content, i, part)
	{
		const json_t *text = json_object_get(part, "text");

		if (json_is_string(part))
			text = part;
		if (!json_is_string(text))
			continue;
		if (!first)
			buf_puts(out, "\n");
		first = false;
		s = lift_text(text);
		buf_put(out, s.p, s.n);
	}
	return 0;
}

/* ChatML, the same as in chatml.jinja beside this file. */
int tok_chat(const json_t *messages, bool generation_prompt, struct buf *out)
{
	const json_t *m;
	size_t i;

	json_array_foreach((json_t *)(uintptr_t)messages, i, m)
	{
		const char *role = json_string_value(json_object_get(m, "role"));

		if (!role)
			return -EINVAL;
		buf_printf(out, "<|im_start|>%s\n", role);
		if (put_content(json_object_get(m, "content"), out))
			return -EINVAL;
		buf_puts(out, "<|im_end|>\n");
	}
	if (generation_prompt)
		buf_puts(out, "<|im_start|>assistant\n");
	return 0;
}
