/* SPDX-License-Identifier: Apache-2.0
 *
 * The text that a template makes of a chat request, exactly, on standard output. Its exit codes are its own: 3 when the
 * template raises or the engine would refuse the request, 4 when the template is refused as it is loaded.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cmd_model.h"
#include "model/chat.h"

#define FILE_MAX (64u << 20)

enum { EXIT_RAISED = 3, EXIT_REFUSED = 4 };

static int append(void *ctx, const char *p, size_t n)
{
	return buf_put(ctx, p, n);
}

static int count(void *ctx, const char *p, size_t n)
{
	*(size_t *)ctx += n;
	return 0;
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The clock of strftime_now: now, or KVS_FAKE_TIME (Unix seconds, shown in UTC). */
static void set_clock(struct chat_in *in)
{
	const char *fake = getenv("KVS_FAKE_TIME");

	in->utc = fake && *fake;
	in->now = in->utc ? strtoll(fake, NULL, 10) : (int64_t)time(NULL);
}

static void report(double *ms, unsigned n, size_t bytes)
{
	qsort(ms, n, sizeof(*ms), by_size);
	fprintf(stderr, "%zu bytes, %u times: median %.3f ms, least %.3f ms, most %.3f ms\n", bytes, n, ms[n / 2],
		ms[0], ms[n - 1]);
}

static int raised(const struct cli *c, const struct template_error *err)
{
	if (err->line)
		cli_fail(c, CLI_RAISED, "%s:%u:%u: %s", c->template, err->line, err->col, err->text);
	else
		cli_fail(c, CLI_RAISED, "%s", err->text);
	return EXIT_RAISED;
}

static int api_of(const struct cli *c, enum chat_api *ret)
{
	static const char *const names[] = { "chat", "messages", "responses" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!c->api || strcmp(c->api, names[i]) == 0) {
			*ret = (enum chat_api)i;
			return CLI_OK;
		}
	return cli_fail(c, CLI_USAGE, "--api %s: none of chat, messages, responses", c->api);
}

static int render(const struct cli *c, const struct template *t, struct chat_in *in)
{
	struct template_work *w = template_work_new();
	double *ms = calloc(c->repeat, sizeof(*ms));
	struct template_error err = { 0 };
	struct buf text = { 0 };
	size_t bytes = 0;
	int r = -ENOMEM;

	if (w && in->api == CHAT_MESSAGES)
		in->habits = chat_habits_find(t, w, in->tokens);
	if (w && ms)
		r = chat_render(t, w, in, (struct template_sink){ append, &text }, &err);
	for (unsigned i = 0; r == TEMPLATE_OK && c->time && i < c->repeat; i++) {
		double began = now_ms();

		bytes = 0;
		r = chat_render(t, w, in, (struct template_sink){ count, &bytes }, &err);
		ms[i] = now_ms() - began;
	}
	if (r < 0 || r == TEMPLATE_SINK)
		r = cli_fail(c, CLI_FAILED, "out of memory");
	else if (r)
		r = raised(c, &err);
	else if (buf_len(&text) && fwrite(buf_data(&text), 1, buf_len(&text), stdout) != buf_len(&text))
		r = cli_fail(c, CLI_FAILED, "the text could not be written: %s", strerror(errno));
	else if (c->time)
		report(ms, c->repeat, bytes);
	buf_free(&text);
	free(ms);
	template_work_free(w);
	return r;
}

static int load_tokens(const struct cli *c, struct buf *file, struct chat_tokens **ret)
{
	char why[160];
	int r;

	if (!c->tokenizer_config)
		return CLI_OK;
	r = cli_read_file(c, c->tokenizer_config, FILE_MAX, file);
	if (r)
		return r;
	*ret = chat_tokens_parse(buf_str(file), why, sizeof(why));
	return *ret ? CLI_OK : cli_fail(c, CLI_FAILED, "%s: %s", c->tokenizer_config, why);
}

int model_render(struct cli *c, int argc, char **argv)
{
	struct buf source = { 0 }, config = { 0 }, request = { 0 };
	struct chat_tokens *tokens = NULL;
	struct template_error err;
	struct template *t = NULL;
	struct chat_in in = { 0 };
	enum chat_api api = CHAT_COMPLETIONS;
	int r;

	if (!c->template)
		return cli_fail(c, CLI_USAGE, "--template FILE is needed");
	r = api_of(c, &api);
	if (r)
		return r;
	r = cli_read_file(c, c->template, FILE_MAX, &source);
	if (r == CLI_OK)
		r = load_tokens(c, &config, &tokens);
	if (r == CLI_OK)
		r = cli_read_file(c, argv[0], FILE_MAX, &request);
	if (r)
		goto out;
	t = template_compile(buf_str(&source), &err);
	if (!t) {
		cli_fail(c, CLI_REFUSED, "%s:%u:%u: %s", c->template, err.line, err.col, err.text);
		r = EXIT_REFUSED;
		goto out;
	}
	in = (struct chat_in){ .request = buf_str(&request), .api = api, .tokens = tokens };
	set_clock(&in);
	r = render(c, t, &in);
out:
	template_unref(t);
	chat_tokens_free(tokens);
	buf_free(&source);
	buf_free(&config);
	buf_free(&request);
	return r;
}
