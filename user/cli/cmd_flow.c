/* SPDX-License-Identifier: Apache-2.0
 * Splices: from the daemon while it runs, else straight from the pins.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cli/cli.h"
#include "ctl/ctl.h"
#include "datapath/datapath.h"

static bool no_daemon(int r)
{
	return r == -ECONNREFUSED || r == -ENOENT;
}

/* The pins' answer, as the daemon would have given it. */
static int from_pins(const struct cli *c, const char *verb, uint32_t id, json_t **ret)
{
	struct buf out = { 0 }, err = { 0 };
	struct jw w;
	int r;

	jw_init(&w, &out);
	r = strcmp(verb, "list") == 0 ? flow_list(NULL, &w, &err) : flow_show(NULL, id, &w, &err);
	if (!r && strcmp(verb, "kill") == 0)
		r = flow_kill(NULL, id, &err);
	if (!r)
		*ret = json_loadb(buf_data(&out), buf_len(&out), JSON_DECODE_ANY, NULL);
	while (buf_len(&err) && buf_data(&err)[buf_len(&err) - 1] == '\n')
		err.len--;
	if (r)
		r = cli_fail(c, r == -ENOENT ? CLI_NOT_FOUND : CLI_FAILED, "%.*s", (int)buf_len(&err), buf_data(&err));
	buf_free(&out);
	buf_free(&err);
	return r;
}

static int ask(struct cli *c, const char *verb, const char *arg, json_t **ret)
{
	json_t *args = json_object(), *answer = NULL;
	uint64_t id = 0;
	char cmd[32];
	int r;

	if (arg && (str_u64(str_of(arg), &id) || !id || id > UINT32_MAX)) {
		json_decref(args);
		return cli_fail(c, CLI_USAGE, "\"%s\" is no splice's number; `kvsteer flow list` shows them", arg);
	}
	if (arg)
		json_object_set_new(args, "id", json_integer((json_int_t)id));
	snprintf(cmd, sizeof(cmd), "flow.%s", verb);
	r = ctl_call(c->control, cmd, args, &answer);
	json_decref(args);
	if (no_daemon(r))
		return from_pins(c, verb, (uint32_t)id, ret);
	return cli_take(c, r, answer, ret);
}

static int list(struct cli *c, int argc, char **argv)
{
	static const char *const heads[] = { ">ID",  "STATE", "OWNER",	"CLIENT", "POD",
					     ">AGE", ">IDLE", ">BYTES", "FLAGS" };
	static const char *const keys[] = {
		"id", "state", "owner", "client", "pod", "age_s", "idle_s", "bytes", "flags"
	};
	json_t *v = NULL;
	const json_t *flow;
	struct table t;
	size_t i;
	int r = ask(c, "list", NULL, &v);

	if (r)
		return r;
	if (c->json) {
		cli_print_json(v);
		json_decref(v);
		return r;
	}
	table_begin(&t, sizeof(heads) / sizeof(heads[0]), heads);
	json_array_foreach(v, i, flow) for (unsigned k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
		table_cell(&t, cli_text(flow, keys[k]));
	table_print(&t);
	json_decref(v);
	return r;
}

static int show(struct cli *c, int argc, char **argv)
{
	json_t *v = NULL;
	int r = ask(c, "show", argv[0], &v);

	if (r == CLI_OK && c->json)
		cli_print_json(v);
	else if (r == CLI_OK)
		cli_print_object(v);
	json_decref(v);
	return r;
}

static int kill_one(struct cli *c, int argc, char **argv)
{
	json_t *v = NULL;
	int r = ask(c, "kill", argv[0], &v);

	if (r == CLI_OK && c->json)
		cli_print_json(v);
	else if (r == CLI_OK)
		printf("splice %s is being ended: %s and %s get a reset\n", argv[0], cli_text(v, "client"),
		       cli_text(v, "pod"));
	json_decref(v);
	return r;
}

static const struct verb verbs[] = {
	{ "list", "", "answers that the kernel carries (needs no daemon)", 0, 0, 0, NULL, list },
	{ "show", "ID", "all that is known of one", 0, 1, 1, "flow", show },
	{ "kill", "ID", "reset its client and its pod", 0, 1, 1, "flow", kill_one },
};
const struct object object_flow = { .name = "flow", .doc = "splices", OBJECT_VERBS(verbs) };
