/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define CONTROL_DEFAULT "/run/kvsteer/kvsteer.sock"
#define CACHE_DEFAULT	"/var/cache/kvsteer"

const struct object *const cli_objects[] = {
	&object_status, &object_pod,	 &object_decision,   &object_index, &object_config,
	&object_flow,	&object_model,	 &object_doctor,     &object_bpf,   &object_reload,
	&object_drain,	&object_version, &object_completion, NULL
};

static const struct {
	const char *option, *doc;
	unsigned flag;
} options[] = {
	{ "--control PATH", "control socket of the daemon (" CONTROL_DEFAULT "; KVSTEER_CONTROL)", 0 },
	{ "-j, --json", "JSON, errors too", 0 },
	{ "-m, --model NAME", "of that model", FLAG_MODEL },
	{ "-n, --lines N", "that many of the last ones first (10)", FLAG_LINES },
	{ "--rst", "as reStructuredText", FLAG_RST },
	{ "--set KEY=VALUE", "as kvsteerd's; may be repeated", FLAG_SET },
	{ "--template FILE", "a chat template", FLAG_TEMPLATE },
	{ "--tokenizer-config FILE", "the model's tokenizer_config.json", FLAG_TOKENIZER_CONFIG },
	{ "--api NAME", "chat (the default), messages or responses: whose request it is", FLAG_API },
	{ "--repeat N", "do it so many times", FLAG_REPEAT },
	{ "--time", "say how long it took, on standard error", FLAG_TIME },
	{ "--cache-dir DIR", "where compiled tokenizers are (" CACHE_DEFAULT ")", FLAG_CACHE },
	{ "--decode", "ids to text", FLAG_DECODE },
	{ "--special", "with the ids that are put around a prompt", FLAG_SPECIAL },
	{ "--tokens", "tokens instead of the text", FLAG_TOKENS },
	{ "--pod URL", "compare with what this pod makes", FLAG_POD },
	{ "--endpoint URL", "the hub (HF_ENDPOINT, else https://huggingface.co)", FLAG_ENDPOINT },
	{ "--revision REV", "branch, tag or commit (main)", FLAG_REVISION },
	{ "--ca-file FILE", "certificates that the hub's is checked by", FLAG_CA },
	{ "-h, --help", "this text", 0 },
	{ "-V, --version", "version", 0 },
};

static void help_verb(const struct object *o, const struct verb *v)
{
	char left[80];

	snprintf(left, sizeof(left), "%s%s%s%s%s", o->name, v->name ? " " : "", v->name ? v->name : "",
		 *v->args ? " " : "", v->args);
	printf("  %-34s %s\n", left, v->doc);
}

static int help(const struct object *only)
{
	printf("usage: kvsteer [OPTIONS] %s%s\n\n", only ? only->name : "OBJECT", only ? " …" : " [VERB] [ARGUMENTS]");
	for (const struct object *const *o = cli_objects; *o; o++)
		for (unsigned i = 0; (!only || *o == only) && i < (*o)->n; i++)
			help_verb(*o, &(*o)->verbs[i]);
	puts("\nOptions:");
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		printf("  %-34s %s\n", options[i].option, options[i].doc);
	puts("\nObjects and verbs may be shortened as long as they stay unique. An object alone means its first verb.\n"
	     "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the daemon cannot be reached, 4 not found.");
	return CLI_OK;
}

/* The name that <word> is, or is the only beginning of. -1: none, or several (said). */
static int choose(const struct cli *c, const char *what, const char *word,
		  const char *(*name)(const void *of, unsigned i), const void *of)
{
	struct buf found = { 0 };
	int ret = -1, hits = 0;
	const char *s;

	for (unsigned i = 0; (s = name(of, i)); i++) {
		if (strcmp(s, word) == 0) {
			buf_free(&found);
			return (int)i;
		}
		if (*word && strncmp(s, word, strlen(word)) == 0) {
			ret = (int)i;
			buf_printf(&found, "%s%s", hits++ ? ", " : "", s);
		}
	}
	if (hits > 1) {
		cli_fail(c, CLI_USAGE, "\"%s\" could be %.*s", word, (int)buf_len(&found), buf_data(&found));
		ret = -1;
	} else if (hits == 0) {
		for (unsigned i = 0; (s = name(of, i)); i++)
			buf_printf(&found, "%s%s", i ? ", " : "", s);
		cli_fail(c, CLI_USAGE, "\"%s\" is no %s; there are: %.*s", word, what, (int)buf_len(&found),
			 buf_data(&found));
	}
	buf_free(&found);
	return ret;
}

static const char *object_name(const void *of, unsigned i)
{
	return cli_objects[i] ? cli_objects[i]->name : NULL;
}

static const char *verb_name(const void *of, unsigned i)
{
	const struct object *o = of;

	return i < o->n ? o->verbs[i].name : NULL;
}

