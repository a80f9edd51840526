/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"

static json_int_t num(const json_t *o, const char *key)
{
	return (json_int_t)json_number_value(json_object_get(o, key));
}

static void print_uptime(json_int_t s)
{
	if (s >= 86400)
		printf("%lldd%lldh", s / 86400, s % 86400 / 3600);
	else if (s >= 3600)
		printf("%lldh%lldm", s / 3600, s % 3600 / 60);
	else
		printf("%lldm%llds", s / 60, s % 60);
}

static void print(const json_t *v)
{
	const json_t *pods = json_object_get(v, "pods"), *dp = json_object_get(v, "datapath");
	const json_t *index = json_object_get(v, "index"), *warning;
	size_t i;

	printf("kvsteerd %s, pid %s, up ", cli_text(v, "version"), cli_text(v, "pid"));
	print_uptime(num(v, "uptime_s"));
	printf("\nlisteners  %s; admin %s; %s workers\n", cli_text(v, "listeners"), cli_text(v, "admin"),
	       cli_text(v, "workers"));
	printf("carrier    %s (mode %s)\n", cli_text(dp, "carrier"), cli_text(dp, "mode"));
	printf("pods       %s usable of %s\n", cli_text(pods, "usable"), cli_text(pods, "total"));
	printf("traffic    %s streams, %s connections; %s requests so far\n", cli_text(v, "streams"),
	       cli_text(v, "connections"), cli_text(v, "requests"));
	printf("prefix     hit rate %s; %s tokens predicted, %s reported by the pods\n", cli_text(v, "hit_rate"),
	       cli_text(v, "predicted_tokens"), cli_text(v, "reported_tokens"));
	printf("index      %s nodes, %s of %s\n", cli_text(index, "nodes"), cli_size(num(index, "bytes")),
	       cli_size(num(index, "max_bytes")));
	printf("memory     %s resident\n", cli_size(num(v, "rss_bytes")));
	json_array_foreach(json_object_get(v, "warnings"), i, warning)
		printf("warning    %s\n", json_string_value(warning));
}

static int status(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "status", NULL, print);
}

static const struct verb verbs[] = {
	{ .args = "", .doc = "one screen: version, carrier, pods, load, warnings", .run = status }
};
const struct object object_status = { .name = "status", .doc = "the daemon at a glance", OBJECT_VERBS(verbs) };
