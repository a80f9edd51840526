/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/time.h"
#include "load.h"

enum kind { STRING, U32, U64, NUMBER, SWITCH, URL, HEADER };

struct opt {
	const char *name, *metavar, *deflt;
	enum kind kind;
	size_t at;
	const char *help;
};

static bool want_help;

#define AT(member) offsetof(struct load_opts, member)

static const struct opt table[] = {
	{ "url", "http://HOST:PORT", NULL, URL, 0, "where to; repeated: in turns (pods, directly)" },
	{ "endpoint", "completions|chat", "completions", STRING, AT(endpoint), "" },
	{ "model", "NAME", "kvsim", STRING, AT(model), "" },
	{ "rate", "N", "10", NUMBER, AT(rate), "requests a second, Poisson" },
	{ "duration", "S", "10", NUMBER, AT(duration), "how long requests become due" },
	{ "requests", "N", "0", U32, AT(requests), "at most so many; 0: no limit" },
	{ "streams", "N", "0", U32, AT(streams), "instead of --rate: so many streams at once, each started again" },
	{ "ramp", "S", "1", NUMBER, AT(ramp), "over which --streams start" },
	{ "trace", "FILE", NULL, STRING, AT(trace_file), "instead of --rate: Mooncake's JSON lines; -: stdin" },
	{ "trace-speed", "X", "1", NUMBER, AT(trace_speed), "how much faster than recorded" },
	{ "trace-block", "TOKENS", "512", U32, AT(trace_block), "tokens that a hash id stands for" },
	{ "bytes-per-token", "N", "1", U32, AT(bytes_per_token),
	  "text made for a trace's token; kvsim's tokens are bytes" },
	{ "prompt-bytes", "N", "1024", U32, AT(prompt_bytes), "" },
	{ "shared-prefix", "N", "0", U32, AT(shared_prefix), "bytes of the prompt that others have too" },
	{ "prefixes", "N", "1", U32, AT(prefixes), "how many different shared prefixes" },
	{ "output-tokens", "N", "16", U32, AT(output_tokens), "" },
	{ "stream", NULL, "true", SWITCH, AT(stream), "--stream=false: whole answers" },
	{ "cache-salt", "TEXT", NULL, STRING, AT(salt), "" },
	{ "header", "NAME: VALUE", NULL, HEADER, 0, "may be repeated" },
	{ "exact", NULL, "false", SWITCH, AT(exact), "each answer must have one event for each token asked (kvsim)" },
	{ "threads", "N", "1", U32, AT(threads), "" },
	{ "max-open", "N", "20000", U32, AT(max_open),
	  "requests under way in a thread; more wait, from their due time" },
	{ "no-keep-alive", NULL, "false", SWITCH, AT(no_keep_alive), "a connection for each request" },
	{ "warmup", "S", "0", NUMBER, AT(warmup), "what is due before is not counted" },
	{ "grace", "S", "10", NUMBER, AT(grace), "wait for answers after --duration; the rest counts as unfinished" },
	{ "timeout", "S", "300", NUMBER, AT(timeout), "of a request, from its due time" },
	{ "seed", "N", "1", U64, AT(seed), "" },
	{ "json", NULL, "false", SWITCH, AT(json), "" },
};
#define NOPTS (sizeof(table) / sizeof(table[0]))

static void help(void)
{
	printf("usage: kvload --url http://HOST:PORT [option…]\n\n"
	       "Open-loop load for an OpenAI API: latencies count from when a request was due. Each answer is "
	       "checked:\n"
	       "head, framing, events, [DONE]. Exit 0 if nothing failed, 1 if something did, 2 for a wrong "
	       "option.\n\n");
	for (size_t i = 0; i < NOPTS; i++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", table[i].name, table[i].metavar ? " " : "",
			 table[i].metavar ? table[i].metavar : "");
		printf("  %-30s %s", left, table[i].help);
		if (table[i].deflt)
			printf("%s(%s)", *table[i].help ? " " : "", table[i].deflt);
		putchar('\n');
	}
}

