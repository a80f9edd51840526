/* SPDX-License-Identifier: Apache-2.0
 * What the engine does to a chat request before the template, seen through small templates.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/buf.h"
#include "model/chat.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define ALL  "{% for m in messages %}{{ m }}{% endfor %}"

static int append(void *ctx, const char *p, size_t n)
{
	return buf_put(ctx, p, n);
}

/* <text> NULL: the engine refuses the request; UNSURE: it cannot be told. */
struct chat_case {
	const char *source, *request, *text;
};
#define UNSURE "?"

static void renders_for(uint32_t lacking, enum chat_api api, const struct chat_case *p, size_t n)
{
	static const char config[] =
		"{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"</s>\",\"pad_token\":null,\"x\":1,"
		"\"model_max_length\":1000000000000000019884624838656,"
		"\"extra_special_tokens\":{\"boi\":\"<boi>\"}}";
	char why[100];
	struct chat_tokens *tokens = chat_tokens_parse(STR(config), why, sizeof(why));
	struct template_work *w = template_work_new();

	assert_non_null(tokens);
	for (size_t i = 0; i < n; i++) {
		struct chat_in in = {
			.request = str_of(p[i].request), .api = api, .lacking = lacking, .tokens = tokens, .utc = true
		};
		struct template_error err;
		struct template *t = template_compile(str_of(p[i].source), &err);
		struct buf out = { 0 };
		int r;

		assert_non_null(t);
		if (api == CHAT_MESSAGES)
			in.habits = chat_habits_find(t, w, tokens);
		r = chat_render(t, w, &in, (struct template_sink){ append, &out }, &err);
		buf_put(&out, "", 1);
		if (p[i].text && strcmp(p[i].text, UNSURE) == 0 ? r != TEMPLATE_UNSURE
		    : p[i].text					? r || strcmp(buf_data(&out), p[i].text) != 0
								: r != TEMPLATE_RAISED)
			fail_msg("%s\n%s\n  gives %d \"%s\" (%s)\n  not \"%s\"", p[i].source, p[i].request, r,
				 buf_data(&out), err.text, p[i].text ? p[i].text : "an error");
		buf_free(&out);
		template_unref(t);
	}
	template_work_free(w);
	chat_tokens_free(tokens);
}

static void renders_as(enum chat_api api, const struct chat_case *p, size_t n)
{
	renders_for(0, api, p, n);
}

static void renders(const struct chat_case *p, size_t n)
{
	renders_as(CHAT_COMPLETIONS, p, n);
}

static void messages_are_rebuilt_with_known_keys_in_one_order(void **state)
{
	static const struct chat_case p[] = {
		{ ALL, "{\"messages\":[{\"name\":\"z\",\"id\":1,\"content\":\"hi\",\"role\":\"user\"}]}",
		  "{'role': 'user', 'content': 'hi', 'name': 'z'}" },
		{ ALL, "{\"messages\":[{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":null}]}",
		  "{'role': 'tool', 'content': '', 'tool_call_id': 'a'}" },
		{ ALL,
		  "{\"messages\":[{\"role\":\"assistant\",\"content\":\"hi\",\"tool_calls\":[],\"refusal\":null}]}",
		  "{'role': 'assistant', 'content': 'hi'}" },
		{ ALL, "{\"messages\":[]}", NULL },
		{ ALL, "{\"messages\":[{\"content\":\"x\"}]}", NULL },
		{ ALL, "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", NULL },
		{ ALL, "{\"messages\":\"x\"}", NULL },
		{ ALL, "[]", NULL },
		{ ALL,
		  "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"messages\":[{\"role\":\"user\",\"content\":"
		  "\"b\"}]}",
		  "{'role': 'user', 'content': 'b'}" },
	};

	renders(p, N(p));
}

