/* SPDX-License-Identifier: Apache-2.0
 * What a model's directory says of chats: the templates that render them, and the special tokens that those see.
 *
 * Source: transformers' look-up. `chat_template.jinja`, else `chat_template` of tokenizer_config.json, which may be a
 * list of named ones ("tool_use" for requests with tools); further ones in additional_chat_templates/NAME.jinja. A
 * processor's `chat_template.json` goes first for requests without tools. Models that engines render by code of their
 * own are told by config.json and tekken.json: their template would give a text that no engine has seen.
 *
 * Threads: immutable once loaded, shared freely.
 */
#ifndef KVS_MODEL_CHAT_MODEL_H
#define KVS_MODEL_CHAT_MODEL_H

#include "model/chat.h"

struct chat_model;

/* <file>: the engine is started with this template (--chat-template); NULL: the directory's. NULL and errno: ENOENT,
 * there is no template; ENOTSUP, there is one that the engine does not use or that cannot be followed exactly; else
 * what reading gave. <why> gets one line in each case. */
struct chat_model *chat_model_load(const char *dir, const char *file, char *why, size_t why_len);
void chat_model_free(struct chat_model *m); /* NULL is fine */

/* Renders a chat request (`in->tokens` is filled in here). An enum template_result, as chat_render. */
int chat_model_render(const struct chat_model *m, bool tools, struct template_work *w, struct chat_in *in,
		      struct template_sink sink, struct template_error *ret_err);

#endif
