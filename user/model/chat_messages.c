/* SPDX-License-Identifier: Apache-2.0
 *
 * /v1/messages (Anthropic's API) as vLLM makes a chat request of it: system texts become one message at the front, or
 * stay where they are; a tool's results become messages of their own, ahead of the rest of their message; thinking
 * becomes reasoning; what a client says about itself in a billing line is left out.
 */
#include "model/chat_int.h"

#define HEADER "x-anthropic-billing-header"

static bool is_header(struct val v)
{
	return v.t == V_STR && str_starts(val_str(v), STR(HEADER));
}

static struct val text_or(struct run *r, struct val v, struct val otherwise, const char *what)
{
	return absent(v) ? otherwise : must_be(r, v, V_STR, what);
}

static struct val joined(struct run *r, struct val list, const char *sep)
{
	return list.n == 1 ? list.at[0] : text_join(r, val_strn(sep, strlen(sep)), list);
}

static bool is_kind(struct val kind, const char *const *kinds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (val_is(kind, str_of(kinds[i])))
			return true;
	return false;
}

static struct val block_at(struct run *r, struct val list, uint32_t i, struct val *ret_kind)
{
	static const char *const kinds[] = { "text",	       "image",	   "tool_use",	    "tool_result",
					     "tool_reference", "thinking", "tool_addition", "redacted_thinking",
					     "tool_removal" };
	struct val block = must_be(r, val_force(r, &list.at[i]), V_DICT, "a block of content");

	*ret_kind = must_be(r, get(r, block, STR("type")), V_STR, "type of a block");
	if (!is_kind(*ret_kind, kinds, sizeof(kinds) / sizeof(kinds[0])))
		run_raise(r, "unknown type of a block");
	return block;
}

/* --- system --- */

/* The texts of a system message; none: the empty string. */
static struct val system_text(struct run *r, struct val content)
{
	struct val texts, kind;

	if (content.t == V_STR)
		return is_header(content) ? val_lit("") : content;
	must_be(r, content, V_LIST, "content of a system message");
	texts = list_new(r);
	for (uint32_t i = 0; i < content.n; i++) {
		struct val block = block_at(r, content, i, &kind), text = get(r, block, STR("text"));

		if (val_is(kind, STR("text")) && !absent(text) && !is_header(text))
			push(r, &texts, must_be(r, text, V_STR, "text of a block"));
	}
	return joined(r, texts, "");
}

static struct val system_message(struct run *r, struct val text)
{
	struct val m = dict_new(r, 2);

	put(r, m, STR("role"), val_lit("system"));
	put(r, m, STR("content"), text);
	return m;
}

static bool is_system(struct run *r, struct val m)
{
	return val_is(get(r, m, STR("role")), STR("system"));
}

/* Templates that want the system's text first get all of it there. */
static bool merges(struct run *r, const struct chat *c, struct val messages)
{
	bool any = false;

	for (uint32_t i = 0; i < messages.n; i++)
		any |= is_system(r, messages.at[i]);
	if (any && c->in->habits.system_first == CHAT_UNKNOWN)
		run_unsure(r, "whether system messages are moved to the front is not known of this template");
	if (any && c->in->habits.system_first != CHAT_YES)
		rule(r, c, CHAT_RULE_PROBING);
	return any && c->in->habits.system_first == CHAT_YES;
}

static void put_system(struct run *r, const struct chat *c, struct val messages, bool merge, struct val *out)
{
	struct val texts = list_new(r), text;

	if (c->system.t == V_STR && c->system.n)
		push(r, &texts, c->system);
	else if (!absent(c->system) && c->system.t != V_STR)
		push(r, &texts, system_text(r, c->system));
	for (uint32_t i = 0; merge && i < messages.n; i++)
		if (is_system(r, messages.at[i]))
			push(r, &texts, system_text(r, get(r, messages.at[i], STR("content"))));
	text = joined(r, texts, "");
	if (text.n)
		push(r, out, system_message(r, text));
}

/* --- messages --- */

struct blocks {
	struct val parts, calls, thoughts;
	bool user;
};

