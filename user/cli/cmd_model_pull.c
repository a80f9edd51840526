/* SPDX-License-Identifier: Apache-2.0
 * What kvsteer needs of a model, from a hub: tokenizer, templates, configuration. Never its weights.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cmd_model.h"
#include "cli/hub.h"

#define HUB	      "https://huggingface.co"
#define SIZE_MAX_FILE (256u << 20)
#define MORE	      "additional_chat_templates/"

struct pull {
	const struct cli *c;
	struct hub hub;
	const char *repo, *dir;
	char commit[65]; /* what the revision is now: all files are of one */
	json_t *files;
	const char *name; /* of the file under way */
};

/* A name that may be in a path of ours: nothing that leads elsewhere. */
static bool plain(const char *s)
{
	return *s && *s != '.' &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == strlen(s);
}

static bool wanted(const char *name)
{
	static const char *const names[] = {
		"tokenizer.json", "tokenizer_config.json",  "chat_template.jinja",     "chat_template.json",
		"config.json",	  "generation_config.json", "added_tokens.json",       "special_tokens_map.json",
		"tekken.json",	  "processor_config.json",  "preprocessor_config.json"
	};
	size_t n = strlen(name);

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return strncmp(name, MORE, strlen(MORE)) == 0 && plain(name + strlen(MORE)) && n > 6 &&
	       strcmp(name + n - 6, ".jinja") == 0;
}

/* ORG/NAME or NAME. */
static bool is_repo(const char *s)
{
	const char *slash = strchr(s, '/');
	char org[128];

	if (!slash)
		return plain(s);
	if ((size_t)(slash - s) >= sizeof(org))
		return false;
	memcpy(org, s, (size_t)(slash - s));
	org[slash - s] = '\0';
	return plain(org) && plain(slash + 1);
}

/* "tokenizer.json  45%  5.1 of 11.4 MB", over and over on the same line. */
static void progress(void *arg, uint64_t have, uint64_t size)
{
	const struct pull *p = arg;
	unsigned share = size ? (unsigned)(have * 100 / size) : 100, bar = share / 5;

	fprintf(stderr, "\r%-28s [%.*s%.*s] %3u%% %8.1f of %.1f MB\033[K", p->name, (int)bar, "####################",
		(int)(20 - bar), "                    ", share, (double)have / 1e6, (double)size / 1e6);
}

static int fail(struct pull *p, int r, const char *what)
{
	return cli_fail(p->c, r == -ENOENT ? CLI_NOT_FOUND : CLI_FAILED, "%s: %s", what, p->hub.error);
}

static bool is_hex(const char *s, size_t n)
{
	return s && strlen(s) == n && strspn(s, "0123456789abcdef") == n;
}

/* What the listing says of one file. */
static bool describe(const json_t *entry, struct hub_file *ret)
{
	const json_t *lfs = json_object_get(entry, "lfs");
	const char *sha = json_string_value(json_object_get(lfs, "sha256"));
	const char *blob = json_string_value(json_object_get(entry, "blobId"));
	const json_t *size = json_object_get(json_is_object(lfs) ? lfs : entry, "size");

	if (!json_is_integer(size) || json_integer_value(size) < 0)
		return false;
	ret->size = (uint64_t)json_integer_value(size);
	if (json_is_object(lfs) ? !is_hex(sha, 64) : !is_hex(blob, 40))
		return false;
	snprintf(ret->sum, sizeof(ret->sum), "%s", json_is_object(lfs) ? sha : blob);
	return true;
}

static int make_dir(struct pull *p, const char *path)
{
	if (mkdir(path, 0755) == 0 || errno == EEXIST)
		return CLI_OK;
	return cli_fail(p->c, CLI_FAILED, "%s: %s", path, strerror(errno));
}

