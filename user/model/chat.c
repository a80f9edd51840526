/* SPDX-License-Identifier: Apache-2.0
 *
 * What vLLM makes of a chat request before the template sees it. Messages are rebuilt with the keys that the API layer
 * knows, in its order; tool calls' arguments become objects; tools are dumped through a model that puts null where
 * something is missing; content is joined or kept as parts by what the template does with it (chat_format.c).
 */
#include "model/chat.h"

#include "model/chat_int.h"

#define TAG    "CONTINUE_FINAL_MESSAGE_TAG "
#define HEADER "x-anthropic-billing-header"
#define S(lit) val_strn(lit, sizeof(lit) - 1)

/* The texts of a list that are not empty (or all), with <sep> between them. */
static struct val join_texts(struct run *r, struct val list, struct val sep, bool skip_empty)
{
	struct val some = val_list(r, V_LIST, list.n);

	some.n = 0;
	for (uint32_t i = 0; i < list.n; i++)
		if (list.at[i].n || !skip_empty)
			some.at[some.n++] = list.at[i];
	return some.n == 1 ? some.at[0] : text_join(r, sep, some);
}

/* --- content --- */

/* The member of a part that is its text; NULL: a part of another kind. */
static const char *text_member(struct val kind)
{
	static const char *const table[][2] = { { "text", "text" },
						{ "input_text", "text" },
						{ "output_text", "text" },
						{ "refusal", "refusal" },
						{ "thinking", "thinking" } };

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (val_is(kind, str_of(table[i][0])))
			return table[i][1];
	return NULL;
}

static const char *media_kind(struct val kind)
{
	static const char *const table[][2] = { { "image_url", "image" },    { "input_image", "image" },
						{ "image_embeds", "image" }, { "input_audio", "audio" },
						{ "audio_url", "audio" },    { "video_url", "video" } };

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (val_is(kind, str_of(table[i][0])))
			return table[i][1];
	return NULL;
}

/* Members of a part that the engine knows; templates see the others of a text's part as they are. */
static bool part_member(struct val key)
{
	static const char *const table[] = { "audio_embeds",
					     "audio_url",
					     "closed",
					     "data",
					     "file",
					     "image_embeds",
					     "image_pil",
					     "image_url",
					     "input_audio",
					     "name",
					     "prompt_cache_breakpoint",
					     "refusal",
					     "text",
					     "thinking",
					     "type",
					     "uuid",
					     "video_embeds",
					     "video_url" };

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (val_is(key, str_of(table[i])))
			return true;
	return false;
}

static struct val text_part(struct run *r, const struct chat *c, struct val part, struct val text)
{
	struct val p = dict_new(r, 2);

	put(r, p, STR("type"), S("text"));
	put(r, p, STR("text"), text);
	for (uint32_t i = 0; part.t == V_DICT && i < part.dict->n; i++)
		if (!part_member(part.dict->at[i].k)) {
			rule(r, c, CHAT_RULE_PART_EXTRAS);
			dict_put(r, p.dict, part.dict->at[i].k, part.dict->at[i].v);
		}
	return p;
}

static void add_media(struct run *r, const struct chat *c, const char *kind, struct val *out)
{
	struct val p = dict_new(r, 1);

	if (c->in->media)
		*c->in->media = true;
	if (!c->parts)
		run_raise(r, "the text of a media part depends on the model, not on the template");
	put(r, p, STR("type"), val_strn(kind, strlen(kind)));
	out->at[out->n++] = p;
}

static void add_reference(struct run *r, const struct chat *c, struct val part, struct val *out)
{
	struct val name = get(r, part, STR("name")), p = dict_new(r, 2);

	rule(r, c, CHAT_RULE_REFERENCE);
	if (!c->parts) {
		out->at[out->n++] = must_be(r, name, V_STR, "name of a tool_reference");
		return;
	}
	put(r, p, STR("type"), S("tool_reference"));
	put(r, p, STR("name"), name.t == V_MISSING ? val_of(V_NONE) : name);
	out->at[out->n++] = p;
}

