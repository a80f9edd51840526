/* SPDX-License-Identifier: Apache-2.0
 * What an engine does to a chat request before its template sees it, and the text that comes out; requests of other
 * APIs are made chat requests first, as the engine does.
 *
 *   r = chat_render(t, w, &in, sink, &err);
 *
 * The request is read from its own bytes, which must stay until the call returns; nothing of it is changed.
 */
#ifndef KVS_MODEL_CHAT_H
#define KVS_MODEL_CHAT_H

#include "model/template.h"

/* What versions of vLLM do differently. The text is always that of an engine with all of these rules (0.32 and 0.33,
 * with transformers before 5.24); where a request touches one that some engine lacks, there is no text
 * (TEMPLATE_UNSURE). */
enum {
	CHAT_RULE_TOOL_TEXT =
		1 << 0, /* a tool's answer in parts is joined where content is a list; messages have a task */
	CHAT_RULE_REFERENCE = 1 << 1,	 /* tool_reference, defer_loading */
	CHAT_RULE_EFFORT = 1 << 2,	 /* an effort sets enable_thinking; reasoning_content is read */
	CHAT_RULE_BY_NAME = 1 << 3,	 /* a loop over a name `content` is one over parts */
	CHAT_RULE_DEVELOPER = 1 << 4,	 /* developers become the system, unless the template knows them */
	CHAT_RULE_MESSAGES = 1 << 5,	 /* /v1/messages is read as now, but for the next two */
	CHAT_RULE_PART_EXTRAS = 1 << 6,	 /* a text part's unknown members are seen */
	CHAT_RULE_RESPONSES = 1 << 7,	 /* /v1/responses is read as now, but for CHAT_RULE_CUSTOM */
	CHAT_RULE_ARGUMENTS = 1 << 8,	 /* arguments of a call that are no object become {} */
	CHAT_RULE_BY_MACRO = 1 << 9,	 /* content that is given to a macro counts, and no other name in macros does */
	CHAT_RULE_NO_THINKING = 1 << 10, /* thinking can be switched off in /v1/messages */
	CHAT_RULE_CUSTOM = 1 << 11, /* tools of free text; tools that a conversation changes; billing lines of chats */
	CHAT_RULE_SALT = 1 << 12,   /* /v1/messages has a cache_salt */
	CHAT_RULE_PROBING =
		1 << 13, /* the template is tried for where /v1/messages' systems go; before: to the front */
	CHAT_RULE_NO_ALIASES = 1 << 14, /* members of namespaces are not followed to the messages: until 0.32 */
};
#define CHAT_RULES_UNKNOWN UINT32_MAX

/* The rules that a version of vLLM ("0.32.0", "0.31.1rc2.dev12+g1234567") lacks; CHAT_RULES_UNKNOWN, and <why> gets one
 * line: it is none that is known here. */
uint32_t chat_rules_lacking(const char *version, char *why, size_t why_len);

/* Special tokens of tokenizer_config.json: names and texts, read once. */
struct chat_tokens;
struct chat_tokens *chat_tokens_parse(struct str config, char *err, size_t err_len); /* NULL and errno */
void chat_tokens_free(struct chat_tokens *k);

enum chat_api {
	CHAT_COMPLETIONS, /* /v1/chat/completions */
	CHAT_MESSAGES,	  /* /v1/messages, Anthropic's */
	CHAT_RESPONSES,	  /* /v1/responses, OpenAI's */
};

/* What vLLM finds out about a template by trying it, when it starts, for /v1/messages. */
enum { CHAT_NO, CHAT_YES, CHAT_UNKNOWN };
struct chat_habits {
	uint8_t system_first; /* it wants system messages at the front: all of them are moved there */
	uint8_t none_is_low;  /* effort "none" is refused, or changes nothing: thinking is switched off by "low" */
};

struct chat_in {
	struct str request; /* the body: one JSON object */
	enum chat_api api;
	const struct chat_tokens *tokens; /* NULL: none */
	uint32_t lacking;		  /* rules that some engine lacks which may get the request */
	struct chat_habits habits;	  /* of /v1/messages */
	bool by_tools, tools; /* the template was chosen by whether there are tools, and it was for <tools> */
	int64_t now;	      /* of strftime_now */
	bool utc;
	const struct template_limits *limits;
	bool *media; /* set to true if there are media, which the text does not show; may be NULL */
};

/* An enum template_result. TEMPLATE_RAISED: the engine would answer this request with an error. */
int chat_render(const struct template *t, struct template_work *w, const struct chat_in *in, struct template_sink sink,
		struct template_error *ret_err);

struct chat_habits chat_habits_find(const struct template *t, struct template_work *w, const struct chat_tokens *k);

/* Does the template get content as a list of parts ("openai"), or as a string? */
bool chat_wants_parts(const struct template *t);

#endif
