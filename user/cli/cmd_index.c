/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"

#define TEXT_MAX (1u << 20)

static int stats(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "index.stats", NULL, cli_print_object);
}

static int read_all(FILE *f, struct buf *text)
{
	while (!feof(f) && !ferror(f) && buf_len(text) <= TEXT_MAX) {
		char *p = buf_room(text, 65536);

		if (!p)
			return -ENOMEM;
		buf_commit(text, fread(p, 1, 65536, f));
	}
	return ferror(f) ? -errno : 0;
}

/* What <arg> stands for: a file's content, standard input ("-"), or itself. */
static int text_of(struct cli *c, const char *arg, struct buf *text)
{
	struct stat st;
	FILE *f;
	int r;

	if (strcmp(arg, "-") == 0) {
		r = read_all(stdin, text);
	} else if (stat(arg, &st) < 0 || !S_ISREG(st.st_mode)) {
		r = buf_puts(text, arg);
	} else {
		f = fopen(arg, "re");
		r = f ? read_all(f, text) : -errno;
		if (f)
			fclose(f);
	}
	if (r)
		return cli_fail(c, CLI_FAILED, "%s: %s", arg, strerror(-r));
	if (buf_len(text) > TEXT_MAX)
		return cli_fail(c, CLI_USAGE, "%.100s is longer than 1 MiB, which is the most that can be asked for",
				arg);
	return CLI_OK;
}

static void print_holders(const json_t *v)
{
	static const char *const heads[] = { "POD", ">TOKENS", ">BLOCKS", ">BYTES", "EXACT" };
	static const char *const keys[] = { "pod", "tokens", "blocks", "bytes", "exact" };
	const json_t *row;
	struct table t;
	size_t i;

	if (json_array_size(v) == 0) {
		puts("no pod holds any of it");
		return;
	}
	table_begin(&t, 5, heads);
	json_array_foreach(v, i, row) for (unsigned k = 0; k < 5; k++) table_cell(&t, cli_text(row, keys[k]));
	table_print(&t);
}

static int lookup(struct cli *c, int argc, char **argv)
{
	struct buf text = { 0 };
	json_t *args;
	int r = text_of(c, argv[0], &text);

	if (r)
		goto out;
	args = json_pack("{s:s%}", "text", text.mem ? buf_data(&text) : "", buf_len(&text));
	if (!args || (c->model && json_object_set_new(args, "model", json_string(c->model)))) {
		json_decref(args);
		r = cli_fail(c, CLI_USAGE, "the text is not UTF-8");
		goto out;
	}
	r = cli_show(c, "index.lookup", args, print_holders);
out:
	buf_free(&text);
	return r;
}

static const struct verb verbs[] = {
	{ "stats", "", "size and traffic of the prefix index", 0, 0, 0, NULL, stats },
	{ "lookup", "[-m MODEL] FILE|TEXT|-", "which pods hold how much of this rendered prompt", FLAG_MODEL, 1, 1,
	  "file", lookup },
};
const struct object object_index = { .name = "index", .doc = "the prefix index", OBJECT_VERBS(verbs) };
