/* SPDX-License-Identifier: Apache-2.0
 *
 * What vLLM finds out about a template by trying it. It does so with a plain jinja2: nothing is defined but messages
 * and add_generation_prompt, there is no raise_exception (which then is an error of another kind, and an error all the
 * same), no strftime_now, and the tag of transformers, `generation`, is unknown.
 */
#include <stdio.h>

#include "model/chat_int.h"

static bool is_generation(struct node *n, void *ctx)
{
	return !(n->kind == N_CALLBLOCK && n->flags & NF_GENERATION);
}

static int drop(void *ctx, const char *p, size_t n)
{
	return 0;
}

static void try_systems(struct run *r, void *ctx)
{
	struct val vars = dict_new(r, 2), list = val_list(r, V_LIST, 4);

	for (uint32_t i = 0; i < list.n; i++) {
		list.at[i] = dict_new(r, 2);
		put(r, list.at[i], STR("role"), i & 1 ? val_lit("user") : val_lit("system"));
		put(r, list.at[i], STR("content"), val_lit("t"));
	}
	put(r, vars, STR("messages"), list);
	put(r, vars, STR("add_generation_prompt"), val_bool(false));
	r->plain = true;
	run_template(r, vars);
}

static uint8_t system_first(const struct template *t, struct template_work *w)
{
	struct template_in in = { 0 };
	struct template_error err;

	if (!node_walk(t->body, is_generation, NULL))
		return CHAT_YES;
	switch (template_run(w, t, &in, (struct template_sink){ drop, NULL }, &err, try_systems, NULL)) {
	case TEMPLATE_OK:
		return CHAT_NO;
	case TEMPLATE_RAISED:
		return CHAT_YES;
	default:
		return CHAT_UNKNOWN;
	}
}

static int append(void *ctx, const char *p, size_t n)
{
	return buf_put(ctx, p, n);
}

static int try_effort(const struct template *t, struct template_work *w, const struct chat_tokens *k,
		      const char *effort, struct buf *out)
{
	struct template_error err;
	struct chat_in in = { .tokens = k };
	char body[120];
	int n = snprintf(body, sizeof(body),
			 "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"reasoning_effort\":\"%s\"}", effort);

	in.request = (struct str){ body, (size_t)n };
	return chat_render(t, w, &in, (struct template_sink){ append, out }, &err);
}

static uint8_t none_is_low(const struct template *t, struct template_work *w, const struct chat_tokens *k)
{
	static const char *const efforts[] = { "low", "medium", "high", "xhigh", "max" };
	struct buf none = { 0 }, other = { 0 };
	uint8_t found = CHAT_NO;
	int r = try_effort(t, w, k, "none", &none);

	if (r)
		found = r == TEMPLATE_RAISED ? CHAT_YES : CHAT_UNKNOWN;
	for (size_t i = 0; found == CHAT_NO && i < sizeof(efforts) / sizeof(efforts[0]); i++) {
		buf_free(&other);
		r = try_effort(t, w, k, efforts[i], &other);
		if (r == TEMPLATE_OK && str_eq(buf_str(&none), buf_str(&other)))
			found = CHAT_YES;
		else if (r != TEMPLATE_OK && r != TEMPLATE_RAISED)
			found = CHAT_UNKNOWN;
	}
	buf_free(&none);
	buf_free(&other);
	return found;
}

struct chat_habits chat_habits_find(const struct template *t, struct template_work *w, const struct chat_tokens *k)
{
	return (struct chat_habits){ system_first(t, w), none_is_low(t, w, k) };
}
