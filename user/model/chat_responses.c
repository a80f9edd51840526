/* SPDX-License-Identifier: Apache-2.0
 *
 * /v1/responses (OpenAI's) as vLLM makes a chat of it: items that belong to one turn of the assistant (reasoning, its
 * text, calls) become one message. What another request left in the engine's memory (previous_response_id) cannot be
 * told here.
 */
#include "model/chat_int.h"

/* --- items --- */

static struct val text_member(struct run *r, struct val d, const char *key, const char *what)
{
	return must_be(r, get(r, d, str_of(key)), V_STR, what);
}

/* The assistant's message that ends the list, if it has no <key> yet; else a new one. */
static struct val message_for(struct run *r, struct val *out, const char *key)
{
	struct val last, m;

	if (out->n) {
		last = out->at[out->n - 1];
		if (val_is(get(r, last, STR("role")), STR("assistant")) && (!key || absent(get(r, last, str_of(key)))))
			return last;
	}
	m = dict_new(r, 4);
	put(r, m, STR("role"), val_lit("assistant"));
	push(r, out, m);
	return m;
}

static void put_call(struct run *r, struct val item, struct val name, struct val arguments, struct val *out)
{
	struct val call = dict_new(r, 3), f = dict_new(r, 2), m = message_for(r, out, NULL);
	struct val calls = get(r, m, STR("tool_calls"));

	put(r, f, STR("name"), name);
	put(r, f, STR("arguments"), arguments);
	put(r, call, STR("id"), text_member(r, item, "call_id", "call_id of a call"));
	put(r, call, STR("function"), f);
	put(r, call, STR("type"), val_lit("function"));
	if (absent(calls))
		calls = list_new(r);
	push(r, &calls, call);
	put(r, m, STR("tool_calls"), calls);
}

static struct val full_name(struct run *r, struct val space, struct val name)
{
	return text_concat(r, text_concat(r, space, val_lit("__")), name);
}

static void put_function_call(struct run *r, struct val item, struct val *out)
{
	struct val name = text_member(r, item, "name", "name of a call"), space = get(r, item, STR("namespace"));

	if (!absent(space) && must_be(r, space, V_STR, "namespace of a call").n)
		name = full_name(r, space, name);
	put_call(r, item, name, text_member(r, item, "arguments", "arguments of a call"), out);
}

static void put_custom_call(struct run *r, struct val item, struct val *out)
{
	struct val arguments = dict_new(r, 1);

	put(r, arguments, STR("input"), text_member(r, item, "input", "input of a call"));
	put_call(r, item, text_member(r, item, "name", "name of a call"), arguments, out);
}

static void put_output(struct run *r, struct val item, struct val *out)
{
	struct val m = dict_new(r, 3), id = get(r, item, STR("call_id"));

	put(r, m, STR("role"), val_lit("tool"));
	put(r, m, STR("content"), get(r, item, STR("output")));
	if (get(r, m, STR("content")).t == V_MISSING || absent(get(r, m, STR("content"))))
		run_raise(r, "output of a call: is missing");
	put(r, m, STR("tool_call_id"), absent(id) ? val_of(V_NONE) : must_be(r, id, V_STR, "call_id of an output"));
	push(r, out, m);
}

static struct val first_text(struct run *r, struct val list, const char *what)
{
	return text_member(r, must_be(r, val_force(r, &list.at[0]), V_DICT, what), "text", what);
}

static void put_reasoning(struct run *r, struct val item, struct val *out)
{
	struct val secret = get(r, item, STR("encrypted_content")), content = get(r, item, STR("content"));
	struct val summary = must_be(r, get(r, item, STR("summary")), V_LIST, "summary of reasoning");
	struct val text = val_lit("");

	if (!absent(secret) && val_truth(r, secret))
		run_raise(r, "encrypted reasoning is not supported");
	if (!absent(content))
		must_be(r, content, V_LIST, "content of reasoning");
	if (!absent(content) && content.n)
		text = first_text(r, content, "text of reasoning");
	else if (summary.n)
		text = first_text(r, summary, "summary of reasoning");
	put(r, message_for(r, out, "reasoning"), STR("reasoning"), text);
}

/* Of several parts only the first is seen. */
static void put_assistant(struct run *r, struct val item, struct val kind, struct val *out)
{
	struct val content = get(r, item, STR("content")), text = content, m;

	if (content.t == V_LIST && content.n) {
		text = first_text(r, content, "the first part of an assistant's message");
	} else if (content.t == V_LIST) {
		if (kind.t != V_MISSING)
			run_raise(r, "an assistant's message without content");
		if (item.dict->n > 2)
			run_unsure(r, "an assistant's message without content, but with other members");
		m = dict_new(r, 2);
		put(r, m, STR("role"), val_lit("assistant"));
		put(r, m, STR("content"), content);
		push(r, out, m);
		return;
	}
	must_be(r, text, V_STR, "content of a message");
	put(r, message_for(r, out, "content"), STR("content"), text);
}