static int pull_file(struct pull *p, const char *name, const json_t *entry)
{
	bool tty = isatty(STDERR_FILENO) && !p->c->json;
	struct hub_file want;
	char path[4200];
	bool have;
	int r;

	if (!describe(entry, &want))
		return cli_fail(p->c, CLI_FAILED, "%s: the hub tells no size or checksum of it", name);
	if (want.size > SIZE_MAX_FILE)
		return cli_fail(p->c, CLI_FAILED, "%s has %llu bytes: more than a tokenizer ever has", name,
				(unsigned long long)want.size);
	snprintf(path, sizeof(path), "%.3900s/%.200s", p->dir, name);
	p->name = name;
	have = hub_has(path, &want);
	if (!have) {
		r = hub_fetch(&p->hub, p->repo, p->commit, name, &want, path, tty ? progress : NULL, p);
		if (tty)
			fputs("\r\033[K", stderr);
		if (r)
			return fail(p, r, name);
	}
	json_array_append_new(p->files, json_pack("{s:s, s:I, s:s, s:s}", "name", name, "bytes", (json_int_t)want.size,
						  "sum", want.sum, "state", have ? "unchanged" : "fetched"));
	if (!p->c->json)
		printf("%-9s %9s  %s\n", have ? "unchanged" : "fetched", cli_size((json_int_t)want.size), name);
	fflush(stdout);
	return CLI_OK;
}

static int pull_all(struct pull *p, const json_t *listing)
{
	const json_t *siblings = json_object_get(listing, "siblings"), *entry;
	const char *sha = json_string_value(json_object_get(listing, "sha"));
	char path[4200];
	size_t i;
	int r = make_dir(p, p->dir);

	if (!is_hex(sha, 40) || !json_is_array(siblings))
		return cli_fail(p->c, CLI_FAILED, "%s: what it answers is no listing of a model", p->hub.endpoint);
	snprintf(p->commit, sizeof(p->commit), "%s", sha);
	json_array_foreach((json_t *)(uintptr_t)siblings, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "rfilename"));

		if (r || !name || !wanted(name))
			continue;
		if (strchr(name, '/')) {
			snprintf(path, sizeof(path), "%.3900s/" MORE, p->dir);
			r = make_dir(p, path);
		}
		if (!r)
			r = pull_file(p, name, entry);
	}
	if (!r && !json_array_size(p->files))
		r = cli_fail(p->c, CLI_NOT_FOUND, "%s has no tokenizer, template or configuration", p->repo);
	return r;
}

static const char *setting(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

int model_pull(struct cli *c, int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	const char *endpoint = c->endpoint ? c->endpoint : setting("HF_ENDPOINT") ? setting("HF_ENDPOINT") : HUB;
	const char *revision = c->revision ? c->revision : "main";
	struct pull p = { .c = c, .repo = argv[0], .dir = argc > 1 ? argv[1] : slash ? slash + 1 : argv[0] };
	struct buf text = { 0 };
	json_t *listing = NULL;
	char base[300];
	int r;

	if (!is_repo(argv[0]) || !plain(revision))
		return cli_fail(c, CLI_USAGE, "%s is no model (ORG/NAME) or no revision",
				plain(revision) ? argv[0] : revision);
	snprintf(base, sizeof(base), "%s", endpoint);
	while (*base && base[strlen(base) - 1] == '/')
		base[strlen(base) - 1] = '\0';
	p.hub = (struct hub){ .endpoint = base, .token = setting("HF_TOKEN"), .ca_file = c->ca };
	p.files = json_array();
	r = hub_open(&p.hub);
	if (!r)
		r = hub_list(&p.hub, p.repo, revision, &text);
	if (r)
		r = r == -EINVAL ? cli_fail(c, CLI_USAGE, "%s", p.hub.error) : fail(&p, r, argv[0]);
	else
		listing = json_loadb(buf_data(&text), buf_len(&text), 0, NULL);
	if (!r)
		r = pull_all(&p, listing);
	if (!r && c->json) {
		json_t *o = json_pack("{s:s, s:s, s:s, s:O}", "model", p.repo, "commit", p.commit, "dir", p.dir,
				      "files", p.files);

		cli_print_json(o);
		json_decref(o);
	}
	json_decref(listing);
	json_decref(p.files);
	buf_free(&text);
	hub_close(&p.hub);
	return r;
}
