/* SPDX-License-Identifier: Apache-2.0 */
#include "model/chat_model.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"

#define FILE_MAX (64u << 20)

struct chat_model {
	struct template *plain, *tools; /* for requests without and with tools */
	struct chat_tokens *tokens;
	struct chat_habits habits;
};

/* Engines render these by code (vLLM 0.32, SGLang): the prefix of config.json's model_type. */
static const char *const by_code[] = { "gpt_oss", "deepseek_v32", "deepseek_v4", "kimi_k3", "cohere", "inkling" };

static int fail(int e, char *why, size_t n, const char *file, const char *text)
{
	snprintf(why, n, "%s%s%s", file, file[0] ? ": " : "", text);
	return -e;
}

/* -ENOENT is silent: most files need not be there. */
static int read_file(const char *dir, const char *name, struct buf *out, char *why, size_t n)
{
	char path[4096];
	ssize_t got = 1;
	int fd, e = 0;

	if (snprintf(path, sizeof(path), "%s%s%s", dir, dir[0] ? "/" : "", name) >= (int)sizeof(path))
		return fail(ENAMETOOLONG, why, n, name, strerror(ENAMETOOLONG));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ENOENT : fail(errno, why, n, path, strerror(errno));
	while (e == 0 && got > 0) {
		char *room = buf_room(out, 65536);

		got = room ? read(fd, room, 65536) : -1;
		if (!room)
			e = ENOMEM;
		else if (got < 0)
			e = errno;
		else if (buf_len(out) + (size_t)got > FILE_MAX)
			e = EFBIG;
		else
			out->len += (size_t)got;
	}
	close(fd);
	return e ? fail(e, why, n, path, strerror(e)) : 0;
}

static int read_json(const char *dir, const char *name, json_t **ret, char *why, size_t n)
{
	struct buf text = { 0 };
	json_error_t err;
	int r = read_file(dir, name, &text, why, n);

	if (r == 0) {
		*ret = json_loadb(buf_data(&text), buf_len(&text), JSON_ALLOW_NUL, &err);
		if (!json_is_object(*ret))
			r = fail(EINVAL, why, n, name, *ret ? "not a JSON object" : err.text);
	}
	buf_free(&text);
	return r;
}

static int compile(struct str source, const char *file, struct template **ret, char *why, size_t n)
{
	struct template_error err;

	*ret = template_compile(source, &err);
	if (*ret)
		return 0;
	if (errno == EINVAL) {
		snprintf(why, n, "%s:%u:%u: %s", file, err.line, err.col, err.text);
		return -ENOTSUP;
	}
	return fail(errno, why, n, file, strerror(errno));
}

static int compile_file(const char *dir, const char *name, struct template **ret, char *why, size_t n)
{
	struct buf text = { 0 };
	int r = read_file(dir, name, &text, why, n);

	if (r == 0)
		r = compile(buf_str(&text), name, ret, why, n);
	buf_free(&text);
	return r;
}

static int compile_json(const json_t *v, const char *file, struct template **ret, char *why, size_t n)
{
	return compile((struct str){ json_string_value(v), json_string_length(v) }, file, ret, why, n);
}

/* chat_template of tokenizer_config.json: a text, or a list of {name, template}. */
static int compile_config(struct chat_model *m, const json_t *config, char *why, size_t n)
{
	static const char file[] = "tokenizer_config.json, chat_template";
	const json_t *v = json_object_get(config, "chat_template"), *entry;
	size_t i;
	int r = 0;

	if (json_is_string(v))
		return compile_json(v, file, &m->plain, why, n);
	if (!json_is_array(v))
		return v && !json_is_null(v) ? fail(ENOTSUP, why, n, file, "neither a text nor a list") : -ENOENT;
	json_array_foreach((json_t *)(uintptr_t)v, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "name"));
		const json_t *text = json_object_get(entry, "template");

		if (!name || !json_is_string(text))
			return fail(ENOTSUP, why, n, file, "an entry without a name or a template");
		if (r == 0 && !m->plain && strcmp(name, "default") == 0)
			r = compile_json(text, file, &m->plain, why, n);
		else if (r == 0 && !m->tools && strcmp(name, "tool_use") == 0)
			r = compile_json(text, file, &m->tools, why, n);
	}
	return r ? r : m->plain ? 0 : fail(ENOTSUP, why, n, file, "a list without a default");
}

