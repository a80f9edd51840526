/* SPDX-License-Identifier: Apache-2.0
 *
 * What no single value shows. The configuration remembers where its keys stood, so these messages have a line too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config_int.h"

struct check {
	const struct config *c;
	struct report r;
};

/* Where <key>, or the nearest thing that holds it, was set. */
static const struct config_pos *pos_find(const struct config_full *f, const char *key)
{
	size_t n = strlen(key);

	while (n) {
		for (unsigned i = 0; i < f->npos; i++)
			if (strlen(f->pos[i].key) == n && memcmp(f->pos[i].key, key, n) == 0)
				return &f->pos[i];
		do
			n--;
		while (n && key[n] != '.' && key[n] != '[');
	}
	return NULL;
}

static void wrong(struct check *k, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void wrong(struct check *k, const char *key, const char *fmt, ...)
{
	const struct config_pos *pos = pos_find(config_full(k->c), key);
	struct buf b = { 0 };
	va_list ap;

	va_start(ap, fmt);
	if (buf_vprintf(&b, fmt, ap) || buf_put(&b, "", 1))
		k->r.nomem = true;
	else
		report_at(&k->r, pos ? pos->line : 0, pos ? pos->col : 0, key, "%s", buf_data(&b));
	va_end(ap);
	buf_free(&b);
}

#define KEY(buf, ...) (snprintf(buf, sizeof(buf), __VA_ARGS__), (buf))

static void check_files(struct check *k, const struct config_pool *p, unsigned i)
{
	char key[96], file[4096];
	struct stat st;

	if (p->model_path) {
		snprintf(file, sizeof(file), "%s/tokenizer.json", p->model_path);
		KEY(key, "pools[%u].model-path", i);
		if (stat(p->model_path, &st) < 0)
			wrong(k, key, "%s: %s", p->model_path, strerror(errno));
		else if (!S_ISDIR(st.st_mode))
			wrong(k, key, "%s is not a directory: name the one that holds tokenizer.json", p->model_path);
		else if (access(file, R_OK) < 0)
			wrong(k, key, "%s: %s (it is read to turn token ids into text)", file, strerror(errno));
	}
	if (p->chat_template) {
		KEY(key, "pools[%u].chat-template", i);
		if (!p->model_path)
			wrong(k, key, "needs model-path: without the tokenizer the engine's tokens have no text");
		else if (access(p->chat_template, R_OK) < 0)
			wrong(k, key, "%s: %s", p->chat_template, strerror(errno));
	}
	if (p->api_key_file && access(p->api_key_file, R_OK) < 0)
		wrong(k, KEY(key, "pools[%u].api-key-file", i), "%s: %s", p->api_key_file, strerror(errno));
	if (p->discovery == DISC_FILE && access(p->file, R_OK) < 0)
		wrong(k, KEY(key, "pools[%u].discovery.file", i), "%s: %s", p->file, strerror(errno));
}

/* A request names a model, not a pool: no two pools may serve the same name. */
static void check_models(struct check *k, unsigned i)
{
	const struct config_pool *p = &k->c->pools[i];
	char key[96];

	for (unsigned m = 0; m < p->nmodels; m++) {
		for (unsigned j = 0; j <= i; j++) {
			const struct config_pool *q = &k->c->pools[j];

			for (unsigned o = 0; o < (j == i ? m : q->nmodels); o++)
				if (strcmp(p->models[m], q->models[o]) == 0)
					wrong(k, KEY(key, "pools[%u].models[%u]", i, m),
					      "\"%s\" is served by pool \"%s\" already: a request names only the model",
					      p->models[m], q->name);
		}
	}
}

static void check_pool(struct check *k, unsigned i)
{
	const struct config_pool *p = &k->c->pools[i];
	unsigned prefill = 0, decode = 0;
	char key[96];

	for (unsigned j = 0; j < i; j++)
		if (strcmp(p->name, k->c->pools[j].name) == 0)
			wrong(k, KEY(key, "pools[%u].name", i), "\"%s\" is the name of pools[%u] too: names are unique",
			      p->name, j);
	if (p->discovery == DISC_STATIC && p->npods == 0)
		wrong(k, KEY(key, "pools[%u].discovery", i), "no pods: give a static list, a file or a dns name");
	for (unsigned j = 0; j < p->npods; j++) {
		prefill += strcmp(p->pods[j].role, "prefill") == 0;
		decode += strcmp(p->pods[j].role, "decode") == 0;
	}
	if (p->npods && prefill == p->npods)
		wrong(k, KEY(key, "pools[%u].discovery.static", i), "all pods are prefill: nobody decodes");
	if (p->npods && decode == p->npods)
		wrong(k, KEY(key, "pools[%u].discovery.static", i), "all pods are decode: nobody prefills");
	if (p->body > k->c->memory_max)
		wrong(k, KEY(key, "pools[%u].limits.body", i), "is larger than memory.max: such a body never fits");
	check_models(k, i);
	check_files(k, p, i);
}

int config_check(const struct config *c, struct buf *err)
{
	struct check k = { .c = c, .r = { .err = err, .file = c->file } };
	char key[96];

	if (c->nlisteners == 0)
		wrong(&k, "listeners", "no listener: clients have nowhere to connect");
	for (unsigned i = 0; i < c->nlisteners; i++) {
		KEY(key, "listeners[%u].address", i);
		for (unsigned j = 0; j < i; j++)
			if (strcmp(c->listeners[i].address, c->listeners[j].address) == 0)
				wrong(&k, key, "\"%s\" is the address of listeners[%u] too", c->listeners[i].address,
				      j);
		if (strcmp(c->listeners[i].address, c->admin) == 0)
			wrong(&k, key, "\"%s\" is the admin address too", c->admin);
	}
	if (c->npools == 0)
		wrong(&k, "pools", "no pods: add a pool with discovery, or --pod HOST:PORT");
	for (unsigned i = 0; i < c->npools; i++)
		check_pool(&k, i);
	if (c->memory_index > c->memory_max)
		wrong(&k, "memory.index", "is larger than memory.max, of which it is a part");
	if (k.r.nomem)
		return -ENOMEM;
	return k.r.n ? -EINVAL : 0;
}