static int set_url(struct load_opts *o, const char *s)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *ai;
	char host[256], port[16] = "80";
	const char *p = s, *end, *colon;
	unsigned i = o->nurls;
	int r;

	if (!strncmp(p, "http://", 7))
		p += 7;
	else if (strstr(p, "://"))
		return -EINVAL;
	end = p + strcspn(p, "/");
	if (i == TARGETS_MAX || end == p || (size_t)(end - p) >= sizeof(o->host[i]))
		return -EINVAL;
	memcpy(o->host[i], p, (size_t)(end - p));
	colon = *p == '[' ? memchr(p, ']', (size_t)(end - p)) : p;
	if (!colon)
		return -EINVAL;
	snprintf(host, sizeof(host), "%.*s", *p == '[' ? (int)(colon - p - 1) : (int)strcspn(o->host[i], ":"),
		 *p == '[' ? p + 1 : p);
	colon = memchr(colon, ':', (size_t)(end - colon));
	if (colon)
		snprintf(port, sizeof(port), "%.*s", (int)(end - colon - 1), colon + 1);
	r = getaddrinfo(host, port, &hints, &ai);
	if (r) {
		fprintf(stderr, "kvload: %s: %s\n", host, gai_strerror(r));
		return -EINVAL;
	}
	o->addr[i].len = ai->ai_addrlen;
	memcpy(&o->addr[i].sa, ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(ai);
	o->url[o->nurls++] = s;
	return 0;
}

static int set(struct load_opts *o, const struct opt *t, const char *s)
{
	char *at = (char *)o + t->at, *end;
	uint64_t v;

	switch (t->kind) {
	case STRING:
		*(const char **)at = s;
		return 0;
	case U32:
	case U64:
		if (str_u64(str_of(s), &v) || (t->kind == U32 && v > UINT32_MAX))
			return -EINVAL;
		if (t->kind == U32)
			*(uint32_t *)at = (uint32_t)v;
		else
			*(uint64_t *)at = v;
		return 0;
	case NUMBER:
		*(double *)at = strtod(s, &end);
		return end == s || *end || !(*(double *)at >= 0) ? -EINVAL : 0;
	case SWITCH:
		*(bool *)at = !strcmp(s, "true");
		return strcmp(s, "true") != 0 && strcmp(s, "false") != 0 ? -EINVAL : 0;
	case URL:
		return set_url(o, s);
	case HEADER:
		if (o->nheaders == HEADERS_MAX || !strchr(s, ':'))
			return -EINVAL;
		o->header[o->nheaders++] = s;
		return 0;
	}
	return -EINVAL;
}

