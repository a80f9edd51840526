/* SPDX-License-Identifier: Apache-2.0
 * reload, drain and version: objects that are their own verb.
 */
#include <stdio.h>

#include "cli/cli.h"

static void print_changed(const json_t *v)
{
	if (json_array_size(json_object_get(v, "changed")) == 0)
		puts("reloaded, nothing has changed");
	else
		printf("reloaded, changed: %s\n", cli_text(v, "changed"));
}

static int reload(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "reload", NULL, print_changed);
}

static void print_draining(const json_t *v)
{
	puts("draining: no new connections, streams go on");
}

static int drain(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "drain", NULL, print_draining);
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
