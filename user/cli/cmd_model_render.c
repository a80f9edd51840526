/* SPDX-License-Identifier: Apache-2.0
 *
 * The text that a template makes of a chat request, exactly, on standard output; or its tokens, or where a pod makes
 * others. Its exit codes are its own: 3 when the template raises or the engine would refuse the request, 4 when the
 * template is refused as it is loaded.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cmd_model.h"
#include "cli/parity.h"
#include "model/chat_model.h"

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

/* The template, by itself or out of a model's directory. */
struct source {
	struct template *t;
	struct chat_tokens *tokens;
	struct chat_model *model;
	bool tools; /* the request has some */
};

static int make(const struct source *s, struct template_work *w, struct chat_in *in, struct template_sink sink,
		struct template_error *err)
{
	return s->model ? chat_model_render(s->model, s->tools, w, in, sink, err) : chat_render(s->t, w, in, sink, err);
}

static const char *place(const struct cli *c)
{
	return c->template ? c->template : c->model;
}

static int raised(const struct cli *c, const struct template_error *err)
{
	if (err->line)
		cli_fail(c, CLI_RAISED, "%s:%u:%u: %s", place(c), err->line, err->col, err->text);
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

/* The text, rendered once, and again for the clock. */
static int render(const struct cli *c, const struct source *s, struct chat_in *in, struct buf *text)
{
	struct template_work *w = template_work_new();
	double *ms = calloc(c->repeat, sizeof(*ms));
	struct template_error err = { 0 };
	size_t bytes = 0;
	int r = -ENOMEM;

	if (w && s->t && in->api == CHAT_MESSAGES)
		in->habits = chat_habits_find(s->t, w, in->tokens);
	if (w && ms)
		r = make(s, w, in, (struct template_sink){ append, text }, &err);
	for (unsigned i = 0; r == TEMPLATE_OK && c->time && i < c->repeat; i++) {
		double began = now_ms();

		bytes = 0;
		r = make(s, w, in, (struct template_sink){ count, &bytes }, &err);
		ms[i] = now_ms() - began;
	}
	if (r < 0 || r == TEMPLATE_SINK)
		r = cli_fail(c, CLI_FAILED, "out of memory");
	else if (r)
		r = raised(c, &err);
	else if (c->time)
		report(ms, c->repeat, bytes);
	free(ms);
	template_work_free(w);
	return r;
}

static int print_text(const struct cli *c, const struct buf *text)
{
	if (buf_len(text) && fwrite(buf_data(text), 1, buf_len(text), stdout) != buf_len(text))
		return cli_fail(c, CLI_FAILED, "the text could not be written: %s", strerror(errno));
	return CLI_OK;
}

/* A line for each token: where it begins, its id, its bytes, its text. */
static void print_token(const struct cli *c, const struct vocab *v, size_t i, uint32_t id, size_t at)
{
	struct str t = vocab_token(v, id);
	char shown[256];

	if (c->json) {
		printf("%s{\"byte\":%zu,\"id\":%u,\"hex\":\"", i ? "," : "", at, id);
		for (size_t k = 0; k < t.n; k++)
			printf("%02x", (unsigned char)t.p[k]);
		fputs("\"}", stdout);
		return;
	}
	parity_escape(t.p, t.n, shown, sizeof(shown));
	printf("%8zu %7u  \"%s\"\n", at, id, shown);
}

static int print_tokens(const struct cli *c, struct vocab *v, const struct buf *text)
{
	struct encoder *e = encoder_new(v);
	struct buf ids = { 0 };
	const uint32_t *id;
	size_t at = 0;
	int r;

	if (!e)
		return cli_fail(c, CLI_FAILED, "%s has no encoder: %s", c->model,
				vocab_no_encoder(v) ? vocab_no_encoder(v) : "no memory");
	r = encoder_encode(e, buf_str(text), false, &ids);
	encoder_free(e);
	if (r)
		return cli_fail(c, CLI_FAILED, "%s", r == -EILSEQ ? "the text is no UTF-8" : strerror(-r));
	id = (const uint32_t *)(const void *)buf_data(&ids);
	if (c->json)
		printf("{\"bytes\":%zu,\"tokens\":[", buf_len(text));
	for (size_t i = 0; i < buf_len(&ids) / 4; i++) {
		print_token(c, v, i, id[i], at);
		at += vocab_token(v, id[i]).n;
	}
	if (c->json)
		puts("]}");
	else
		printf("%zu bytes, %zu tokens\n", buf_len(text), buf_len(&ids) / 4);
	buf_free(&ids);
	return CLI_OK;
}

/* The name under which the pod serves the model, from malloc; NULL, and it has been said why. */
static char *model_of(const struct cli *c, struct web *w, const char *base)
{
	struct web_answer a = { 0 };
	const char *id = NULL;
	json_t *j = NULL;
	char url[512], *name;

	snprintf(url, sizeof(url), "%.400s/v1/models", base);
	if (web_ask(w, url, NULL, &a)) {
		j = json_loadb(buf_data(&a.body), buf_len(&a.body), 0, NULL);
		id = json_string_value(json_object_get(json_array_get(json_object_get(j, "data"), 0), "id"));
	}
	name = id ? str_dup(str_of(id)) : NULL;
	if (!name && !a.status)
		cli_fail(c, CLI_FAILED, "%s: %s", c->pod, a.error);
	else if (!name)
		cli_fail(c, CLI_FAILED, "%s: /v1/models names no model (%ld)", c->pod, a.status);
	json_decref(j);
	buf_free(&a.body);
	return name;
}

static int print_parity(const struct cli *c, const struct parity_result *r)
{
	static const char *const words[] = { "same", "differs", "unknown" };
	char line[600];
	json_t *o;

	parity_say(r, line, sizeof(line));
	if (r->is == PARITY_UNKNOWN)
		return cli_fail(c, CLI_FAILED, "%s: %s", c->pod, line);
	if (c->json) {
		o = json_pack("{s:s, s:s, s:s, s:o, s:o}", "pod", c->pod, "parity", words[r->is], "what", line, "byte",
			      r->place ? json_integer((json_int_t)r->byte) : json_null(), "token",
			      r->place && r->ids ? json_integer((json_int_t)r->token) : json_null());
		cli_print_json(o);
		json_decref(o);
	} else {
		printf("%s: %s\n", c->pod, line);
	}
	return r->is == PARITY_SAME ? CLI_OK : CLI_FAILED;
}

static int ask_pod(const struct cli *c, struct vocab *v, struct str request, const struct buf *text)
{
	bool url = strncmp(c->pod, "http://", 7) == 0 || strncmp(c->pod, "https://", 8) == 0;
	struct parity_ours ours = { .text = buf_str(text) };
	struct web *w = web_new(getenv("KVSTEER_API_KEY"));
	struct parity_result r;
	char base[512], *model;
	int ret = CLI_FAILED;

	snprintf(base, sizeof(base), "%s%.400s", url ? "" : "http://", c->pod);
	if (base[strlen(base) - 1] == '/')
		base[strlen(base) - 1] = '\0';
	model = w ? model_of(c, w, base) : NULL;
	if (model) {
		parity_check(w, base, parity_chat_body(request, model), v, &ours, &r);
		ret = print_parity(c, &r);
	}
	free(model);
	web_free(w);
	return ret;
}

static bool has_tools(struct str request)
{
	json_t *j = json_loadb(request.p, request.n, JSON_ALLOW_NUL, NULL);
	const json_t *tools = json_object_get(j, "tools");
	bool some = tools && !json_is_null(tools);

	json_decref(j);
	return some;
}

static int show(const struct cli *c, struct str request, const struct buf *text)
{
	struct vocab *v;
	char err[512];
	int r = CLI_OK;

	if (!c->tokens && !c->pod)
		return print_text(c, text);
	if (!c->model)
		return cli_fail(c, CLI_USAGE, "--tokens and --pod need --model DIR, for its tokenizer");
	v = vocab_load(c->model, c->cache, err, sizeof(err));
	if (!v)
		return cli_fail(c, CLI_FAILED, "%s", err);
	if (c->tokens)
		r = print_tokens(c, v, text);
	if (r == CLI_OK && c->pod)
		r = ask_pod(c, v, request, text);
	vocab_unref(v);
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

static int load_template(const struct cli *c, struct buf *config, struct source *s)
{
	struct template_error err;
	struct buf text = { 0 };
	char why[512];
	int r;

	if (!c->template) {
		s->model = chat_model_load(c->model, NULL, why, sizeof(why));
		if (s->model)
			return CLI_OK;
		r = errno;
		cli_fail(c, r == ENOTSUP ? CLI_REFUSED : CLI_FAILED, "%s", why);
		return r == ENOTSUP ? EXIT_REFUSED : CLI_FAILED;
	}
	r = cli_read_file(c, c->template, FILE_MAX, &text);
	if (r == CLI_OK)
		r = load_tokens(c, config, &s->tokens);
	if (r == CLI_OK) {
		s->t = template_compile(buf_str(&text), &err);
		if (!s->t) {
			cli_fail(c, CLI_REFUSED, "%s:%u:%u: %s", c->template, err.line, err.col, err.text);
			r = EXIT_REFUSED;
		}
	}
	buf_free(&text);
	return r;
}

int model_render(struct cli *c, int argc, char **argv)
{
	struct buf config = { 0 }, request = { 0 }, text = { 0 };
	struct source s = { 0 };
	struct chat_in in = { 0 };
	enum chat_api api = CHAT_COMPLETIONS;
	int r;

	if (!c->template && !c->model)
		return cli_fail(c, CLI_USAGE, "--template FILE is needed, or --model DIR");
	r = api_of(c, &api);
	if (r == CLI_OK && c->pod && api != CHAT_COMPLETIONS)
		r = cli_fail(c, CLI_USAGE, "--pod: /tokenize takes chats only");
	if (r == CLI_OK)
		r = load_template(c, &config, &s);
	if (r == CLI_OK)
		r = cli_read_file(c, argv[0], FILE_MAX, &request);
	if (r == CLI_OK) {
		in = (struct chat_in){ .request = buf_str(&request), .api = api, .tokens = s.tokens };
		s.tools = s.model && has_tools(in.request);
		set_clock(&in);
		r = render(c, &s, &in, &text);
	}
	if (r == CLI_OK)
		r = show(c, buf_str(&request), &text);
	template_unref(s.t);
	chat_tokens_free(s.tokens);
	chat_model_free(s.model);
	buf_free(&config);
	buf_free(&request);
	buf_free(&text);
	return r;
}
