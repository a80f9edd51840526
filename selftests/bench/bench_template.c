/* SPDX-License-Identifier: Apache-2.0
 * What it costs to turn a chat request into the hashes of its rendered text: the body's JSON, the engine's rules, the
 * template, the hash. Build and run after `make`:
 *   make .output/bench/bench_template && .output/bench/bench_template TEMPLATE.jinja…
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/buf.h"
#include "kvindex/kvindex.h"
#include "model/chat.h"

struct hashing {
	const struct kvindex *x;
	struct index_text text;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int hash(void *ctx, const char *p, size_t n)
{
	struct hashing *h = ctx;

	return index_text_feed(h->x, &h->text, p, n);
}

static int discard(void *ctx, const char *p, size_t n)
{
	return 0;
}

static void content(struct buf *b, const char *unit, size_t n)
{
	size_t from = buf_len(b);

	while (buf_len(b) - from < n)
		buf_puts(b, unit);
}

/* An agent's turn: tools, a system text, then questions, calls and their results; about n bytes. */
static struct buf agent(size_t n, unsigned messages, unsigned tools)
{
	struct buf b = { 0 };
	size_t each = n / messages;

	buf_puts(&b, "{\"model\": \"m\", \"stream\": true, \"tools\": [");
	for (unsigned i = 0; i < tools; i++)
		buf_printf(
			&b,
			"%s{\"type\": \"function\", \"function\": {\"name\": \"tool_%u\", \"description\": \"Does what "
			"tool %u does.\", \"parameters\": {\"type\": \"object\", \"properties\": {\"path\": {\"type\": "
			"\"string\", \"description\": \"where\"}, \"limit\": {\"type\": \"integer\", \"default\": "
			"10}}, "
			"\"required\": [\"path\"]}}}",
			i ? ", " : "", i, i);
	buf_puts(&b, "], \"messages\": [{\"role\": \"system\", \"content\": \"You are careful.\"}");
	for (unsigned i = 1; i < messages; i++) {
		if (i % 3 == 1) {
			buf_puts(&b, ", {\"role\": \"user\", \"content\": \"");
			content(&b, "The quick brown fox jumps over the lazy dog, and then it sleeps again.\\n", each);
			buf_puts(&b, "\"}");
		} else if (i % 3 == 2) {
			buf_puts(&b, ", {\"role\": \"assistant\", \"content\": \"");
			content(&b,
				"I look at \\\"it\\\" \xe2\x80\x94 one moment, please, while the file is read.\\n\\n",
				each);
			buf_puts(
				&b,
				"\", \"tool_calls\": [{\"id\": \"c\", \"type\": \"function\", \"function\": {\"name\": "
				"\"tool_1\", \"arguments\": \"{\\\"path\\\": \\\"/etc/x\\\", \\\"limit\\\": 5}\"}}]}");
		} else {
			buf_puts(&b, ", {\"role\": \"tool\", \"tool_call_id\": \"c\", \"content\": \"");
			content(&b, "\\tif (x == \\\"abc\\\")\\n\\t\\treturn f(x, y, z + 1);\\n", each);
			buf_puts(&b, "\"}");
		}
	}
	buf_puts(&b, "]}");
	return b;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

#define ROUNDS 200

static void measure(const char *name, const struct template *t, struct kvindex *x, struct template_work *w,
		    struct buf b)
{
	uint32_t cap = (uint32_t)(buf_len(&b) * 2 / INDEX_CHUNK) + 2;
	uint64_t *at = calloc(cap, sizeof(*at));
	struct chat_in in = { .request = buf_str(&b), .utc = true };
	struct hashing h = { .x = x };
	struct template_error err;
	double us[2][ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		for (int hashed = 0; hashed < 2; hashed++) {
			struct template_sink sink =
				hashed ? (struct template_sink){ hash, &h } : (struct template_sink){ discard, NULL };
			double began;
			int r;

			index_text_init(&h.text, at, cap);
			began = now();
			r = chat_render(t, w, &in, sink, &err);
			us[hashed][i] = (now() - began) * 1e6;
			if (r) {
				printf("%s: %s\n", name, err.text);
				goto out;
			}
		}
	qsort(us[0], ROUNDS, sizeof(double), by_size);
	qsort(us[1], ROUNDS, sizeof(double), by_size);
	printf("  %-24.24s %8zu bytes of JSON, %8zu of text: rendered %7.1f us, hashed too %7.1f us (least %.1f)\n",
	       name, buf_len(&b), (size_t)h.text.bytes, us[0][ROUNDS / 2], us[1][ROUNDS / 2], us[1][0]);
out:
	free(at);
	buf_free(&b);
}

static struct template *load(const char *path)
{
	static char source[1 << 20];
	FILE *f = fopen(path, "re");
	struct template_error err = { 0 };
	struct template *t = NULL;

	if (f) {
		size_t n = fread(source, 1, sizeof(source), f);

		fclose(f);
		t = template_compile((struct str){ source, n }, &err);
	}
	if (!t)
		fprintf(stderr, "%s:%u:%u: %s\n", path, err.line, err.col, f ? err.text : "cannot be read");
	return t;
}

int main(int argc, char **argv)
{
	struct template_work *w = template_work_new();
	struct qsbr q;
	struct kvindex *x;

	qsbr_init(&q, 1);
	x = index_new(&q, 64 << 20, 1);
	for (int i = 1; x && w && i < argc; i++) {
		struct template *t = load(argv[i]);
		const char *name = strrchr(argv[i], '/') ? strrchr(argv[i], '/') + 1 : argv[i];

		if (!t)
			continue;
		measure(name, t, x, w, agent(100000, 20, 5));
		measure(name, t, x, w, agent(1000000, 40, 20));
		measure(name, t, x, w, agent(1000000, 1000, 20));
		template_unref(t);
	}
	template_work_free(w);
	index_free(x);
	return 0;
}
