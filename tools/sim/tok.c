/* SPDX-License-Identifier: Apache-2.0
 *
 * Without a vocabulary, token i is the byte i, as in vocab_bytes. With one, text is cut by longest match: legal ids
 * that spell the text, not the ones that the tokenizer's merges would give.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/vocab.h"

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

/* --- a vocabulary: a trie of its tokens' bytes, edges in one hash table --- */

struct edge {
	uint64_t key; /* (node << 8 | byte) + 1; 0: free */
	uint32_t to;
};

static struct {
	struct vocab *v;
	struct edge *edges;
	uint64_t mask;
	uint32_t *token; /* of a node: id + 1, 0: none ends here */
	uint32_t nnodes, cap_nodes;
	struct ids words; /* tokens that are a space and a plain word */
} tok;

static struct edge *edge_at(uint32_t node, unsigned char byte)
{
	uint64_t key = ((uint64_t)node << 8 | byte) + 1, i = mix64(key) & tok.mask;

	while (tok.edges[i].key && tok.edges[i].key != key)
		i = (i + 1) & tok.mask;
	return &tok.edges[i];
}

static int trie_put(struct str s, uint32_t id)
{
	uint32_t node = 0;

	for (size_t i = 0; i < s.n; i++) {
		struct edge *e = edge_at(node, (unsigned char)s.p[i]);

		if (!e->key) {
			if (tok.nnodes == tok.cap_nodes)
				return -ENOSPC;
			e->key = ((uint64_t)node << 8 | (unsigned char)s.p[i]) + 1;
			e->to = tok.nnodes++;
		}
		node = e->to;
	}
	if (node && !tok.token[node])
		tok.token[node] = id + 1;
	return 0;
}

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
	uint64_t bytes = 0, slots = 1024;
	int r = 0;

	tok.v = vocab_load(dir, NULL, err, err_len);
	if (!tok.v)
		return -errno;
	for (uint32_t i = 0; i < vocab_size(tok.v); i++)
		bytes += vocab_token(tok.v, i).n;
	while (slots < 2 * bytes)
		slots *= 2;
	tok.mask = slots - 1;
	tok.cap_nodes = (uint32_t)bytes + 1;
	tok.nnodes = 1;
	tok.edges = calloc(slots, sizeof(*tok.edges));
	tok.token = calloc(tok.cap_nodes, sizeof(*tok.token));
	if (!tok.edges || !tok.token)
		r = -ENOMEM;
	for (uint32_t i = 0; !r && i < vocab_size(tok.v); i++) {
		struct str s = vocab_token(tok.v, i);

		r = trie_put(s, i);
		if (!r && plain_word(s) && tok.words.n < 4096)
			r = ids_put(&tok.words, i);
	}
	if (!r)
		return 0;
	snprintf(err, err_len, "%s: %s", dir, strerror(-r));
	tok_unload();
	return r;
}

void tok_unload(void)
{
	vocab_unref(tok.v);
	free(tok.edges);
	free(tok.token);
	free(tok.words.v);
	memset(&tok, 0, sizeof(tok));
}

/* The longest token that <s> begins with; 0 bytes: none. */
static size_t longest(struct str s, uint32_t *ret_id)
{
	uint32_t node = 0;
	size_t best = 0;

	for (size_t i = 0; i < s.n; i++) {
		struct edge *e = edge_at(node, (unsigned char)s.p[i]);

		if (!e->key)
			break;
		node = e->to;
		if (tok.token[node]) {
			best = i + 1;
			*ret_id = tok.token[node] - 1;
		}
	}
	return best;
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
	if (!tok.v)
		return encode_bytes(text, out);
	while (text.n) {
		uint32_t id = 0;
		size_t n = longest(text, &id);
		int r;

		if (!n) { /* a byte that no token begins with has none */
			text = (struct str){ text.p + 1, text.n - 1 };
			continue;
		}
		r = ids_put(out, id);
		if (r)
			return r;
		text = (struct str){ text.p + n, text.n - n };
	}
	return 0;
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