static void put_part(struct run *r, struct blocks *b, struct val text)
{
	struct val p = dict_new(r, 2);

	put(r, p, STR("type"), val_lit("text"));
	put(r, p, STR("text"), text);
	push(r, &b->parts, p);
}

static void put_image(struct run *r, struct val *parts)
{
	struct val p = dict_new(r, 1);

	put(r, p, STR("type"), val_lit("image_url"));
	push(r, parts, p);
}

static void put_call(struct run *r, struct blocks *b, struct val block)
{
	struct val call = dict_new(r, 3), f = dict_new(r, 2), id = get(r, block, STR("id"));
	struct val input = get(r, block, STR("input"));

	if (absent(id) || (id.t == V_STR && id.n == 0))
		run_unsure(r, "a tool_use without an id is named by the engine's clock");
	put(r, f, STR("name"), text_or(r, get(r, block, STR("name")), val_lit(""), "name of a tool_use"));
	put(r, f, STR("arguments"), absent(input) ? dict_new(r, 0) : must_be(r, input, V_DICT, "input of a tool_use"));
	put(r, call, STR("id"), must_be(r, id, V_STR, "id of a tool_use"));
	put(r, call, STR("type"), val_lit("function"));
	put(r, call, STR("function"), f);
	push(r, &b->calls, call);
}

static void put_tool_message(struct run *r, struct val block, struct val content, struct val *out)
{
	struct val m = dict_new(r, 3);

	put(r, m, STR("role"), val_lit("tool"));
	put(r, m, STR("tool_call_id"),
	    text_or(r, get(r, block, STR("tool_use_id")), val_lit(""), "tool_use_id of a tool_result"));
	put(r, m, STR("content"), content);
	push(r, out, m);
}

static void put_reference(struct run *r, struct val item, struct val *references)
{
	struct val name = get(r, item, STR("tool_name")), ref;

	if (!val_truth(r, name))
		name = get(r, item, STR("name"));
	if (name.t == V_MISSING || !val_truth(r, name))
		return;
	ref = dict_new(r, 2);
	put(r, ref, STR("type"), val_lit("tool_reference"));
	put(r, ref, STR("name"), name);
	push(r, references, ref);
}

static void put_result(struct run *r, struct val block, struct val *out)
{
	struct val content = get(r, block, STR("content")), texts = list_new(r), images = list_new(r);
	struct val references = list_new(r), m;

	if (absent(content) || content.t == V_STR) {
		put_tool_message(r, block, content.t == V_STR ? content : val_lit(""), out);
		return;
	}
	must_be(r, content, V_LIST, "content of a tool_result");
	for (uint32_t i = 0; i < content.n; i++) {
		struct val item = must_be(r, val_force(r, &content.at[i]), V_DICT, "an item of a tool_result");
		struct val kind = get(r, item, STR("type")), text = get(r, item, STR("text"));

		if (val_is(kind, STR("text")))
			push(r, &texts, text.t == V_MISSING ? val_lit("") : must_be(r, text, V_STR, "text of an item"));
		else if (val_is(kind, STR("image")))
			put_image(r, &images);
		else if (val_is(kind, STR("tool_reference")))
			put_reference(r, item, &references);
	}
	put_tool_message(r, block, joined(r, texts, "\n"), out);
	if (images.n) {
		m = dict_new(r, 2);
		put(r, m, STR("role"), val_lit("user"));
		put(r, m, STR("content"), images);
		push(r, out, m);
	}
	if (references.n)
		put_tool_message(r, block, references, out);
}

