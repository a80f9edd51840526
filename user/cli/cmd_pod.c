/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

/* 0.5 as "50%". */
static const char *percent(const json_t *pod, const char *key, char out[16])
{
	const json_t *v = json_object_get(pod, key);

	if (!json_is_number(v))
		return "-";
	snprintf(out, 16, "%.0f%%", 100 * json_number_value(v));
	return out;
}

static bool several_pools(const json_t *pods)
{
	const char *first = cli_text(json_array_get(pods, 0), "pool");
	const json_t *pod;
	size_t i;

	json_array_foreach(pods, i, pod) if (strcmp(cli_text(pod, "pool"), first) != 0) return true;
	return false;
}

static void print_list(const json_t *v)
{
	static const char *const heads[] = { "POD",	  "STATE",   "ROLE",	">INFLIGHT",  ">WAITING",
					     ">KV",	  "INDEX",   ">BLOCKS", ">PREDICTED", ">REPORTED",
					     ">REQUESTS", ">FAILED", "ENGINE",	"POOL" };
	static const char *const keys[] = { "name",
					    "state",
					    "role",
					    "inflight",
					    "waiting",
					    "kv_usage",
					    "index",
					    "blocks",
					    "predicted_tokens",
					    "reported_tokens",
					    "requests",
					    "failed",
					    "engine",
					    "pool" };
	unsigned cols = sizeof(heads) / sizeof(heads[0]);
	const json_t *pod;
	struct table t;
	char pct[16];
	size_t i;

	if (!several_pools(v))
		cols--;
	table_begin(&t, cols, heads);
	t.state_col = 1;
	json_array_foreach(v, i, pod) for (unsigned k = 0; k < cols; k++)
		table_cell(&t, strcmp(keys[k], "kv_usage") ? cli_text(pod, keys[k]) : percent(pod, keys[k], pct));
	table_print(&t);
	/* Reasons do not fit into a column. */
	json_array_foreach(v, i, pod)
	{
		const char *why = json_string_value(json_object_get(pod, "why"));

		if (why && *why)
			printf("%s: %s\n", cli_text(pod, "name"), why);
	}
}

static int list(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "pod.list", NULL, print_list);
}

static json_t *named(const char *pod)
{
	return json_pack("{s:s}", "pod", pod);
}

static void print_state(const json_t *v)
{
	printf("%s is %s\n", cli_text(v, "pod"), cli_text(v, "state"));
}

static int show(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "pod.show", named(argv[0]), cli_print_object);
}

static int drain(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "pod.drain", named(argv[0]), print_state);
}

static int undrain(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "pod.undrain", named(argv[0]), print_state);
}

static const struct verb verbs[] = {
	{ "list", "", "pods with state, load and what their caches hold", 0, 0, 0, NULL, list },
	{ "show", "POD", "all that is known of a pod", 0, 1, 1, "pod", show },
	{ "drain", "POD", "no new requests; those that run go on", 0, 1, 1, "pod", drain },
	{ "undrain", "POD", "new requests again", 0, 1, 1, "pod", undrain },
};
const struct object object_pod = { .name = "pod", .doc = "pods", OBJECT_VERBS(verbs) };