/* The processor's own file. It holds for requests without tools. */
static int compile_processor(struct chat_model *m, const char *dir, char *why, size_t n)
{
	static const char file[] = "chat_template.json";
	struct template *t = NULL;
	json_t *doc = NULL;
	int r = read_json(dir, file, &doc, why, n);

	if (r == 0) {
		const json_t *v = json_object_get(doc, "chat_template");

		r = json_is_string(v) ? compile_json(v, file, &t, why, n)
				      : fail(ENOTSUP, why, n, file, "chat_template is not a text");
	}
	json_decref(doc);
	if (r == -ENOENT)
		return 0;
	if (r)
		return r;
	if (!m->tools)
		m->tools = m->plain;
	else
		template_unref(m->plain);
	m->plain = t;
	return 0;
}

static int compile_all(struct chat_model *m, const char *dir, const json_t *config, char *why, size_t n)
{
	int r = compile_file(dir, "chat_template.jinja", &m->plain, why, n);

	if (r == 0) {
		r = compile_file(dir, "additional_chat_templates/tool_use.jinja", &m->tools, why, n);
		return r == -ENOENT ? 0 : r;
	}
	if (r == -ENOENT)
		r = compile_config(m, config, why, n);
	if (r == 0)
		r = compile_processor(m, dir, why, n);
	return r;
}

static int check_engine_uses_it(const char *dir, char *why, size_t n)
{
	json_t *config = NULL;
	const char *type;
	char path[4096];
	int r;

	if (snprintf(path, sizeof(path), "%s/tekken.json", dir) < (int)sizeof(path) && access(path, F_OK) == 0)
		return fail(ENOTSUP, why, n, "tekken.json",
			    "engines render this model by mistral-common, not by a template");
	r = read_json(dir, "config.json", &config, why, n);
	type = json_string_value(json_object_get(config, "model_type"));
	for (size_t i = 0; r == 0 && type && i < sizeof(by_code) / sizeof(by_code[0]); i++)
		if (strncmp(type, by_code[i], strlen(by_code[i])) == 0) {
			snprintf(why, n,
				 "config.json: engines render model_type %.60s by code of their own, not by a template",
				 type);
			r = -ENOTSUP;
		}
	json_decref(config);
	return r == -ENOENT ? 0 : r;
}

static int load(struct chat_model *m, const char *dir, const char *file, char *why, size_t n)
{
	struct buf text = { 0 };
	json_t *config = NULL;
	int r = check_engine_uses_it(dir, why, n);

	if (r)
		return r;
	r = read_json(dir, "tokenizer_config.json", &config, why, n);
	if (r == 0)
		r = read_file(dir, "tokenizer_config.json", &text, why, n);
	if (r == 0) {
		m->tokens = chat_tokens_parse(buf_str(&text), why, n);
		if (!m->tokens)
			r = -errno;
	}
	if (r == 0 || r == -ENOENT)
		r = file ? compile_file("", file, &m->plain, why, n) : compile_all(m, dir, config, why, n);
	if (r == -ENOENT)
		fail(ENOENT, why, n, file ? file : dir, file ? strerror(ENOENT) : "has no chat template");
	json_decref(config);
	buf_free(&text);
	return r;
}

static uint8_t either(uint8_t a, uint8_t b)
{
	return a == CHAT_YES || b == CHAT_YES		? CHAT_YES
	       : a == CHAT_UNKNOWN || b == CHAT_UNKNOWN ? CHAT_UNKNOWN
							: CHAT_NO;
}

static int find_habits(struct chat_model *m)
{
	struct template_work *w = template_work_new();

	if (!w)
		return -ENOMEM;
	m->habits = chat_habits_find(m->plain, w, m->tokens);
	if (m->tools)
		m->habits.system_first =
			either(m->habits.system_first, chat_habits_find(m->tools, w, m->tokens).system_first);
	template_work_free(w);
	return 0;
}

struct chat_model *chat_model_load(const char *dir, const char *file, char *why, size_t why_len)
{
	struct chat_model *m = zalloc(sizeof(*m));
	int r = m ? load(m, dir, file, why, why_len) : fail(ENOMEM, why, why_len, "", strerror(ENOMEM));

	if (r == 0)
		r = find_habits(m);
	if (r == 0)
		return m;
	chat_model_free(m);
	errno = -r;
	return NULL;
}

void chat_model_free(struct chat_model *m)
{
	if (!m)
		return;
	template_unref(m->plain);
	template_unref(m->tools);
	chat_tokens_free(m->tokens);
	free(m);
}

int chat_model_render(const struct chat_model *m, bool tools, struct template_work *w, struct chat_in *in,
		      struct template_sink sink, struct template_error *ret_err)
{
	in->tokens = m->tokens;
	in->habits = m->habits;
	in->by_tools = m->tools;
	in->tools = tools;
	return chat_render(tools && m->tools ? m->tools : m->plain, w, in, sink, ret_err);
}
