/* SPDX-License-Identifier: Apache-2.0
 *
 * The special tokens of tokenizer_config.json, which templates see as variables: each member whose name ends with
 * "_token", and those of extra_special_tokens, if it is an object. A token is a string, or an object with its content.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/chat_int.h"

#define TOKENS_MEMORY (1u << 20)

static struct str kept(struct chat_tokens *k, const char *p, size_t n)
{
	char *q = template_mem_bytes(&k->mem, n ? n : 1);

	if (q && n)
		memcpy(q, p, n);
	return (struct str){ q, n };
}

static int add(struct chat_tokens *k, const char *name, const json_t *v)
{
	if (json_is_object(v))
		v = json_object_get(v, "content");
	if (!json_is_string(v))
		return 0;
	k->at[k->n].name = kept(k, name, strlen(name));
	k->at[k->n].text = kept(k, json_string_value(v), json_string_length(v));
	if (!k->at[k->n].name.p || !k->at[k->n].text.p)
		return -ENOMEM;
	k->n++;
	return 0;
}

static int add_all(struct chat_tokens *k, json_t *config)
{
	json_t *extra = json_object_get(config, "extra_special_tokens"), *v;
	size_t members = json_object_size(config) + json_object_size(extra);
	const char *name;
	int r = 0;

	k->at = template_mem_get(&k->mem, (members + 1) * sizeof(*k->at));
	if (!k->at)
		return -ENOMEM;
	json_object_foreach(config, name, v)
	{
		size_t n = strlen(name);

		if (r == 0 && n >= 6 && strcmp(name + n - 6, "_token") == 0)
			r = add(k, name, v);
	}
	json_object_foreach(extra, name, v)
	{
		if (r == 0)
			r = add(k, name, v);
	}
	return r;
}

struct chat_tokens *chat_tokens_parse(struct str config, char *err, size_t err_len)
{
	/* Some files hold a length of 10^30, which is no integer to jansson. */
	const size_t flags = JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL;
	struct chat_tokens *k = calloc(1, sizeof(*k));
	json_error_t e;
	json_t *v;
	int r;

	if (!k)
		return NULL;
	k->mem.limit = TOKENS_MEMORY;
	v = json_loadb(config.p, config.n, flags, &e);
	r = !v || !json_is_object(v) ? -EINVAL : add_all(k, v);
	if (r == -EINVAL)
		snprintf(err, err_len, "line %d, column %d: %s", v ? 1 : e.line, v ? 1 : e.column,
			 v ? "not a JSON object" : e.text);
	else if (r)
		snprintf(err, err_len, "out of memory");
	json_decref(v);
	if (r) {
		chat_tokens_free(k);
		errno = -r;
		return NULL;
	}
	return k;
}

void chat_tokens_free(struct chat_tokens *k)
{
	if (!k)
		return;
	template_mem_free(&k->mem);
	free(k);
}