/* A client's billing line changes with each request; the engine takes it out. False: nothing is left. */
static bool without_header(struct run *r, const struct chat *c, struct val *text)
{
	const char *nl;

	if (text->t != V_STR || !str_starts(val_str(*text), STR(HEADER)))
		return true;
	rule(r, c, CHAT_RULE_CUSTOM);
	nl = memchr(text->s, '\n', text->n);
	if (!nl || nl + 1 == text->s + text->n)
		return false;
	text->n -= (uint32_t)(nl + 1 - text->s);
	text->s = nl + 1;
	return true;
}

static void add_part(struct run *r, const struct chat *c, struct val part, bool system, struct val *out)
{
	struct val kind, text = part;

	if (part.t != V_STR) {
		const char *member, *media;

		must_be(r, part, V_DICT, "a part of content");
		kind = get(r, part, STR("type"));
		media = media_kind(kind);
		if (media) {
			add_media(r, c, media, out);
			return;
		}
		if (val_is(kind, STR("tool_reference"))) {
			add_reference(r, c, part, out);
			return;
		}
		member = text_member(kind);
		if (!member)
			run_raise(r, "unsupported type of a content part");
		text = get(r, part, str_of(member));
		if (system && val_is(kind, STR("text")) && !without_header(r, c, &text))
			return;
		if (absent(text))
			return;
		must_be(r, text, V_STR, "text of a content part");
	} else if (system && !without_header(r, c, &text)) {
		return;
	}
	out->at[out->n++] = c->parts ? text_part(r, c, part, text) : text;
}

static struct val content(struct run *r, const struct chat *c, struct val v, bool system)
{
	struct val out;

	if (!absent(v) && v.t != V_STR)
		must_be(r, v, V_LIST, "content");
	out = val_list(r, V_LIST, v.t == V_LIST ? v.n : 1);
	out.n = 0;
	if (v.t == V_STR)
		add_part(r, c, v, system, &out);
	for (uint32_t i = 0; v.t == V_LIST && i < v.n; i++)
		add_part(r, c, val_force(r, &v.at[i]), system, &out);
	return c->parts ? out : join_texts(r, out, S("\n"), true);
}

/* A tool's answer of texts alone is a string even where content is a list. */
static struct val joined(struct run *r, const struct chat *c, struct val v)
{
	struct val texts;

	if (v.t != V_LIST)
		return v;
	rule(r, c, CHAT_RULE_TOOL_TEXT);
	texts = val_list(r, V_LIST, v.n);
	for (uint32_t i = 0; i < v.n; i++) {
		texts.at[i] = get(r, v.at[i], STR("text"));
		if (texts.at[i].t == V_MISSING)
			return v;
	}
	return join_texts(r, texts, S("\n"), false);
}

/* --- messages --- */

static struct val arguments(struct run *r, const struct chat *c, struct val v)
{
	bool ok = true;

	if (v.t == V_STR && v.n) {
		v = json_text_to_val(r, val_str(v), &ok);
		if (!ok || v.t != V_DICT)
			rule(r, c, CHAT_RULE_ARGUMENTS);
	}
	return ok && v.t == V_DICT ? v : dict_new(r, 0);
}

static struct val tool_call(struct run *r, const struct chat *c, struct val from)
{
	struct val call = dict_new(r, 3), f = dict_new(r, 2), function, kind;

	must_be(r, from, V_DICT, "an entry of tool_calls");
	function = must_be(r, get(r, from, STR("function")), V_DICT, "function of a tool call");
	kind = get(r, from, STR("type"));
	if (kind.t != V_MISSING && !val_is(kind, STR("function")))
		run_raise(r, "only tool calls of type function");
	if (!c->own) /* the API's layer sorts members */
		copy(r, f, function, STR("arguments"));
	copy(r, f, function, STR("name"));
	put(r, f, STR("arguments"), arguments(r, c, get(r, function, STR("arguments"))));
	copy(r, call, from, STR("id"));
	put(r, call, STR("function"), f);
	copy(r, call, from, STR("type"));
	return call;
}