static void put_item(struct run *r, const struct chat *c, struct val item, struct val *out)
{
	struct val kind, role;

	must_be(r, item, V_DICT, "an item of input");
	kind = get(r, item, STR("type"));
	role = get(r, item, STR("role"));
	if (val_is(kind, STR("function_call"))) {
		put_function_call(r, item, out);
	} else if (val_is(kind, STR("custom_tool_call"))) {
		rule(r, c, CHAT_RULE_CUSTOM);
		put_custom_call(r, item, out);
	} else if (val_is(kind, STR("function_call_output")) || val_is(kind, STR("custom_tool_call_output"))) {
		put_output(r, item, out);
	} else if (val_is(kind, STR("reasoning"))) {
		put_reasoning(r, item, out);
	} else if (kind.t != V_MISSING && !val_is(kind, STR("message"))) {
		run_raise(r, "unsupported type of an item of input");
	} else if (val_is(role, STR("assistant"))) {
		put_assistant(r, item, kind, out);
	} else if (val_is(role, STR("user")) || val_is(role, STR("system")) || val_is(role, STR("developer"))) {
		if (absent(get(r, item, STR("content"))))
			run_raise(r, "a message without content");
		push(r, out, item);
	} else {
		run_raise(r, "an item of input of no known kind");
	}
}

static bool is_partial(struct run *r, struct val input)
{
	struct val last, kind, status;

	if (input.t != V_LIST || input.n == 0)
		return false;
	last = input.at[input.n - 1];
	kind = get(r, last, STR("type"));
	if (kind.t != V_MISSING && !val_is(kind, STR("message")) && !val_is(kind, STR("reasoning")))
		return false;
	status = get(r, last, STR("status"));
	return val_is(status, STR("in_progress")) || val_is(status, STR("incomplete"));
}

/* --- tools --- */

static void put_tool(struct run *r, struct val t, struct val space, struct val parameters, struct val *out)
{
	struct val d = dict_new(r, 2), f = dict_new(r, 5), name = text_member(r, t, "name", "name of a tool");

	put(r, f, STR("name"), space.t == V_STR ? full_name(r, space, name) : name);
	copy(r, f, t, STR("description"));
	if (parameters.t != V_MISSING) {
		put(r, f, STR("parameters"), parameters);
	} else {
		copy(r, f, t, STR("parameters"));
		copy(r, f, t, STR("strict"));
		copy(r, f, t, STR("defer_loading"));
	}
	put(r, d, STR("type"), val_lit("function"));
	put(r, d, STR("function"), f);
	push(r, out, d);
}

/* What a tool of free text looks like to a model. */
static struct val free_text(struct run *r)
{
	struct val schema = dict_new(r, 4), input = dict_new(r, 2), properties = dict_new(r, 1), required = list_new(r);

	put(r, input, STR("type"), val_lit("string"));
	put(r, input, STR("description"), val_lit("The freeform text payload for this tool."));
	put(r, properties, STR("input"), input);
	push(r, &required, val_lit("input"));
	put(r, schema, STR("type"), val_lit("object"));
	put(r, schema, STR("properties"), properties);
	put(r, schema, STR("required"), required);
	put(r, schema, STR("additionalProperties"), val_bool(false));
	return schema;
}

static void put_namespace(struct run *r, struct val t, struct val *out)
{
	struct val space = text_member(r, t, "name", "name of a namespace");
	struct val list = must_be(r, get(r, t, STR("tools")), V_LIST, "tools of a namespace");

	for (uint32_t i = 0; i < list.n; i++) {
		struct val inner = must_be(r, val_force(r, &list.at[i]), V_DICT, "a tool");

		if (val_is(get(r, inner, STR("type")), STR("function")))
			put_tool(r, inner, space, val_of(V_MISSING), out);
	}
}

/* Tools that the engine runs itself are not shown to the model. */
static struct val map_tools(struct run *r, const struct chat *c)
{
	struct val tools = c->tools, out = list_new(r), t, kind, format;

	for (uint32_t i = 0; i < tools.n; i++) {
		t = must_be(r, val_force(r, &tools.at[i]), V_DICT, "a tool");
		kind = must_be(r, get(r, t, STR("type")), V_STR, "type of a tool");
		format = get(r, t, STR("format"));
		if (val_is(kind, STR("function"))) {
			put_tool(r, t, val_of(V_MISSING), val_of(V_MISSING), &out);
		} else if (val_is(kind, STR("namespace"))) {
			put_namespace(r, t, &out);
		} else if (val_is(kind, STR("custom"))) {
			rule(r, c, CHAT_RULE_CUSTOM);
			if (val_is(get(r, format, STR("type")), STR("grammar")))
				run_raise(r, "tools with a grammar are not supported");
			put_tool(r, t, val_of(V_MISSING), free_text(r), &out);
		}
	}
	return out;
}

/* --- the request --- */

void chat_from_responses(struct run *r, struct chat *c)
{
	struct val out = list_new(r), m;
	bool partial = is_partial(r, c->input);

	rule(r, c, CHAT_RULE_RESPONSES);
	if (!absent(c->instructions) && must_be(r, c->instructions, V_STR, "instructions").n) {
		m = dict_new(r, 2);
		put(r, m, STR("role"), val_lit("system"));
		put(r, m, STR("content"), c->instructions);
		push(r, &out, m);
	}
	if (c->input.t == V_STR) {
		m = dict_new(r, 2);
		put(r, m, STR("role"), val_lit("user"));
		put(r, m, STR("content"), c->input);
		push(r, &out, m);
	} else {
		must_be(r, c->input, V_LIST, "input");
		for (uint32_t i = 0; i < c->input.n; i++)
			put_item(r, c, val_force(r, &c->input.at[i]), &out);
	}
	if (c->tools.t != V_MISSING)
		must_be(r, c->tools, V_LIST, "tools");
	c->tools = c->tools.t == V_LIST && c->tools.n ? map_tools(r, c) : val_of(V_NONE);
	if (!absent(c->reasoning))
		c->effort = get(r, must_be(r, c->reasoning, V_DICT, "reasoning"), STR("effort"));
	c->messages = out;
	c->add_prompt = val_bool(!partial);
	c->go_on = val_bool(partial);
	c->own = true;
}
