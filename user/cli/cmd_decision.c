/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"
#include "ctl/ctl.h"

struct tail {
	struct cli *c;
	int r;
	unsigned n;
};

#define TAIL_FORMAT "%-24s  %-36s  %-21s  %-11s  %8s  %9s  %8s  %9s  %s\n"

static void print_row(struct tail *t, const json_t *v)
{
	char copies[8][40];
	static const char *const keys[] = {
		"time", "request", "pod", "mode", "prompt_tokens", "predicted_tokens", "reported_tokens", "ttft_ms"
	};

	/* The header again for each screen. */
	if (t->n++ % 40 == 0)
		printf(TAIL_FORMAT, "TIME", "REQUEST", "POD", "MODE", "PROMPT", "PREDICTED", "REPORTED", "TTFT ms",
		       "END");
	for (unsigned i = 0; i < 8; i++)
		snprintf(copies[i], sizeof(copies[i]), "%s", cli_text(v, keys[i]));
	printf(TAIL_FORMAT, copies[0], copies[1], copies[2], copies[3], copies[4], copies[5], copies[6], copies[7],
	       cli_text(v, "end"));
}

static bool tail_line(void *arg, json_t *answer)
{
	struct tail *t = arg;
	json_t *v = cli_data(t->c, answer, &t->r);

	if (!v)
		return false;
	if (t->c->json)
		cli_print_json(v);
	else
		print_row(t, v);
	return fflush(stdout) == 0;
}

static int tail(struct cli *c, int argc, char **argv)
{
	struct tail t = { .c = c };
	json_t *args = json_pack("{s:i}", "n", (int)c->lines);
	int r = ctl_follow(c->control, "decision.tail", args, tail_line, &t);

	json_decref(args);
	return r ? cli_unreachable(c, r) : t.r;
}

static void print_candidates(const json_t *list)
{
	static const char *const heads[] = { "CANDIDATE",  ">MATCHED", ">OF CPU",   ">OF DISK", ">UNCACHED",
					     ">BACKLOG s", ">OWN s",   ">INFLIGHT", ">WAITING", ">COST" };
	static const char *const keys[] = { "pod", "matched_tokens", "cpu_tokens", "disk_tokens", "uncached", "backlog",
					    "own", "inflight",	     "waiting",	   "cost" };
	enum { COLUMNS = sizeof(keys) / sizeof(keys[0]) };
	const json_t *row;
	struct table t;
	size_t i;

	table_begin(&t, COLUMNS, heads);
	json_array_foreach(list, i, row) for (unsigned k = 0; k < COLUMNS; k++) table_cell(&t, cli_text(row, keys[k]));
	table_print(&t);
}

static void print_decision(const json_t *v)
{
	cli_print_object(v);
	putchar('\n');
	print_candidates(json_object_get(v, "candidates"));
}

static int show(struct cli *c, int argc, char **argv)
{
	return cli_show(c, "decision.show", json_pack("{s:s}", "request", argv[0]), print_decision);
}

static const struct verb verbs[] = {
	{ "tail", "[-n N]", "decisions as they are made", FLAG_LINES, 0, 0, NULL, tail },
	{ "show", "REQUEST-ID", "why a request went where it went", 0, 1, 1, NULL, show },
};
const struct object object_decision = { .name = "decision", .doc = "why requests go where", OBJECT_VERBS(verbs) };
