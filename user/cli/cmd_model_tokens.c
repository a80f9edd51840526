/* SPDX-License-Identifier: Apache-2.0
 * What a model's tokenizer does, and the compiled ones.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cmd_model.h"
#include "model/encoder.h"

#define TEXT_MAX (1u << 30)
#define SUFFIX	 ".vocab"

static json_t *described(const struct vocab *v, const char *file)
{
	const char *why = vocab_no_encoder(v);
	struct str dir = vocab_name(v);
	char source[VOCAB_SOURCE];
	struct stat st;

	vocab_source(v, source);
	return json_pack("{s:s%, s:s, s:I, s:I, s:o}", "model", dir.n ? dir.p : "", dir.n, "file", file, "ids",
			 (json_int_t)vocab_size(v), "bytes", (json_int_t)(stat(file, &st) == 0 ? st.st_size : 0),
			 "no_encoder", why ? json_string(why) : json_null());
}

int model_add(struct cli *c, int argc, char **argv)
{
	char source[VOCAB_SOURCE], path[4096], err[512];
	struct vocab *v = vocab_load(argv[0], c->cache, err, sizeof(err)), *kept;
	json_t *o;

	if (!v)
		return cli_fail(c, errno == ENOENT ? CLI_NOT_FOUND : CLI_FAILED, "%s", err);
	vocab_source(v, source);
	snprintf(path, sizeof(path), "%.3900s/%s" SUFFIX, c->cache, source);
	vocab_unref(v);
	kept = vocab_open(path, err, sizeof(err));
	if (!kept)
		return cli_fail(c, CLI_FAILED, "it could not be kept: %s", err);
	o = described(kept, path);
	if (c->json)
		cli_print_json(o);
	else
		cli_print_object(o);
	json_decref(o);
	vocab_unref(kept);
	return CLI_OK;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_compiled(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return n > strlen(SUFFIX) && strcmp(d->d_name + n - strlen(SUFFIX), SUFFIX) == 0;
}

static void print_list(const json_t *list)
{
	static const char *const heads[] = { "MODEL", ">IDS", ">SIZE", "ENCODER", "FILE" };
	const json_t *o;
	struct table t;
	size_t i;

	table_begin(&t, 5, heads);
	json_array_foreach(list, i, o)
	{
		const char *why = json_string_value(json_object_get(o, "no_encoder"));

		table_cell(&t, cli_text(o, "model"));
		table_cell(&t, cli_text(o, "ids"));
		table_cell(&t, cli_size(json_integer_value(json_object_get(o, "bytes"))));
		table_cell(&t, why ? why : "yes");
		table_cell(&t, cli_text(o, "file"));
	}
	table_print(&t);
}

/* A damaged file is one, too: it says why it has no encoder. */
int model_list(struct cli *c, int argc, char **argv)
{
	struct dirent **found = NULL;
	int n = scandir(c->cache, &found, is_compiled, by_name);
	json_t *list = json_array();

	if (n < 0 && errno != ENOENT) {
		json_decref(list);
		return cli_fail(c, CLI_FAILED, "%s: %s", c->cache, strerror(errno));
	}
	for (int i = 0; i < n; i++) {
		char path[4096], err[512];
		struct vocab *v;

		snprintf(path, sizeof(path), "%.3800s/%s", c->cache, found[i]->d_name);
		v = vocab_open(path, err, sizeof(err));
		json_array_append_new(list, v ? described(v, path)
					      : json_pack("{s:s, s:s, s:i, s:i, s:s}", "model", "", "file", path, "ids",
							  0, "bytes", 0, "no_encoder", err));
		vocab_unref(v);
		free(found[i]);
	}
	free(found);
	if (c->json)
		cli_print_json(list);
	else
		print_list(list);
	json_decref(list);
	return CLI_OK;
}

/* Numbers with anything else between them. */
static int read_ids(const struct cli *c, struct str s, struct buf *ids)
{
	for (size_t i = 0, from; i < s.n; i++) {
		uint64_t v;
		uint32_t id;

		for (from = i; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++)
			;
		if (i == from)
			continue;
		if (str_u64((struct str){ s.p + from, i - from }, &v) || v > UINT32_MAX)
			return cli_fail(c, CLI_USAGE, "%.*s is no token id", (int)(i - from), s.p + from);
		id = (uint32_t)v;
		if (buf_put(ids, &id, sizeof(id)))
			return cli_fail(c, CLI_FAILED, "no memory");
	}
	return CLI_OK;
}

static int print_text(const struct cli *c, const struct vocab *v, const struct buf *in)
{
	struct buf ids = { 0 }, text = { 0 };
	int r = read_ids(c, buf_str(in), &ids);
	json_t *o;

	if (!r && vocab_text(v, (const uint32_t *)(const void *)buf_data(&ids), buf_len(&ids) / 4, &text))
		r = cli_fail(c, CLI_FAILED, "an id is none of the model's %u", vocab_size(v));
	if (!r && c->json) {
		o = json_pack("{s:s%}", "text", buf_len(&text) ? buf_data(&text) : "", buf_len(&text));
		r = o ? cli_print_json(o) : cli_fail(c, CLI_FAILED, "the text is no UTF-8");
		json_decref(o);
	} else if (!r) {
		fwrite(buf_data(&text), 1, buf_len(&text), stdout);
	}
	buf_free(&ids);
	buf_free(&text);
	return r;
}

static int print_ids(const struct cli *c, struct vocab *v, const struct buf *in)
{
	struct encoder *e = encoder_new(v);
	struct buf ids = { 0 };
	const uint32_t *id;
	int r;

	if (!e)
		return cli_fail(c, CLI_FAILED, "%s has no encoder: %s", c->model,
				vocab_no_encoder(v) ? vocab_no_encoder(v) : "no memory");
	r = encoder_encode(e, buf_str(in), c->special, &ids);
	encoder_free(e);
	if (r)
		return cli_fail(c, CLI_FAILED, "%s", r == -EILSEQ ? "the text is no UTF-8" : strerror(-r));
	id = (const uint32_t *)(const void *)buf_data(&ids);
	if (c->json)
		fputs("{\"ids\":[", stdout);
	for (size_t i = 0; i < buf_len(&ids) / 4; i++)
		printf("%s%u", i ? c->json ? "," : " " : "", id[i]);
	puts(c->json ? "]}" : "");
	buf_free(&ids);
	return CLI_OK;
}

int model_tokenize(struct cli *c, int argc, char **argv)
{
	struct buf in = { 0 };
	struct vocab *v;
	char err[512];
	int r;

	if (!c->model)
		return cli_fail(c, CLI_USAGE, "--model DIR is needed");
	v = vocab_load(c->model, c->cache, err, sizeof(err));
	if (!v)
		return cli_fail(c, errno == ENOENT ? CLI_NOT_FOUND : CLI_FAILED, "%s", err);
	r = cli_read_file(c, argc ? argv[0] : "-", TEXT_MAX, &in);
	if (!r)
		r = c->decode ? print_text(c, v, &in) : print_ids(c, v, &in);
	buf_free(&in);
	vocab_unref(v);
	return r;
}