static void put_tool_calls(struct run *r, const struct chat *c, struct val out, struct val m)
{
	struct val v = get(r, m, STR("tool_calls")), list;

	if (absent(v) || (v.t == V_LIST && v.n == 0))
		return;
	must_be(r, v, V_LIST, "tool_calls");
	list = val_list(r, V_LIST, v.n);
	for (uint32_t i = 0; i < v.n; i++)
		list.at[i] = tool_call(r, c, val_force(r, &v.at[i]));
	put(r, out, STR("tool_calls"), list);
}

static struct val developer_tools(struct run *r, struct val v)
{
	static const struct str keys[] = { STR("name"), STR("description"), STR("parameters"), STR("strict") };
	struct val list;

	if (v.t == V_MISSING)
		return val_of(V_NONE);
	if (!val_truth(r, v))
		return v;
	must_be(r, v, V_LIST, "tools of a message");
	list = val_list(r, V_LIST, v.n);
	for (uint32_t i = 0; i < v.n; i++) {
		struct val from = must_be(r, val_force(r, &v.at[i]), V_DICT, "a tool"), f = dict_new(r, 4);
		struct val function = must_be(r, get(r, from, STR("function")), V_DICT, "function of a tool");

		list.at[i] = dict_new(r, 2);
		for (size_t k = 0; k < 4; k++)
			copy(r, f, function, keys[k]);
		put(r, list.at[i], STR("function"), f);
		copy(r, list.at[i], from, STR("type"));
	}
	return list;
}

static struct val message(struct run *r, const struct chat *c, struct val m)
{
	struct val out = dict_new(r, 8), role, said, reasoning;

	must_be(r, m, V_DICT, "a message");
	role = must_be(r, get(r, m, STR("role")), V_STR, "role of a message");
	said = get(r, m, STR("content"));
	put(r, out, STR("role"), role);
	put(r, out, STR("content"), content(r, c, said, val_is(role, STR("system"))));
	if (val_is(role, STR("assistant"))) {
		put_tool_calls(r, c, out, m);
		reasoning = get(r, m, STR("reasoning"));
		if (absent(reasoning)) {
			reasoning = get(r, m, STR("reasoning_content"));
			if (!absent(reasoning))
				rule(r, c, CHAT_RULE_EFFORT);
		}
		/* Of the API's message types only OpenAI's own takes null, and that one has no reasoning. */
		if (!absent(reasoning) && said.t != V_NONE) {
			put(r, out, STR("reasoning"), reasoning);
			put(r, out, STR("reasoning_content"), reasoning);
		}
	} else if (val_is(role, STR("tool"))) {
		copy(r, out, m, STR("tool_call_id"));
		put(r, out, STR("content"), joined(r, c, get(r, out, STR("content"))));
	}
	if (get(r, m, STR("name")).t == V_STR)
		copy(r, out, m, STR("name"));
	if (get(r, m, STR("task")).t == V_STR) {
		rule(r, c, CHAT_RULE_TOOL_TEXT);
		copy(r, out, m, STR("task"));
	}
	if (val_is(role, STR("developer"))) {
		struct val own = get(r, m, STR("tools"));

		if (c->own)
			put(r, out, STR("tools"), own.t == V_MISSING ? val_of(V_NONE) : own);
		else
			put(r, out, STR("tools"), developer_tools(r, own));
	}
	return out;
}

static bool is_role(struct run *r, struct val m, const char *role)
{
	return val_is(get(r, m, STR("role")), str_of(role));
}

/* For a template that never says "developer": such messages are the system's, and those become one, the first. */
static struct val developers_to_system(struct run *r, struct val messages)
{
	struct val texts = val_list(r, V_LIST, messages.n), out = val_list(r, V_LIST, messages.n + 1), first;
	bool moved = false;

