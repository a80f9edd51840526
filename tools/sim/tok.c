/* SPDX-License-Identifier: Apache-2.0
 *
 * Without a vocabulary, token i is the byte i, as in vocab_bytes.
 */
#include <errno.h>
#include <stdlib.h>

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

int tok_encode(struct str text, struct ids *out)
{
	for (size_t i = 0; i < text.n; i++) {
		int r = ids_put(out, (unsigned char)text.p[i]);

		if (r)
			return r;
	}
	return 0;
}

struct str tok_piece(uint32_t id)
{
	static char bytes[256];

	if (id > 255)
		return (struct str){ 0 };
	bytes[id] = (char)id;
	return (struct str){ &bytes[id], 1 };
}

uint32_t tok_random_word(struct rng *r, uint32_t *state)
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

static int put_content(const json_t *content, struct buf *out)
{
	const json_t *part;
	bool first = true;
	size_t i;

	if (json_is_string(content))
		return buf_put(out, json_string_value(content), json_string_length(content));
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
		buf_put(out, json_string_value(text), json_string_length(text));
	}
	return 0;
}

/* ChatML, the same as in chatml.jinja beside this file. */
int chat_render(const json_t *messages, bool generation_prompt, struct buf *out)
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
