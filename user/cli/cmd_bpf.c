/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "datapath/datapath.h"

/* Print what was found, or say what is wrong. */
static int finish(struct cli *c, int r, struct buf *out, struct buf *err)
{
	if (buf_len(out)) {
		fwrite(buf_data(out), 1, buf_len(out), stdout);
		if (buf_data(out)[buf_len(out) - 1] != '\n')
			putchar('\n');
	}
	while (buf_len(err) && buf_data(err)[buf_len(err) - 1] == '\n')
		err->len--;
	if (r && buf_len(err))
		r = cli_fail(c, r == -ENOENT ? CLI_NOT_FOUND : CLI_FAILED, "%.*s", (int)buf_len(err), buf_data(err));
	else if (r)
		r = cli_fail(c, r == -ENOENT ? CLI_NOT_FOUND : CLI_FAILED, "bpf: %s", strerror(-r));
	buf_free(out);
	buf_free(err);
	return r;
}

static int show(struct cli *c, int argc, char **argv)
{
	struct buf out = { 0 }, err = { 0 };

	return finish(c, bpf_cmd_show(c->json, &out, &err), &out, &err);
}

static int dump(struct cli *c, int argc, char **argv)
{
	struct buf out = { 0 }, err = { 0 };

	return finish(c, bpf_cmd_dump(argv[0], c->json, &out, &err), &out, &err);
}

static int unload(struct cli *c, int argc, char **argv)
{
	struct buf out = { 0 }, err = { 0 };

	return finish(c, bpf_cmd_unload(&out, &err), &out, &err);
}

static const struct verb verbs[] = {
	{ "show", "", "programs, links, maps and pins (needs no daemon)", 0, 0, 0, NULL, show },
	{ "dump", "MAP", "the entries of a map (needs no daemon)", 0, 1, 1, "", dump },
	{ "unload", "", "take all of it out of the kernel (needs no daemon)", 0, 0, 0, NULL, unload },
};
const struct object object_bpf = { .name = "bpf", .doc = "what is in the kernel", OBJECT_VERBS(verbs) };