static void put_block(struct run *r, struct blocks *b, struct val block, struct val kind, struct val *out)
{
	struct val v;

	if (val_is(kind, STR("text"))) {
		v = text_or(r, get(r, block, STR("text")), val_lit(""), "text of a block");
		if (v.n)
			put_part(r, b, v);
	} else if (val_is(kind, STR("image"))) {
		if (!absent(get(r, block, STR("source"))))
			put_image(r, &b->parts);
	} else if (val_is(kind, STR("thinking"))) {
		v = get(r, block, STR("thinking"));
		if (!absent(v))
			push(r, &b->thoughts, must_be(r, v, V_STR, "thinking of a block"));
	} else if (val_is(kind, STR("tool_use"))) {
		put_call(r, b, block);
	} else if (val_is(kind, STR("tool_result")) && b->user) {
		put_result(r, block, out);
	} else if (val_is(kind, STR("tool_result"))) {
		v = get(r, block, STR("content"));
		v = v.t != V_MISSING && val_truth(r, v) ? val_to_str(r, v) : val_lit("");
		put_part(r, b, text_concat(r, val_lit("Tool result: "), v));
	} else if (val_is(kind, STR("tool_addition")) || val_is(kind, STR("tool_removal"))) {
		run_raise(r, "tools are changed in system messages only");
	}
}

static void put_message(struct run *r, struct val m, struct val *out)
{
	struct val role = get(r, m, STR("role")), content = get(r, m, STR("content")), kind, msg = dict_new(r, 4);
	struct blocks b = { list_new(r), list_new(r), list_new(r), val_is(role, STR("user")) };

	if (!b.user && !val_is(role, STR("assistant")))
		run_raise(r, "role of a message: it is none that is known");
	put(r, msg, STR("role"), role);
	if (content.t == V_STR) {
		put(r, msg, STR("content"), content);
		push(r, out, msg);
		return;
	}
	must_be(r, content, V_LIST, "content");
	for (uint32_t i = 0; i < content.n; i++) {
		struct val block = block_at(r, content, i, &kind);

		put_block(r, &b, block, kind, out);
	}
	if (b.thoughts.n)
		put(r, msg, STR("reasoning"), joined(r, b.thoughts, ""));
	if (b.calls.n)
		put(r, msg, STR("tool_calls"), b.calls);
	if (b.parts.n == 1 && val_is(get(r, b.parts.at[0], STR("type")), STR("text")))
		put(r, msg, STR("content"), get(r, b.parts.at[0], STR("text")));
	else if (b.parts.n)
		put(r, msg, STR("content"), b.parts);
	if (b.parts.n || !b.user)
		push(r, out, msg);
}

/* --- tools --- */

static struct val tool(struct run *r, struct val t)
{
	struct val f = dict_new(r, 5), d = dict_new(r, 2), from, schema = dict_new(r, 4);

	must_be(r, t, V_DICT, "a tool");
	from = must_be(r, get(r, t, STR("input_schema")), V_DICT, "input_schema of a tool");
	for (uint32_t i = 0; i < from.dict->n; i++)
		dict_put(r, schema.dict, from.dict->at[i].k, from.dict->at[i].v);
	if (get(r, schema, STR("type")).t == V_MISSING)
		put(r, schema, STR("type"), val_lit("object"));
	copy(r, f, t, STR("name"));
	copy(r, f, t, STR("description"));
	put(r, f, STR("parameters"), schema);
	copy(r, f, t, STR("strict"));
	copy(r, f, t, STR("defer_loading"));
	put(r, d, STR("type"), val_lit("function"));
	put(r, d, STR("function"), f);
	return d;
}

static void remove_key(struct run *r, struct val *dict, struct val key)
{
	struct val kept = dict_new(r, dict->dict->n + 1);

	for (uint32_t i = 0; i < dict->dict->n; i++)
		if (!val_equal(r, dict->dict->at[i].k, key))
			dict_put(r, kept.dict, dict->dict->at[i].k, dict->dict->at[i].v);
	*dict = kept;
}

static void change_tools(struct run *r, struct val change, bool addition, struct val tools, struct val *removed)
{
	struct val kind, name, t;

	must_be(r, change, V_DICT, "tool of a change");
	kind = get(r, change, STR("type"));
	if (val_is(kind, STR("tool_definition")) && addition) {
		t = must_be(r, get(r, change, STR("definition")), V_DICT, "definition of a tool");
		name = must_be(r, get(r, t, STR("name")), V_STR, "name of a tool");
		dict_put(r, tools.dict, name, t);
	} else if (val_is(kind, STR("tool_reference"))) {
		struct val *known;

		name = must_be(r, get(r, change, STR("name")), V_STR, "name of a tool");
		known = dict_find(r, tools.dict, name);
		if (!known)
			run_raise(r, "a change of a tool that is not declared");
		if (addition) {
			t = *known;
			remove_key(r, &t, val_lit("defer_loading"));
			*known = t;
		}
	} else {
		run_raise(r, "unknown type of a change of tools");
	}
	if (addition)
		remove_key(r, removed, name);
	else
		dict_put(r, removed->dict, name, val_bool(true));
}

