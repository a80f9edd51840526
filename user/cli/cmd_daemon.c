/* SPDX-License-Identifier: Apache-2.0
 * reload, drain and version: objects that are their own verb.
 */
#include <stdio.h>

#include "cli/cli.h"

static int reload(struct cli *c, int argc, char **argv)
{
	json_t *v = NULL, *changed;
	int r = cli_call(c, "reload", NULL, &v);

	if (r)
		return r;
	changed = json_object_get(v, "changed");
	if (c->json)
		cli_print_json(v);
	else if (json_array_size(changed) == 0)
		puts("reloaded, nothing has changed");
	else
		printf("reloaded, changed: %s\n", cli_text(v, "changed"));
	json_decref(v);
	return r;
}

static int drain(struct cli *c, int argc, char **argv)
{
	json_t *v = NULL;
	int r = cli_call(c, "drain", NULL, &v);

	if (r)
		return r;
	if (c->json)
		cli_print_json(v);
	else
		puts("draining: no new connections, streams go on");
	json_decref(v);
	return r;
}

static int version(struct cli *c, int argc, char **argv)
{
	printf(c->json ? "{\"version\":\"%s\"}\n" : "kvsteer %s\n", KVS_VERSION);
	return CLI_OK;
}

static const struct verb reload_verbs[] = {
	{ .args = "", .doc = "the daemon reads its configuration again", .run = reload },
};
static const struct verb drain_verbs[] = {
	{ .args = "", .doc = "the daemon takes no new connections and ends with its last stream", .run = drain },
};
static const struct verb version_verbs[] = {
	{ .args = "", .doc = "version of this program", .run = version },
};
const struct object object_reload = { .name = "reload", .doc = "reload", OBJECT_VERBS(reload_verbs) };
const struct object object_drain = { .name = "drain", .doc = "drain", OBJECT_VERBS(drain_verbs) };
const struct object object_version = { .name = "version", .doc = "version", OBJECT_VERBS(version_verbs) };