static void arguments_of_tool_calls_become_objects(void **state)
{
#define CALL(args)                                                                                                     \
	"{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":" \
	"{\"name\":\"f\"" args "}}]}]}"
	static const char show[] = "{{ messages[0].tool_calls[0].function.arguments|tojson }}";
	static const struct chat_case p[] = {
		{ show, CALL(",\"arguments\":\"{\\\"b\\\": 1.0, \\\"a\\\": [null]}\""), "{\"b\": 1.0, \"a\": [null]}" },
		{ show, CALL(",\"arguments\":\"\""), "{}" },
		{ show, CALL(""), "{}" },
		{ show, CALL(",\"arguments\":\"{oops\""), "{}" },
		{ show, CALL(",\"arguments\":\"[1]\""), "{}" },
		{ show, CALL(",\"arguments\":{\"a\":1}"), "{\"a\": 1}" },
		{ "{{ messages[0].tool_calls }}", CALL(",\"arguments\":\"{}\",\"more\":1"),
		  "[{'function': {'arguments': {}, 'name': 'f'}, 'type': 'function'}]" },
		{ show,
		  "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"custom\",\"function\":{}}]}]}",
		  NULL },
	};

	renders(p, N(p));
}

static void reasoning_has_two_names_and_needs_content(void **state)
{
	static const char show[] = "{% for m in messages %}<{{ m.reasoning }}|{{ m.reasoning_content }}>{% endfor %}";
	static const struct chat_case p[] = {
		{ show, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\",\"reasoning_content\":\"R\"}]}",
		  "<R|R>" },
		{ show, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"reasoning\":\"R\"}]}", "<R|R>" },
		{ show, "{\"messages\":[{\"role\":\"assistant\",\"reasoning\":\"R\"}]}", "<R|R>" },
		{ show, "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"R\"}]}", "<|>" },
		{ show, "{\"messages\":[{\"role\":\"user\",\"content\":\"A\",\"reasoning\":\"R\"}]}", "<|>" },
	};

	renders(p, N(p));
}

static void content_is_text_or_parts_as_the_template_walks_it(void **state)
{
#define PARTS                                                                                                   \
	"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\"," \
	"\"text\":\"\"},\"b\"]}]}"
#define WALK "{% for m in messages %}{% for p in m.content %}[{{ p.type }}:{{ p.text }}]{% endfor %}{% endfor %}"
	static const struct chat_case p[] = {
		{ "{{ messages[0].content }}", PARTS, "a\nb" },
		{ WALK, PARTS, "[text:a][text:][text:b]" },
		{ WALK, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "[text:x]" },
		{ WALK, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
		  "[image:]" },
		{ "{{ messages[0].content }}",
		  "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
		  NULL },
		{ "{% macro r(c) %}{% for p in c %}{{ p.text }};{% endfor %}{% endmacro %}"
		  "{% set all = messages[0:] %}{% for m in all %}{{ r(m['content']) }}{% endfor %}",
		  PARTS, "a;;b;" },
		{ "{% for a, b in messages[0].items() %}{{ b }}{% endfor %}{% for m in messages %}{% for p in "
		  "m.content %}"
		  "{% endfor %}{% endfor %}",
		  PARTS,
		  "user[{'type': 'text', 'text': 'a'}, {'type': 'text', 'text': ''}, {'type': 'text', 'text': 'b'}]" },
	};

	renders(p, N(p));
}

static void a_billing_line_is_taken_out_of_the_system_text(void **state)
{
	static const struct chat_case p[] = {
		{ "{{ messages[0].content }}",
		  "{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"x-anthropic-billing-"
		  "header: "
		  "a\"},{\"type\":\"text\",\"text\":\"S\"}]}]}",
		  "S" },
		{ "{{ messages[0].content }}",
		  "{\"messages\":[{\"role\":\"system\",\"content\":\"x-anthropic-billing-header: a\\nS\\nT\"}]}",
		  "S\nT" },
		{ "{{ messages[0].content }}",
		  "{\"messages\":[{\"role\":\"user\",\"content\":\"x-anthropic-billing-header: a\\nS\"}]}",
		  "x-anthropic-billing-header: a\nS" },
	};

	renders(p, N(p));
}

static void tools_get_null_for_what_they_lack(void **state)
{
	static const struct chat_case p[] = {
		{ "{{ tools|tojson }}",
		  "{\"tools\":[{\"function\":{\"strict\":null,\"name\":\"f\",\"x\":1}}],\"messages\":[{\"role\":"
		  "\"user\","
		  "\"content\":\"x\"}]}",
		  "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": null, \"parameters\": "
		  "null}}]" },
		{ "{{ tools is none }}", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "True" },
		{ "x", "{\"tools\":[],\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", NULL },
	};

	renders(p, N(p));
}

static void members_of_a_part_that_the_engine_does_not_know_reach_the_template(void **state)
{
	static const struct chat_case p[] = {
		{ "{{ messages[0].content|tojson }}{% if 0 %}{% for m in messages %}{% for p in m.content %}{% endfor "
		  "%}"
		  "{% endfor %}{% endif %}",
		  "{\"messages\":[{\"role\":\"user\",\"content\":[{\"x\":[1],\"type\":\"text\",\"uuid\":null,\"text\":"
		  "\"a\","
		  "\"cache_control\":{\"type\":\"ephemeral\"}}]}]}",
		  "[{\"type\": \"text\", \"text\": \"a\", \"x\": [1], \"cache_control\": {\"type\": \"ephemeral\"}}]" },
	};

	renders(p, N(p));
}

static void what_changes_a_prompt_in_an_unknown_way_is_not_guessed(void **state)
{
#define CHAT_WITH(more) "{" more ",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"
	static const struct chat_case chats[] = {
		{ "x", CHAT_WITH("\"chat_template\":\"{{ 1 }}\""), UNSURE },
		{ "x", CHAT_WITH("\"chat_template\":null"), "x" },
		{ "x", CHAT_WITH("\"truncate_prompt_tokens\":10"), UNSURE },
		{ "x", CHAT_WITH("\"tools\":[{\"function\":{\"name\":\"f\",\"strict\":\"yes\"}}]"), UNSURE },
	};
	static const struct chat_case messages[] = {
		{ "x",
		  "{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"name\":\"f\",\"input\":"
		  "{}}]}]}",
		  UNSURE },
	};
	static const struct chat_case responses[] = {
		{ "x", "{\"input\":\"a\",\"previous_response_id\":\"r\"}", UNSURE },
		{ "x", "{\"input\":\"a\",\"previous_response_id\":null,\"prompt\":null}", "x" },
		{ "x", "{\"input\":\"a\",\"prompt\":{\"id\":\"p\"}}", NULL },
		{ "x", "{\"input\":\"a\",\"truncation\":\"disabled\"}", "x" },
		{ "x", "{\"input\":\"a\",\"truncation\":\"auto\"}", UNSURE },
		{ "x", "{\"input\":\"a\",\"truncation\":null}", UNSURE },
	};

	renders_as(CHAT_COMPLETIONS, chats, N(chats));
	renders_as(CHAT_MESSAGES, messages, N(messages));
	renders_as(CHAT_RESPONSES, responses, N(responses));
}

/* All that vLLM does is in selftests/data/templates/apis.json, which test_templates.py goes through. */
static void requests_of_other_apis_become_chats(void **state)
{
#define SYSTEMS                                                                                                   \
	"{\"system\":\"S\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"system\",\"content\":" \
	"\"T\"},"                                                                                                 \
	"{\"role\":\"user\",\"content\":\"b\"}]}"
#define SAY "{% for m in messages %}{{ m.role[0] }}{{ m.content }};{% endfor %}"
	static const struct chat_case messages[] = {
		{ SAY, SYSTEMS, "sS;ua;sT;ub;" },
		{ "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('no') }}{% "
		  "endif %}"
		  "{% endfor %}" SAY,
		  SYSTEMS, "sST;ua;ub;" },
		{ SAY "{{ strftime_now('') if messages|length == 4 }}", SYSTEMS, "sST;ua;ub;" },
		{ "{{ enable_thinking }}",
		  "{\"thinking\":{\"type\":\"disabled\"},\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}",
		  "False" },
		{ "{{ 1 if not enable_thinking and enable_thinking is defined and messages[0].content != 'Hi' }}"
		  "{{ reasoning_effort if messages[0].content != 'Hi' }}",
		  "{\"thinking\":{\"type\":\"disabled\"},\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}", "low" },
		{ SAY "{{ messages[1].tool_calls }}",
		  "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":[{\"type\":"
		  "\"tool_use\",\"id\":\"i\",\"name\":\"f\",\"input\":{\"x\":1.0}}]},{\"role\":\"user\",\"content\":[{"
		  "\"type\":"
		  "\"text\",\"text\":\"b\"},{\"type\":\"tool_result\",\"tool_use_id\":\"i\",\"content\":\"r\"}]}]}",
		  "ua;a;tr;ub;[{'id': 'i', 'function': {'arguments': {'x': 1.0}, 'name': 'f'}, 'type': 'function'}]" },
		{ SAY, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", NULL },
	};
	static const struct chat_case responses[] = {
		{ SAY, "{\"input\":\"a\",\"instructions\":\"S\",\"messages\":[]}", "sS;ua;" },
		{ SAY "{{ messages[1].reasoning }}{{ messages[1].tool_calls }}",
		  "{\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"type\":\"reasoning\",\"summary\":[],"
		  "\"content\":[{"
		  "\"text\":\"hm\"}]},{\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_"
		  "text\","
		  "\"text\":\"b\"}]},{\"type\":\"function_call\",\"call_id\":\"i\",\"name\":\"f\",\"arguments\":\"{}\"}"
		  ",{"
		  "\"type\":\"function_call_output\",\"call_id\":\"i\",\"output\":\"r\"}]}",
		  "ua;ab;tr;hm[{'id': 'i', 'function': {'name': 'f', 'arguments': {}}, 'type': 'function'}]" },
		{ SAY, "{\"input\":[{\"type\":\"item_reference\",\"id\":\"x\"}]}", NULL },
	};

	renders_as(CHAT_MESSAGES, messages, N(messages));
	renders_as(CHAT_RESPONSES, responses, N(responses));
}

/* Each is rendered where all engines have the rule, and where one lacks it there is no text; without what touches it,
 * there is one. */
static void a_rule_that_an_engine_lacks_matters_where_it_is_touched(void **state)
{
#define USER	   "{\"role\":\"user\",\"content\":\"a\"}"
#define IN_CHAT(m) "{\"messages\":[" m "]}"
	static const struct {
		uint32_t rule;
		enum chat_api api;
		const char *source, *request;
	} p[] = {
		{ CHAT_RULE_TOOL_TEXT, CHAT_COMPLETIONS,
		  "{% for m in messages %}{% for p in m.content %}{% endfor %}{% endfor %}",
		  IN_CHAT("{\"role\":\"tool\",\"content\":\"x\"}") },
		{ CHAT_RULE_TOOL_TEXT, CHAT_COMPLETIONS, "x",
		  IN_CHAT("{\"role\":\"user\",\"content\":\"x\",\"task\":\"t\"}") },
		{ CHAT_RULE_REFERENCE, CHAT_COMPLETIONS, "x",
		  IN_CHAT("{\"role\":\"tool\",\"content\":[{\"type\":\"tool_reference\",\"name\":\"f\"}]}") },
		{ CHAT_RULE_REFERENCE, CHAT_COMPLETIONS, "x",
		  "{\"tools\":[{\"function\":{\"name\":\"f\",\"defer_loading\":true}}],\"messages\":[" USER "]}" },
		{ CHAT_RULE_EFFORT, CHAT_COMPLETIONS, "x", "{\"reasoning_effort\":\"low\",\"messages\":[" USER "]}" },
		{ CHAT_RULE_EFFORT, CHAT_COMPLETIONS, "x",
		  IN_CHAT("{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":\"r\"}") },
		{ CHAT_RULE_BY_NAME, CHAT_COMPLETIONS,
		  "{% for m in messages %}{% set content = m.content %}{% for p in content %}{{ p }}{% endfor %}{% "
		  "endfor %}",
		  IN_CHAT(USER) },
		{ CHAT_RULE_DEVELOPER, CHAT_COMPLETIONS, "x", IN_CHAT("{\"role\":\"developer\",\"content\":\"a\"}") },
		{ CHAT_RULE_MESSAGES, CHAT_MESSAGES, "x", IN_CHAT(USER) },
		{ CHAT_RULE_PART_EXTRAS, CHAT_COMPLETIONS,
		  "{% for m in messages %}{% for p in m.content %}{% endfor %}{% endfor %}",
		  IN_CHAT("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\",\"x\":1}]}") },
		{ CHAT_RULE_RESPONSES, CHAT_RESPONSES, "x", "{\"input\":\"a\"}" },
		{ CHAT_RULE_ARGUMENTS, CHAT_COMPLETIONS, "x",
		  IN_CHAT("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"[1]\"}"
			  "}]}") },
		{ CHAT_RULE_BY_MACRO, CHAT_COMPLETIONS,
		  "{% macro r(c) %}{% for p in c %}{{ p }}{% endfor %}{% endmacro %}{% for m in messages %}{{ "
		  "r(m.content) }}"
		  "{% endfor %}",
		  IN_CHAT(USER) },
		{ CHAT_RULE_BY_MACRO, CHAT_COMPLETIONS,
		  "{% macro r(content) %}{% for p in content %}{{ p }}{% endfor %}{% endmacro %}x", IN_CHAT(USER) },
		{ CHAT_RULE_NO_THINKING, CHAT_MESSAGES, "x",
		  "{\"thinking\":{\"type\":\"disabled\"},\"messages\":[" USER "]}" },
		{ CHAT_RULE_SALT, CHAT_MESSAGES, "x", "{\"cache_salt\":\"s\",\"messages\":[" USER "]}" },
		{ CHAT_RULE_PROBING, CHAT_MESSAGES, "x", IN_CHAT(USER ",{\"role\":\"system\",\"content\":\"b\"}") },
		{ CHAT_RULE_CUSTOM, CHAT_COMPLETIONS, "x",
		  IN_CHAT("{\"role\":\"system\",\"content\":\"x-anthropic-billing-header: 1\"}") },
		{ CHAT_RULE_CUSTOM, CHAT_RESPONSES, "x",
		  "{\"input\":\"a\",\"tools\":[{\"type\":\"custom\",\"name\":\"f\"}]}" },
		{ CHAT_RULE_NO_ALIASES, CHAT_COMPLETIONS,
		  "{% set ns = namespace(rest=messages) %}{% for m in ns.rest %}{% for p in m.content %}{{ p }}{% "
		  "endfor %}"
		  "{% endfor %}",
		  IN_CHAT(USER) },
		{ CHAT_RULE_NO_ALIASES, CHAT_COMPLETIONS, "{% set ns = namespace() %}{% set ns.rest = messages[1:] %}x",
		  IN_CHAT(USER) },
	};
	uint32_t seen = 0;

	for (size_t i = 0; i < N(p); i++) {
		struct template_error err;
		struct template *t = template_compile(str_of(p[i].source), &err);
		struct template_work *w = template_work_new();
		struct buf out = { 0 };
		struct template_sink sink = { append, &out };
		struct chat_in in = { .request = str_of(p[i].request), .api = p[i].api, .lacking = ~p[i].rule };

		if (p[i].api != CHAT_COMPLETIONS || strstr(p[i].source, "for"))
			in.lacking = 0;
		if (!t || chat_render(t, w, &in, sink, &err))
			fail_msg("%s of %s: %s", p[i].request, p[i].source, err.text);
		in.lacking = p[i].rule;
		if (chat_render(t, w, &in, sink, &err) != TEMPLATE_UNSURE)
			fail_msg("%s of %s has a text", p[i].request, p[i].source);
		seen |= p[i].rule;
		buf_free(&out);
		template_unref(t);
		template_work_free(w);
	}
	assert_int_equal(seen, (CHAT_RULE_NO_ALIASES << 1) - 1);
}

static void versions_have_their_rules(void **state)
{
	static const struct {
		const char *version;
		uint32_t lacking;
	} p[] = {
		{ "0.32.0", 0 },
		{ "0.32.1rc2.dev12+g1234567.d20261101", CHAT_RULE_NO_ALIASES },
		{ "0.31.1.dev3", CHAT_RULE_CUSTOM },
		{ "0.33", CHAT_RULE_NO_ALIASES },
		{ "0.33.1.dev3+g1234567", CHAT_RULES_UNKNOWN },
		{ "0.31.0", CHAT_RULE_CUSTOM },
		{ "0.29.1", CHAT_RULE_CUSTOM | CHAT_RULE_NO_THINKING | CHAT_RULE_PROBING | CHAT_RULE_BY_MACRO },
		{ "0.18.0", CHAT_RULE_NO_ALIASES - 1 },
		{ "0.17.1", CHAT_RULES_UNKNOWN },
		{ "0.34.0", CHAT_RULES_UNKNOWN },
		{ "1.0.0", CHAT_RULES_UNKNOWN },
		{ "dev", CHAT_RULES_UNKNOWN },
		{ "", CHAT_RULES_UNKNOWN },
	};
	char why[200];

	for (size_t i = 0; i < N(p); i++) {
		why[0] = '\0';
		if (chat_rules_lacking(p[i].version, why, sizeof(why)) != p[i].lacking)
			fail_msg("%s: %x", p[i].version, chat_rules_lacking(p[i].version, why, sizeof(why)));
		assert_int_equal(why[0] != '\0', p[i].lacking == CHAT_RULES_UNKNOWN);
	}
}

static void variables_come_from_config_kwargs_and_request(void **state)
{
#define WITH(more) "{" more "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"
	static const struct chat_case p[] = {
		{ "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ boi }}", WITH(""), "<s></s>False<boi>" },
		{ "{{ add_generation_prompt }}{{ documents }}{{ enable_thinking is defined }}", WITH(""),
		  "TrueNoneFalse" },
		{ "{{ a }}{{ bos_token }}{{ n is defined }}",
		  WITH("\"chat_template_kwargs\":{\"a\":1,\"bos_token\":\"B\",\"n\":null},"), "1BFalse" },
		{ "{{ reasoning_effort }}{{ enable_thinking }}", WITH("\"reasoning_effort\":\"none\","), "noneFalse" },
		{ "{{ reasoning_effort is defined }}{{ enable_thinking }}", WITH("\"reasoning_effort\":\"auto\","),
		  "FalseTrue" },
		{ "{{ tokenizer_kwargs is defined }}", WITH("\"chat_template_kwargs\":{\"tokenizer_kwargs\":1},"),
		  "False" },
		{ "x", WITH("\"chat_template_kwargs\":{\"tokenize\":false},"), NULL },
	};

	renders(p, N(p));
}

static void developers_become_the_system_unless_the_template_knows_them(void **state)
{
#define DEV                                                                                             \
	"{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"q\"}," \
	"{\"role\":\"developer\",\"content\":\"b\"}]}"
	static const struct chat_case p[] = {
		{ "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}", DEV, "system=a\n\nb;user=q;" },
		{ "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}{# 'developer' #}", DEV,
		  "system=a;user=q;developer=b;" },
	};

	renders(p, N(p));
}

static void the_final_message_can_be_continued(void **state)
{
#define GO(text)                                                                                                  \
	"{\"add_generation_prompt\":false,\"continue_final_message\":true,\"messages\":[{\"role\":\"assistant\"," \
	"\"content\":\"" text "\"}]}"
	static const struct chat_case p[] = {
		{ "{% for m in messages %}<{{ m.content }}>{% endfor %}", GO("One, "), "<One, " },
		{ "{% for m in messages %}<{{ m.content|trim }}>{% endfor %}", GO("One, "), "<One," },
		{ "{% for m in messages %}<{{ m.role }}>{% endfor %}", GO("One"), NULL },
		{ "{% for m in messages %}<{{ m.content|upper }}>{% endfor %}", GO("One"), NULL },
		{ "{% for m in messages %}<{{ m.content }}>{% endfor %}",
		  "{\"continue_final_message\":true,\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}", NULL },
	};

	renders(p, N(p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_are_rebuilt_with_known_keys_in_one_order),
		cmocka_unit_test(arguments_of_tool_calls_become_objects),
		cmocka_unit_test(reasoning_has_two_names_and_needs_content),
		cmocka_unit_test(content_is_text_or_parts_as_the_template_walks_it),
		cmocka_unit_test(a_billing_line_is_taken_out_of_the_system_text),
		cmocka_unit_test(tools_get_null_for_what_they_lack),
		cmocka_unit_test(members_of_a_part_that_the_engine_does_not_know_reach_the_template),
		cmocka_unit_test(what_changes_a_prompt_in_an_unknown_way_is_not_guessed),
		cmocka_unit_test(requests_of_other_apis_become_chats),
		cmocka_unit_test(a_rule_that_an_engine_lacks_matters_where_it_is_touched),
		cmocka_unit_test(versions_have_their_rules),
		cmocka_unit_test(variables_come_from_config_kwargs_and_request),
		cmocka_unit_test(developers_become_the_system_unless_the_template_knows_them),
		cmocka_unit_test(the_final_message_can_be_continued),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