static int parse(struct load_opts *o, int argc, char **argv)
{
	for (size_t i = 0; i < NOPTS; i++)
		if (table[i].deflt)
			set(o, &table[i], table[i].deflt);
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *value = strchr(a, '=');
		size_t n = value ? (size_t)(value - a) : strlen(a);
		const struct opt *t = NULL;

		if (!strcmp(a, "--help") || !strcmp(a, "-h")) {
			want_help = true;
			return 0;
		}
		for (size_t k = 0; k < NOPTS && n > 2; k++)
			if (!strncmp(a, "--", 2) && strlen(table[k].name) == n - 2 &&
			    !strncmp(a + 2, table[k].name, n - 2))
				t = &table[k];
		if (!t) {
			fprintf(stderr, "kvload: unknown option %s; see --help\n", a);
			return -EINVAL;
		}
		value = value ? value + 1 : t->kind == SWITCH ? "true" : i + 1 < argc ? argv[++i] : NULL;
		if (!value || set(o, t, value)) {
			fprintf(stderr, "kvload: --%s: \"%s\" is no %s\n", t->name, value ? value : "",
				t->metavar ? t->metavar : "true or false");
			return -EINVAL;
		}
	}
	o->chat = !strcmp(o->endpoint, "chat");
	if (!o->nurls || (!o->chat && strcmp(o->endpoint, "completions") != 0) || !o->threads || o->threads > 256 ||
	    !o->prefixes || !o->trace_speed || !o->output_tokens || !o->max_open || !o->rate) {
		fprintf(stderr, "kvload: wanted: --url, an --endpoint completions or chat, and numbers above 0\n");
		return -EINVAL;
	}
	return 0;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	w->loop = loop_new();
	if (!w->loop) {
		w->err = -errno;
		return NULL;
	}
	w->err = arrive_start(w);
	if (!w->err)
		w->err = loop_run(w->loop);
	arrive_stop(w);
	loop_free(w->loop);
	return NULL;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void add(struct counts *to, const struct counts *from)
{
	to->due += from->due;
	for (unsigned e = 0; e < END_N; e++)
		to->end[e] += from->end[e];
	to->bytes_in += from->bytes_in;
	to->bytes_out += from->bytes_out;
	to->events += from->events;
	to->dials += from->dials;
	to->reuses += from->reuses;
	to->prompt_tokens += from->prompt_tokens;
	to->cached_tokens += from->cached_tokens;
	to->completion_tokens += from->completion_tokens;
	to->cached_known += from->cached_known;
	lhist_merge(&to->ttft, &from->ttft);
	lhist_merge(&to->itl, &from->itl);
	lhist_merge(&to->e2e, &from->e2e);
	lhist_merge(&to->chunk, &from->chunk);
}

static int run(const struct load_opts *o, const struct trace *t, struct worker *w, struct counts *sum)
{
	uint64_t start = time_mono() + 10 * NS_PER_MS;
	pthread_t *th = calloc(o->threads, sizeof(*th));
	int r = th ? 0 : -ENOMEM;
	unsigned n;

	for (n = 0; !r && n < o->threads; n++) {
		w[n].o = o;
		w[n].trace = t;
		w[n].index = n;
		w[n].clock.fd = -1;
		w[n].rng.s = mix64(o->seed + n);
		w[n].start = start;
		w[n].stop = start + (uint64_t)(o->duration * 1e9);
		w[n].end = w[n].stop + (uint64_t)(o->grace * 1e9);
		w[n].pending_end = &w[n].pending;
		list_init(&w[n].active);
		for (unsigned i = 0; i < TARGETS_MAX; i++)
			list_init(&w[n].idle[i]);
		r = -pthread_create(&th[n], NULL, work, &w[n]);
		if (r)
			break;
	}
	while (n--) {
		pthread_join(th[n], NULL);
		add(sum, &w[n].c);
		r = r ? r : w[n].err;
	}
	free(th);
	return r;
}

int main(int argc, char **argv)
{
	static struct load_opts o;
	static struct counts sum;
	struct rlimit files;
	struct trace t = { 0 };
	struct worker *w;
	char err[256];
	uint64_t start;
	double cpu, wall;
	int r;

	if (parse(&o, argc, argv))
		return 2;
	if (want_help) {
		help();
		return 0;
	}
	if (o.trace_file && trace_load(o.trace_file, &t, err, sizeof(err))) {
		fprintf(stderr, "kvload: %s\n", err);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	w = calloc(o.threads, sizeof(*w));
	start = time_mono();
	cpu = cpu_seconds();
	r = w ? run(&o, &t, w, &sum) : -ENOMEM;
	wall = (double)(time_mono() - start) * 1e-9;
	cpu = cpu_seconds() - cpu;
	if (r)
		fprintf(stderr, "kvload: %s\n", strerror(-r));
	if (o.json)
		report_json(&o, &sum, wall, cpu);
	else
		report_text(&o, &sum, wall, cpu);
	free(w);
	trace_free(&t);
	for (unsigned e = END_CONNECT; e < END_N; e++)
		if (sum.end[e])
			return 1;
	return r ? 1 : 0;
}
