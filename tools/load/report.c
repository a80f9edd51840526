/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/jw.h"
#include "load.h"

static const double shares[] = { 0.5, 0.9, 0.99, 1 };
static const char *const share_names[] = { "p50", "p90", "p99", "max" };

const char *end_name(enum end e)
{
	static const char *const names[] = {
#define X(id, text) text,
		ENDS(X)
#undef X
	};

	return names[e];
}

static uint64_t errors(const struct counts *c)
{
	uint64_t n = 0;

	for (unsigned e = END_CONNECT; e < END_N; e++)
		n += c->end[e];
	return n;
}

/* As docs: at least 97 % of what was due was done, with at most 0.5 % errors. */
static bool carried(const struct counts *c)
{
	uint64_t done = c->end[END_OK] + c->end[END_CUT];

	return c->due && (double)done >= 0.97 * (double)c->due && (double)errors(c) <= 0.005 * (double)c->due;
}

static void row(const char *name, const struct lhist *h)
{
	if (!h->n)
		return;
	printf("%-10s %10llu", name, (unsigned long long)h->n);
	for (unsigned i = 0; i < 4; i++)
		printf(" %10.3f", (double)lhist_quantile(h, shares[i]) * 1e-6);
	printf(" %10.3f\n", h->sum / (double)h->n * 1e-6);
}

void report_text(const struct load_opts *o, const struct counts *c, double wall, double cpu)
{
	uint64_t bad = errors(c);

	printf("requests   %llu due, %llu complete, %llu cut at the end, %llu errors; %.1f/s; carried: %s\n",
	       (unsigned long long)c->due, (unsigned long long)c->end[END_OK], (unsigned long long)c->end[END_CUT],
	       (unsigned long long)bad, (double)c->end[END_OK] / wall, carried(c) ? "yes" : "no");
	for (unsigned e = END_CONNECT; e < END_N; e++)
		if (c->end[e])
			printf("           %llu × %s\n", (unsigned long long)c->end[e], end_name(e));
	printf("\n%-10s %10s %10s %10s %10s %10s %10s\n", "ms", "count", "p50", "p90", "p99", "max", "mean");
	row("TTFT", &c->ttft);
	row("ITL", &c->itl);
	row("E2E", &c->e2e);
	row("chunk", &c->chunk);
	printf("\ntokens     %llu prompt", (unsigned long long)c->prompt_tokens);
	if (c->cached_known)
		printf(" (%.1f %% cached)", 100.0 * (double)c->cached_tokens / (double)c->cached_known);
	printf(", %llu completion; %llu events, %.0f/s\n", (unsigned long long)c->completion_tokens,
	       (unsigned long long)c->events, (double)c->events / wall);
	printf("wire       %.1f MB out, %.1f MB in; %llu connections dialed, %llu reused\n",
	       (double)c->bytes_out * 1e-6, (double)c->bytes_in * 1e-6, (unsigned long long)c->dials,
	       (unsigned long long)c->reuses);
	printf("kvload     %.2f s, %.2f cores\n", wall, cpu / wall);
}

static void json_row(struct jw *w, const char *name, const struct lhist *h)
{
	jw_key(w, name);
	jw_obj(w);
	jw_ku64(w, "count", h->n);
	for (unsigned i = 0; i < 4; i++)
		jw_knum(w, share_names[i], (double)lhist_quantile(h, shares[i]) * 1e-6);
	jw_knum(w, "mean", h->n ? h->sum / (double)h->n * 1e-6 : 0);
	jw_end_obj(w);
}

int report_json(const struct load_opts *o, const struct counts *c, double wall, double cpu)
{
	struct buf b = { 0 };
	struct jw w;
	int r;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_ku64(&w, "due", c->due);
	jw_ku64(&w, "complete", c->end[END_OK]);
	jw_ku64(&w, "cut", c->end[END_CUT]);
	jw_ku64(&w, "errors", errors(c));
	jw_kbool(&w, "carried", carried(c));
	jw_key(&w, "errors_by_kind");
	jw_obj(&w);
	for (unsigned e = END_CONNECT; e < END_N; e++)
		if (c->end[e])
			jw_ku64(&w, end_name(e), c->end[e]);
	jw_end_obj(&w);
	json_row(&w, "ttft_ms", &c->ttft);
	json_row(&w, "itl_ms", &c->itl);
	json_row(&w, "e2e_ms", &c->e2e);
	json_row(&w, "chunk_ms", &c->chunk);
	jw_ku64(&w, "prompt_tokens", c->prompt_tokens);
	jw_ku64(&w, "cached_tokens", c->cached_tokens);
	jw_knum(&w, "cached_share", c->cached_known ? (double)c->cached_tokens / (double)c->cached_known : 0);
	jw_ku64(&w, "completion_tokens", c->completion_tokens);
	jw_ku64(&w, "events", c->events);
	jw_ku64(&w, "bytes_out", c->bytes_out);
	jw_ku64(&w, "bytes_in", c->bytes_in);
	jw_ku64(&w, "dialed", c->dials);
	jw_ku64(&w, "reused", c->reuses);
	jw_knum(&w, "seconds", wall);
	jw_knum(&w, "cores", cpu / wall);
	jw_end_obj(&w);
	r = jw_err(&w);
	if (!r)
		printf("%.*s\n", (int)buf_len(&b), buf_data(&b));
	buf_free(&b);
	return r;
}
