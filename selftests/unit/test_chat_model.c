/* SPDX-License-Identifier: Apache-2.0
 * A model's directory: which of its templates renders a chat, or why none does.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "model/chat_model.h"

#define FILES 4

struct row {
	const char *what;
	const char *files[FILES][2]; /* name, content */
	const char *file;	     /* of the engine's own, in the directory */
	int err;		     /* 0: it renders … */
	const char *plain, *tools;   /* … this without and with tools; else <plain> is in the reason */
};

static const struct row rows[] = {
	{ "nothing", { { 0 } }, NULL, ENOENT, "has no chat template", NULL },
	{ "a template", { { "chat_template.jinja", "J" } }, NULL, 0, "J", "J" },
	{ "the configuration's", { { "tokenizer_config.json", "{\"chat_template\": \"C\"}" } }, NULL, 0, "C", "C" },
	{ "a configuration without one",
	  { { "tokenizer_config.json", "{\"chat_template\": null}" } },
	  NULL,
	  ENOENT,
	  "no chat template",
	  NULL },
	{ "the file before the configuration",
	  { { "chat_template.jinja", "J" }, { "tokenizer_config.json", "{\"chat_template\": \"C\"}" } },
	  NULL,
	  0,
	  "J",
	  "J" },
	{ "the engine's before all",
	  { { "chat_template.jinja", "J" }, { "mine", "M" }, { "additional_chat_templates/tool_use.jinja", "T" } },
	  "mine",
	  0,
	  "M",
	  "M" },
	{ "one for tools, in the list",
	  { { "tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\", \"template\": \"D\"}, {\"name\": "
				       "\"tool_use\", \"template\": \"T\"},"
				       " {\"name\": \"rag\", \"template\": \"{{ unknown() | nofilter }}\"}]}" } },
	  NULL,
	  0,
	  "D",
	  "T" },
	{ "one for tools, as a file",
	  { { "chat_template.jinja", "J" }, { "additional_chat_templates/tool_use.jinja", "T" } },
	  NULL,
	  0,
	  "J",
	  "T" },
	{ "a list without a default",
	  { { "tokenizer_config.json", "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T\"}]}" } },
	  NULL,
	  ENOTSUP,
	  "without a default",
	  NULL },
	{ "the processor's, without tools",
	  { { "tokenizer_config.json", "{\"chat_template\": \"C\"}" },
	    { "chat_template.json", "{\"chat_template\": \"P\"}" } },
	  NULL,
	  0,
	  "P",
	  "C" },
	{ "special tokens",
	  { { "chat_template.jinja", "{{ bos_token }}J" },
	    { "tokenizer_config.json", "{\"bos_token\": {\"content\": \"<s>\"}}" } },
	  NULL,
	  0,
	  "<s>J",
	  "<s>J" },
	{ "not understood",
	  { { "chat_template.jinja", "J\n {{ 1 | nofilter }}" } },
	  NULL,
	  ENOTSUP,
	  "chat_template.jinja:2:",
	  NULL },
	{ "mistral-common's",
	  { { "chat_template.jinja", "J" }, { "tekken.json", "{}" } },
	  NULL,
	  ENOTSUP,
	  "mistral-common",
	  NULL },
	{ "harmony's",
	  { { "chat_template.jinja", "J" }, { "config.json", "{\"model_type\": \"gpt_oss\"}" } },
	  NULL,
	  ENOTSUP,
	  "gpt_oss",
	  NULL },
	{ "a model like others",
	  { { "chat_template.jinja", "J" }, { "config.json", "{\"model_type\": \"qwen3\"}" } },
	  NULL,
	  0,
	  "J",
	  "J" },
	{ "a broken configuration",
	  { { "chat_template.jinja", "J" }, { "tokenizer_config.json", "{\"bos_token\": " } },
	  NULL,
	  EINVAL,
	  "tokenizer_config.json",
	  NULL },
};

static void put_file(const char *dir, const char *name, const char *content)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/additional_chat_templates", dir);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(content, f);
	fclose(f);
}

static void remove_files(const char *dir, const struct row *row)
{
	char path[512];

	for (size_t i = 0; i < FILES && row->files[i][0]; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, row->files[i][0]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/additional_chat_templates", dir);
	rmdir(path);
	rmdir(dir);
}

static int append(void *ctx, const char *p, size_t n)
{
	return buf_put(ctx, p, n);
}

static void renders(const struct row *row, const struct chat_model *m, bool tools, const char *want)
{
	struct template_work *w = template_work_new();
	struct chat_in in = {
		.request =
			tools ? STR("{\"messages\": [{\"role\": \"user\", \"content\": \"\"}], \"tools\": [{\"type\": "
				    "\"function\", \"function\": {\"name\": \"f\"}}]}")
			      : STR("{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}"),
	};
	struct template_error err;
	struct buf text = { 0 };

	assert_int_equal(chat_model_render(m, tools, w, &in, (struct template_sink){ append, &text }, &err),
			 TEMPLATE_OK);
	buf_put(&text, "", 1);
	if (strcmp(buf_data(&text), want) != 0)
		fail_msg("%s%s: %s, not %s", row->what, tools ? ", with tools" : "", buf_data(&text), want);
	buf_free(&text);
	template_work_free(w);
}

static void a_directory_says_which_template_renders(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		char dir[] = "/tmp/kvs-chat-XXXXXX", file[64], why[256] = "";
		struct chat_model *m;

		assert_non_null(mkdtemp(dir));
		for (size_t k = 0; k < FILES && row->files[k][0]; k++)
			put_file(dir, row->files[k][0], row->files[k][1]);
		snprintf(file, sizeof(file), "%s/%s", dir, row->file ? row->file : "");
		errno = 0;
		m = chat_model_load(dir, row->file ? file : NULL, why, sizeof(why));
		if (!m != (row->err != 0) || (!m && errno != row->err))
			fail_msg("%s: %s: %s", row->what, m ? "loaded" : strerror(errno), why);
		if (m) {
			renders(row, m, false, row->plain);
			renders(row, m, true, row->tools);
		} else if (!strstr(why, row->plain)) {
			fail_msg("%s: the reason is: %s", row->what, why);
		}
		chat_model_free(m);
		remove_files(dir, row);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_directory_says_which_template_renders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