static int run(struct cli *c, unsigned flags, bool want_help, int argc, char **argv)
{
	const struct object *o;
	const struct verb *v;
	int i;

	if (argc == 0 || strcmp(argv[0], "help") == 0) {
		if (argc || want_help)
			return help(NULL);
		return cli_fail(c, CLI_USAGE, "no object given; kvsteer --help tells what there is");
	}
	i = choose(c, "object", argv[0], object_name, NULL);
	if (i < 0)
		return CLI_USAGE;
	o = cli_objects[i];
	argc--, argv++;
	if (want_help || (argc && strcmp(argv[0], "help") == 0))
		return help(o);
	v = &o->verbs[0];
	if (v->name && argc) {
		i = choose(c, "verb", argv[0], verb_name, o);
		if (i < 0)
			return CLI_USAGE;
		v = &o->verbs[i];
		argc--, argv++;
	}
	if ((unsigned)argc < v->min || (unsigned)argc > v->max)
		return cli_fail(c, CLI_USAGE, "usage: kvsteer %s%s%s%s%s", o->name, v->name ? " " : "",
				v->name ? v->name : "", *v->args ? " " : "", v->args);
	for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++)
		if (options[k].flag & flags & ~v->flags)
			return cli_fail(c, CLI_USAGE, "%s is no option of %s %s", options[k].option, o->name,
					v->name ? v->name : "");
	return v->run(c, argc, argv);
}

static bool lines_of(const char *text, unsigned *ret)
{
	uint64_t v;

	if (str_u64(str_of(text), &v) || v > 1000000)
		return false;
	*ret = (unsigned)v;
	return true;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "control", required_argument, NULL, 'c' },
		{ "json", no_argument, NULL, 'j' },
		{ "model", required_argument, NULL, 'm' },
		{ "lines", required_argument, NULL, 'n' },
		{ "rst", no_argument, NULL, 'r' },
		{ "set", required_argument, NULL, 's' },
		{ "template", required_argument, NULL, 't' },
		{ "tokenizer-config", required_argument, NULL, 'k' },
		{ "api", required_argument, NULL, 'A' },
		{ "repeat", required_argument, NULL, 'p' },
		{ "time", no_argument, NULL, 'T' },
		{ "cache-dir", required_argument, NULL, 'C' },
		{ "decode", no_argument, NULL, 'd' },
		{ "special", no_argument, NULL, 'S' },
		{ "tokens", no_argument, NULL, 'o' },
		{ "pod", required_argument, NULL, 'P' },
		{ "endpoint", required_argument, NULL, 'E' },
		{ "revision", required_argument, NULL, 'R' },
		{ "ca-file", required_argument, NULL, 'F' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	const char *env = getenv("KVSTEER_CONTROL");
	struct cli c = {
		.control = env && *env ? env : CONTROL_DEFAULT, .lines = 10, .repeat = 1, .cache = CACHE_DEFAULT
	};
	bool want_help = false, want_version = false;
	unsigned flags = 0;
	int opt;

	/* -j counts from the start, so that a complaint about what follows is JSON already. */
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		c.json |= strcmp(argv[i], "-j") == 0 || strcmp(argv[i], "--json") == 0;
	opterr = 0;
	while ((opt = getopt_long(argc, argv, ":jm:n:hV", longs, NULL)) >= 0) {
		switch (opt) {
		case 'c':
			c.control = optarg;
			break;
		case 'j':
			c.json = true;
			break;
		case 'm':
			c.model = optarg;
			flags |= FLAG_MODEL;
			break;
		case 'n':
			if (!lines_of(optarg, &c.lines))
				return cli_fail(&c, CLI_USAGE, "-n %s: not a number from 0 to 1000000", optarg);
			flags |= FLAG_LINES;
			break;
		case 'r':
			c.rst = true;
			flags |= FLAG_RST;
			break;
		case 's':
			if (c.nset == CLI_SET_MAX)
				return cli_fail(&c, CLI_USAGE, "--set is given more than %u times", CLI_SET_MAX);
			c.set[c.nset++] = optarg;
			flags |= FLAG_SET;
			break;
		case 't':
			c.template = optarg;
			flags |= FLAG_TEMPLATE;
			break;
		case 'k':
			c.tokenizer_config = optarg;
			flags |= FLAG_TOKENIZER_CONFIG;
			break;
		case 'A':
			c.api = optarg;
			flags |= FLAG_API;
			break;
		case 'p':
			if (!lines_of(optarg, &c.repeat) || !c.repeat)
				return cli_fail(&c, CLI_USAGE, "--repeat %s: not a number from 1 to 1000000", optarg);
			flags |= FLAG_REPEAT;
			break;
		case 'T':
			c.time = true;
			flags |= FLAG_TIME;
			break;
		case 'C':
			c.cache = optarg;
			flags |= FLAG_CACHE;
			break;
		case 'd':
			c.decode = true;
			flags |= FLAG_DECODE;
			break;
		case 'S':
			c.special = true;
			flags |= FLAG_SPECIAL;
			break;
		case 'o':
			c.tokens = true;
			flags |= FLAG_TOKENS;
			break;
		case 'P':
			c.pod = optarg;
			flags |= FLAG_POD;
			break;
		case 'E':
			c.endpoint = optarg;
			flags |= FLAG_ENDPOINT;
			break;
		case 'R':
			c.revision = optarg;
			flags |= FLAG_REVISION;
			break;
		case 'F':
			c.ca = optarg;
			flags |= FLAG_CA;
			break;
		case 'h':
			want_help = true;
			break;
		case 'V':
			want_version = true;
			break;
		case ':':
			return cli_fail(&c, CLI_USAGE, "%s needs a value", argv[optind - 1]);
		default:
			return cli_fail(&c, CLI_USAGE, "%s is no option; kvsteer --help tells what there is",
					argv[optind - 1]);
		}
	}
	if (want_version)
		return object_version.verbs[0].run(&c, 0, NULL);
	opt = run(&c, flags, want_help, argc - optind, argv + optind);
	if (fflush(stdout) != 0 && opt == CLI_OK)
		return cli_fail(&c, CLI_FAILED, "what was found could not be written");
	return opt;
}
