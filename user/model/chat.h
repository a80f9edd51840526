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

enum chat_engine {
	CHAT_VLLM, /* 0.32 with transformers 5.19 */
};

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
	enum chat_engine engine;
	struct chat_habits habits; /* of /v1/messages */
	bool by_tools, tools;	   /* the template was chosen by whether there are tools, and it was for <tools> */
	int64_t now;		   /* of strftime_now */
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