	texts.n = 0;
	out.n = 1;
	for (uint32_t i = 0; i < messages.n; i++) {
		struct val *m = &messages.at[i], said;

		if (is_role(r, *m, "developer")) {
			struct val plain = dict_new(r, 4);

			for (uint32_t k = 0; k < m->dict->n; k++)
				if (!val_is(m->dict->at[k].k, STR("tools")))
					dict_put(r, plain.dict, m->dict->at[k].k, m->dict->at[k].v);
			put(r, plain, STR("role"), S("system"));
			*m = plain;
		}
		if (!is_role(r, *m, "system")) {
			out.at[out.n++] = *m;
			continue;
		}
		moved |= i > 0;
		said = get(r, *m, STR("content"));
		if (said.t == V_LIST) {
			struct val list = val_list(r, V_LIST, said.n);

			list.n = 0;
			for (uint32_t k = 0; k < said.n; k++) {
				struct val text = get(r, said.at[k], STR("text"));

				if (text.t != V_MISSING)
					list.at[list.n++] = text;
			}
			said = join_texts(r, list, S("\n"), false);
		}
		texts.at[texts.n++] = said;
	}
	if (!moved)
		return messages;
	first = dict_new(r, 2);
	put(r, first, STR("role"), S("system"));
	put(r, first, STR("content"), join_texts(r, texts, S("\n\n"), true));
	out.at[0] = first;
	return out;
}

static struct val all_messages(struct run *r, const struct chat *c)
{
	struct val from = must_be(r, c->messages, V_LIST, "messages"), list = val_list(r, V_LIST, from.n);
	bool developer = false;

	if (from.n == 0)
		run_raise(r, "there are no messages");
	for (uint32_t i = 0; i < from.n; i++) {
		list.at[i] = message(r, c, val_force(r, &from.at[i]));
		developer |= is_role(r, list.at[i], "developer");
	}
	if (!developer || r->t->says_developer)
		return list;
	rule(r, c, CHAT_RULE_DEVELOPER);
	return developers_to_system(r, list);
}

/* --- tools and variables --- */

static struct val flag(struct run *r, struct val of, struct str key)
{
	struct val v = get(r, of, key);

	if (!absent(v) && v.t != V_BOOL)
		run_unsure(r, "%.*s of a tool is not true or false", (int)key.n, key.p);
	return v;
}

static struct val tool(struct run *r, const struct chat *c, struct val t)
{
	struct val f, g = dict_new(r, 5), d = dict_new(r, 3), kind = get(r, t, STR("type")), own, outer;

	f = must_be(r, get(r, t, STR("function")), V_DICT, "function of a tool");
	put(r, g, STR("name"), must_be(r, get(r, f, STR("name")), V_STR, "name of a tool"));
	put(r, g, STR("description"), val_of(V_NONE));
	copy(r, g, f, STR("description"));
	put(r, g, STR("parameters"), val_of(V_NONE));
	copy(r, g, f, STR("parameters"));
	own = flag(r, f, STR("strict"));
	if (!absent(own))
		put(r, g, STR("strict"), own);
	own = flag(r, f, STR("defer_loading"));
	outer = flag(r, t, STR("defer_loading"));
	if (!absent(own) || !absent(outer)) {
		rule(r, c, CHAT_RULE_REFERENCE);
		put(r, g, STR("defer_loading"), absent(own) ? outer : own);
	}
	put(r, d, STR("type"), kind.t == V_MISSING ? S("function") : kind);
	put(r, d, STR("function"), g);
	if (!absent(outer))
		put(r, d, STR("defer_loading"), outer);
	return d;
}

static struct val tools(struct run *r, const struct chat *c)
{
	struct val list, from = c->tools;

	if (absent(from))
		return val_of(V_NONE);
	must_be(r, from, V_LIST, "tools");
	if (from.n == 0 && c->in->api == CHAT_COMPLETIONS)
		run_raise(r, "tools must not be an empty array");
	list = val_list(r, V_LIST, from.n);
	for (uint32_t i = 0; i < from.n; i++)
		list.at[i] = tool(r, c, must_be(r, val_force(r, &from.at[i]), V_DICT, "a tool"));
	return list;
}