/* The tools as they are after the conversation's changes; false: there were none. */
static bool changed_tools(struct run *r, const struct chat *c, struct val messages, struct val *ret)
{
	struct val tools = dict_new(r, 8), removed = dict_new(r, 1), kind;
	bool any = false;

	for (uint32_t i = 0; c->tools.t == V_LIST && i < c->tools.n; i++)
		dict_put(r, tools.dict,
			 must_be(r, get(r, val_force(r, &c->tools.at[i]), STR("name")), V_STR, "name of a tool"),
			 c->tools.at[i]);
	for (uint32_t i = 0; i < messages.n; i++) {
		struct val content = get(r, messages.at[i], STR("content"));

		for (uint32_t k = 0; content.t == V_LIST && k < content.n; k++) {
			struct val block = block_at(r, content, k, &kind);
			bool addition = val_is(kind, STR("tool_addition"));

			if (!addition && !val_is(kind, STR("tool_removal")))
				continue;
			change_tools(r, get(r, block, STR("tool")), addition, tools, &removed);
			any = true;
		}
	}
	*ret = list_new(r);
	for (uint32_t i = 0; any && i < tools.dict->n; i++)
		if (!dict_find(r, removed.dict, tools.dict->at[i].k))
			push(r, ret, tool(r, tools.dict->at[i].v));
	return any;
}

static void map_tools(struct run *r, struct chat *c, struct val messages)
{
	struct val list;

	if (!absent(c->tools))
		must_be(r, c->tools, V_LIST, "tools");
	if (changed_tools(r, c, messages, &list)) {
		rule(r, c, CHAT_RULE_CUSTOM);
	} else {
		if (absent(c->tools))
			return;
		for (uint32_t i = 0; i < c->tools.n; i++)
			push(r, &list, tool(r, val_force(r, &c->tools.at[i])));
	}
	c->tools = list;
}

/* --- the request --- */

static void map_effort(struct run *r, struct chat *c)
{
	if (!absent(c->output))
		c->effort = get(r, must_be(r, c->output, V_DICT, "output_config"), STR("effort"));
	if (absent(c->thinking))
		return;
	if (!val_is(get(r, must_be(r, c->thinking, V_DICT, "thinking"), STR("type")), STR("disabled")))
		return;
	rule(r, c, CHAT_RULE_NO_THINKING);
	if (c->in->habits.none_is_low == CHAT_UNKNOWN)
		run_unsure(r, "how thinking is switched off is not known of this template");
	c->effort = c->in->habits.none_is_low == CHAT_YES ? val_lit("low") : val_lit("none");
}

void chat_from_messages(struct run *r, struct chat *c)
{
	struct val from = must_be(r, c->messages, V_LIST, "messages"), out = list_new(r), text;
	bool merge;

	rule(r, c, CHAT_RULE_MESSAGES);
	if (!absent(c->salt))
		rule(r, c, CHAT_RULE_SALT);
	for (uint32_t i = 0; i < from.n; i++)
		must_be(r, from.at[i], V_DICT, "a message");
	merge = merges(r, c, from);
	put_system(r, c, from, merge, &out);
	for (uint32_t i = 0; i < from.n; i++) {
		if (!is_system(r, from.at[i])) {
			put_message(r, from.at[i], &out);
			continue;
		}
		text = system_text(r, get(r, from.at[i], STR("content")));
		if (!merge && text.n)
			push(r, &out, system_message(r, text));
	}
	c->messages = out;
	map_tools(r, c, from);
	map_effort(r, c);
}
