/* SPDX-License-Identifier: Apache-2.0
 * Private to the rules of engines.
 */
#ifndef KVS_MODEL_CHAT_INT_H
#define KVS_MODEL_CHAT_INT_H

#include "model/chat.h"
#include "model/template_int.h"

struct chat_tokens {
	struct template_mem mem;
	struct chat_token {
		struct str name, text;
	} *at;
	unsigned n;
};

/* A request on its way to the template. What other APIs say is put into the same members (chat_messages.c,
 * chat_responses.c), as the engine makes a chat request of it. */
struct chat {
	const struct chat_in *in;
	bool parts;
	struct val messages, tools, documents, kwargs, add_prompt, go_on, effort;
	struct val system, thinking, output, salt; /* /v1/messages */
	struct val input, instructions, reasoning; /* /v1/responses */
	/* Messages are the engine's own, not a client's: nothing reads them again before the template does. */
	bool own;
};

void chat_from_messages(struct run *r, struct chat *c);
void chat_from_responses(struct run *r, struct chat *c);

static inline struct val get(struct run *r, struct val d, struct str key)
{
	struct val *v = d.t == V_DICT ? dict_find_str(r, d.dict, key) : NULL;

	return v ? val_force(r, v) : val_of(V_MISSING);
}

static inline bool absent(struct val v)
{
	return v.t == V_MISSING || v.t == V_NONE;
}

static inline void put(struct run *r, struct val d, struct str key, struct val v)
{
	dict_put_str(r, d.dict, key, v);
}

static inline void copy(struct run *r, struct val to, struct val from, struct str key)
{
	struct val v = get(r, from, key);

	if (v.t != V_MISSING)
		put(r, to, key, v);
}

/* The request is at a place where versions of the engine differ. */
static inline void rule(struct run *r, const struct chat *c, uint32_t which)
{
	if (c->in->lacking & which)
		run_unsure(r, "what becomes of it depends on the engine's version (rule %d)", __builtin_ctz(which));
}

static inline struct val must_be(struct run *r, struct val v, enum vtype t, const char *what)
{
	if (v.t != t)
		run_raise(r, "%s: %s", what, v.t == V_MISSING ? "is missing" : "has the wrong type");
	return v;
}

/* A list that grows: its room is a power of two, and full when its length is one. */
static inline struct val list_new(struct run *r)
{
	struct val list = val_list(r, V_LIST, 4);

	list.n = 0;
	return list;
}

static inline void push(struct run *r, struct val *list, struct val v)
{
	if (list->n >= 4 && (list->n & (list->n - 1)) == 0) {
		struct val more = val_list(r, V_LIST, 2 * (size_t)list->n);

		memcpy(more.at, list->at, list->n * sizeof(v));
		list->at = more.at;
	}
	list->at[list->n++] = v;
}

#endif