/* Parameters of transformers' apply_chat_template: never variables. */
static bool consumed(struct val name)
{
	static const char *const names[] = { "conversation",
					     "chat_template",
					     "continue_final_message",
					     "tokenize",
					     "padding",
					     "truncation",
					     "max_length",
					     "return_tensors",
					     "return_dict",
					     "return_assistant_tokens_mask",
					     "tokenizer_kwargs" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (val_is(name, str_of(names[i])))
			return true;
	return false;
}

static void set(struct run *r, struct val vars, struct str name, struct val v)
{
	if (!absent(v) && !val_is(v, STR("auto")))
		put(r, vars, name, v);
}

static struct val variables(struct run *r, const struct chat *c)
{
	const struct chat_tokens *k = c->in->tokens;
	struct val vars = dict_new(r, 16);

	for (unsigned i = 0; k && i < k->n; i++)
		put(r, vars, k->at[i].name, val_strn(k->at[i].text.p, k->at[i].text.n));
	put(r, vars, STR("tools"), tools(r, c));
	if (!absent(c->kwargs))
		must_be(r, c->kwargs, V_DICT, "chat_template_kwargs");
	for (uint32_t i = 0; c->kwargs.t == V_DICT && i < c->kwargs.dict->n; i++) {
		struct pair *p = &c->kwargs.dict->at[i];

		if (val_is(p->k, STR("chat_template")) || val_is(p->k, STR("tokenize")))
			run_raise(r, "chat_template_kwargs may not hold chat_template or tokenize");
		set(r, vars, val_str(p->k), val_force(r, &p->v));
	}
	set(r, vars, STR("add_generation_prompt"), c->add_prompt.t == V_MISSING ? val_bool(true) : c->add_prompt);
	set(r, vars, STR("continue_final_message"), c->go_on.t == V_MISSING ? val_bool(false) : c->go_on);
	set(r, vars, STR("documents"), c->documents);
	set(r, vars, STR("reasoning_effort"), c->effort);
	if (!absent(c->effort))
		rule(r, c, CHAT_RULE_EFFORT);
	if (!absent(c->effort) && get(r, c->kwargs, STR("enable_thinking")).t == V_MISSING)
		put(r, vars, STR("enable_thinking"), val_bool(!val_is(c->effort, STR("none"))));
	return vars;
}

static struct val seen_by_template(struct run *r, struct val vars, struct val messages)
{
	struct val out = dict_new(r, vars.dict->n + 2), documents = get(r, vars, STR("documents"));

	for (uint32_t i = 0; i < vars.dict->n; i++)
		if (!consumed(vars.dict->at[i].k))
			dict_put(r, out.dict, vars.dict->at[i].k, vars.dict->at[i].v);
	put(r, out, STR("messages"), messages);
	put(r, out, STR("documents"), documents.t == V_MISSING ? val_of(V_NONE) : documents);
	return out;
}

/* --- continue_final_message --- */

/* Mark where the final message ends; returns its text without the mark. */
static struct val mark(struct run *r, struct val m)
{
	struct val said = get(r, m, STR("content")), text;

	if (!r->t->says_content)
		run_raise(r, "there is no content to continue");
	if (said.t == V_STR) {
		put(r, m, STR("content"), text_concat(r, said, S(TAG)));
		return said;
	}
	for (uint32_t i = said.n; i-- > 0;) {
		text = get(r, said.at[i], STR("text"));
		if (text.t == V_MISSING)
			continue;
		put(r, said.at[i], STR("text"), text_concat(r, text, S(TAG)));
		return text;
	}
	run_raise(r, "there is no text to continue");
}

static struct val cut(struct run *r, struct val text, struct val last)
{
	struct val tag = S(TAG), parts;

	tag.n--;
	parts = text_split(r, text, &tag, 1, true);
	if (parts.n < 2 || !text_find(val_str(text), val_str(text_strip(r, last, NULL, 3))))
		run_raise(r, "the final message does not appear in the rendered chat");
	if (parts.at[1].n && parts.at[1].s[0] == ' ')
		return parts.at[0];
	return text_strip(r, parts.at[0], NULL, 2);
}

/* --- the request --- */

/* A member that changes the prompt in a way that is not known here. */
static void refuse_member(struct run *r, struct str name, struct val v)
{
	/* With anything but this, null too, the engine may cut the prompt. */
	if (str_eq(name, STR("truncation")) ? val_is(v, STR("disabled")) : absent(v))
		return;
	if (str_eq(name, STR("prompt")))
		run_raise(r, "prompts of the engine's own are not supported");
	run_unsure(r, "%.*s is set", (int)name.n, name.p);
}

static void read_request(struct run *r, struct chat *c)
{
	enum { CHAT = 1 << CHAT_COMPLETIONS, MESSAGES = 1 << CHAT_MESSAGES, RESPONSES = 1 << CHAT_RESPONSES };
	const struct {
		struct str key;
		struct val *to; /* NULL: must not be there */
		unsigned apis;
	} members[] = {
		{ STR("messages"), &c->messages, CHAT | MESSAGES },
		{ STR("tools"), &c->tools, CHAT | MESSAGES | RESPONSES },
		{ STR("documents"), &c->documents, CHAT },
		{ STR("chat_template_kwargs"), &c->kwargs, CHAT | MESSAGES | RESPONSES },
		{ STR("add_generation_prompt"), &c->add_prompt, CHAT },
		{ STR("continue_final_message"), &c->go_on, CHAT },
		{ STR("reasoning_effort"), &c->effort, CHAT },
		{ STR("chat_template"), NULL, CHAT },
		{ STR("truncate_prompt_tokens"), NULL, CHAT },
		{ STR("system"), &c->system, MESSAGES },
		{ STR("thinking"), &c->thinking, MESSAGES },
		{ STR("output_config"), &c->output, MESSAGES },
		{ STR("cache_salt"), &c->salt, MESSAGES },
		{ STR("input"), &c->input, RESPONSES },
		{ STR("instructions"), &c->instructions, RESPONSES },
		{ STR("reasoning"), &c->reasoning, RESPONSES },
		{ STR("previous_response_id"), NULL, RESPONSES },
		{ STR("prompt"), NULL, RESPONSES },
		{ STR("truncation"), NULL, RESPONSES },
	};
	struct json_val k, v;
	struct json_in in;
	struct val value;

	json_in_start(r, &in, c->in->request);
	if (json_value(&in.j, &v) || v.kind != JSON_T_OBJ)
		run_raise(r, "the request is no JSON object");
	while (json_in_member(&in, &k, &v) > 0) {
		size_t i;

		for (i = 0; i < sizeof(members) / sizeof(members[0]); i++)
			if (members[i].apis >> c->in->api & 1 && json_str_is(&k, members[i].key))
				break;
		if (i == sizeof(members) / sizeof(members[0])) {
			json_skip(&in.j, &v, NULL);
			continue;
		}
		value = json_to_val(r, &in, &v);
		val_force(r, &value);
		if (members[i].to)
			*members[i].to = value;
		else
			refuse_member(r, members[i].key, value);
	}
	if (json_end(&in.j))
		run_raise(r, "the request is no JSON object");
}

static void run_chat(struct run *r, void *ctx)
{
	struct chat c = { .in = ctx, .parts = r->t->parts };
	struct val vars, messages, last, go_on, text;
	struct out o;

	read_request(r, &c);
	if (r->t->parts_by & c.in->lacking)
		run_unsure(r, "whether content is a list depends on the engine's version");
	if (c.in->api == CHAT_MESSAGES)
		chat_from_messages(r, &c);
	else if (c.in->api == CHAT_RESPONSES)
		chat_from_responses(r, &c);
	vars = variables(r, &c);
	if (c.in->by_tools && c.in->tools == absent(get(r, vars, STR("tools"))))
		run_unsure(r, "the template was chosen as if there were %s tools", c.in->tools ? "some" : "no");
	messages = all_messages(r, &c);
	go_on = get(r, vars, STR("continue_final_message"));
	if (go_on.t == V_MISSING || !val_truth(r, go_on)) {
		run_template(r, seen_by_template(r, vars, messages));
		return;
	}
	if (val_truth(r, get(r, vars, STR("add_generation_prompt"))))
		run_raise(r, "continue_final_message and add_generation_prompt exclude each other");
	last = mark(r, messages.at[messages.n - 1]);
	out_capture(r, &o);
	run_template(r, seen_by_template(r, vars, messages));
	text = cut(r, out_end(r, &o), last);
	out_put(r, text.s, text.n);
}

int chat_render(const struct template *t, struct template_work *w, const struct chat_in *in, struct template_sink sink,
		struct template_error *err)
{
	struct template_in run = { .now = in->now, .utc = in->utc, .limits = in->limits };

	return template_run(w, t, &run, sink, err, run_chat, (void *)in);
}

bool chat_wants_parts(const struct template *t)
{
	return t->parts;
}
