/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "config/config.h"

static void print_yaml(const json_t *v)
{
	fputs(cli_text(v, "yaml"), stdout);
}

static int show(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "config.show", NULL, print_yaml);
}

/* Errors are the configuration's own lines: FILE:LINE:COL first, as editors like them. */
static int check(struct cli *c, int argc, char **argv)
{
	struct buf err = { 0 };
	struct config *cfg = config_load(argv[0], &err);
	int r = cfg ? 0 : -errno;
	json_t *errors = json_array(), *v;
	char *save = NULL;

	for (unsigned i = 0; cfg && i < c->nset; i++) {
		int e = config_set_pair(cfg, c->set[i], &err);

		r = r ? r : e;
	}
	if (cfg && !r)
		r = config_check(cfg, &err);
	config_free(cfg);
	if (buf_put(&err, "", 1) == 0 && c->json) {
		for (char *line = strtok_r(buf_data(&err), "\n", &save); line; line = strtok_r(NULL, "\n", &save))
			json_array_append_new(errors, json_string(line));
		v = json_pack("{s:s, s:b, s:O}", "file", argv[0], "ok", r == 0, "errors", errors);
		cli_print_json(v);
		json_decref(v);
	} else if (r) {
		fputs(err.mem ? buf_data(&err) : "out of memory\n", stderr);
	} else {
		printf("%s: ok\n", argv[0]);
	}
	json_decref(errors);
	buf_free(&err);
	return r ? CLI_FAILED : CLI_OK;
}

static int defaults(struct cli *c, int argc, char **argv)
{
	struct buf out = { 0 };
	int r = c->rst ? config_write_rst(&out) : config_write_defaults(&out);
	json_t *v;

	if (r == 0 && c->json) {
		v = json_pack("{s:s%}", c->rst ? "rst" : "yaml", buf_data(&out), buf_len(&out));
		cli_print_json(v);
		json_decref(v);
	} else if (r == 0) {
		fwrite(buf_data(&out), 1, buf_len(&out), stdout);
	}
	buf_free(&out);
	return r ? cli_fail(c, CLI_FAILED, "%s", strerror(-r)) : CLI_OK;
}

static const struct verb verbs[] = {
	{ "show", "", "what the daemon runs with, every key", 0, 0, 0, NULL, show },
	{ "check", "[--set KEY=VALUE]… FILE", "is this file right? (needs no daemon)", FLAG_SET, 1, 1, "file", check },
	{ "defaults", "[--rst]", "every key explained (needs no daemon)", FLAG_RST, 0, 0, NULL, defaults },
};
const struct object object_config = { .name = "config", .doc = "configuration", OBJECT_VERBS(verbs) };
