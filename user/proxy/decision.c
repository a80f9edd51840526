/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "proxy/proxy_int.h"

static size_t record_size(const struct decision *d)
{
	return sizeof(*d) + d->nrows * sizeof(d->rows[0]);
}

static struct decision *slot(struct proxy *px, uint64_t serial)
{
	return (struct decision *)(void *)(px->ring + serial % px->ring_cap * DECISION_SIZE);
}

void decision_store(struct proxy *px, const struct decision *d)
{
	pthread_mutex_lock(&px->ring_lock);
	memcpy(slot(px, ++px->ring_serial), d, record_size(d));
	pthread_mutex_unlock(&px->ring_lock);
}

int proxy_decision(struct proxy *px, struct str request, struct decision *ret)
{
	int r = -ENOENT;

	pthread_mutex_lock(&px->ring_lock);
	for (uint64_t s = px->ring_serial; s && s + px->ring_cap > px->ring_serial; s--) {
		const struct decision *d = slot(px, s);

		if (str_eq(str_of(d->request), request)) {
			memcpy(ret, d, record_size(d));
			r = 0;
			break;
		}
	}
	pthread_mutex_unlock(&px->ring_lock);
	return r;
}

int proxy_next_decision(struct proxy *px, uint64_t *after, struct decision *ret)
{
	uint64_t s;
	int r = 0;

	pthread_mutex_lock(&px->ring_lock);
	s = *after + 1;
	if (s + px->ring_cap <= px->ring_serial)
		s = px->ring_serial - px->ring_cap + 1;
	if (s <= px->ring_serial) {
		memcpy(ret, slot(px, s), record_size(slot(px, s)));
		*after = s;
		r = 1;
	}
	pthread_mutex_unlock(&px->ring_lock);
	return r;
}

uint64_t proxy_decision_serial(struct proxy *px)
{
	uint64_t s;

	pthread_mutex_lock(&px->ring_lock);
	s = px->ring_serial;
	pthread_mutex_unlock(&px->ring_lock);
	return s;
}

static void write_time(struct jw *w, uint64_t wall)
{
	time_t s = (time_t)(wall / NS_PER_S);
	char day[32], text[48];
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%03uZ", day, (unsigned)(wall % NS_PER_S / NS_PER_MS));
	jw_kstr(w, "time", text);
}

void decision_write(const struct decision *d, struct jw *w)
{
	jw_obj(w);
	write_time(w, d->wall_ns);
	jw_kstr(w, "request", d->request);
	jw_kstr(w, "model", d->model);
	jw_kstr(w, "policy", d->policy);
	jw_kstr(w, "mode", sched_mode_name(d->mode));
	jw_ku64(w, "prompt_tokens", d->prompt_tokens);
	jw_ku64(w, "predicted_tokens", d->predicted);
	jw_key(w, "reported_tokens");
	if (d->reported_known)
		jw_u64(w, d->reported);
	else
		jw_null(w);
	jw_kstr(w, "pod", d->pod);
	jw_ku64(w, "attempts", d->attempts);
	jw_ku64(w, "status", d->status);
	jw_knum(w, "ttft_ms", (double)d->ttft_ns / 1e6);
	jw_knum(w, "duration_ms", (double)d->duration_ns / 1e6);
	jw_kstr(w, "carrier", d->carrier ? d->carrier : "relay");
	jw_ku64(w, "spliced_bytes", d->spliced_bytes);
	jw_knum(w, "longest_gap_ms", d->spliced_bytes ? (double)d->gap_ns / 1e6 : NAN);
	jw_knum(w, "decision_us", (double)d->decide_ns / 1e3);
	jw_kstr(w, "end", d->end);
	jw_key(w, "candidates");
	jw_arr(w);
	for (unsigned i = 0; i < d->nrows; i++) {
		const struct decision_row *r = &d->rows[i];

		jw_obj(w);
		jw_kstr(w, "pod", r->pod);
		jw_ku64(w, "matched_tokens", r->matched);
		jw_ku64(w, "cpu_tokens", r->in_cpu);
		jw_ku64(w, "disk_tokens", r->in_disk);
		jw_ku64(w, "uncached", r->uncached);
		jw_knum(w, "backlog", (double)r->backlog);
		jw_knum(w, "own", (double)r->own);
		jw_ku64(w, "inflight", r->inflight);
		jw_ku64(w, "waiting", r->waiting);
		jw_knum(w, "cost", (double)r->cost);
		jw_kbool(w, "doubted", r->doubted);
		jw_knum(w, "recent_ttft_ms", (double)r->ttft * 1e3);
		jw_knum(w, "recent_gap_ms", (double)r->gap * 1e3);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	jw_ku64(w, "pods", d->npods);
	jw_end_obj(w);
}

void decision_write_header(const struct decision *d, struct jw *w)
{
	jw_obj(w);
	jw_kstr(w, "request", d->request);
	jw_kstr(w, "model", d->model);
	jw_kstr(w, "policy", d->policy);
	jw_kstr(w, "mode", sched_mode_name(d->mode));
	jw_ku64(w, "prompt_tokens", d->prompt_tokens);
	jw_ku64(w, "predicted_tokens", d->predicted);
	jw_kstr(w, "pod", d->pod);
	jw_key(w, "candidates");
	jw_arr(w);
	for (unsigned i = 0; i < d->nrows; i++) {
		jw_obj(w);
		jw_kstr(w, "pod", d->rows[i].pod);
		jw_ku64(w, "matched_tokens", d->rows[i].matched);
		jw_knum(w, "cost", (double)d->rows[i].cost);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	jw_end_obj(w);
}

/* Scores by address alone where an address names one pod, as operators of llm-d's scorer grep for it. */
static const char *score_name(const struct decision *d, unsigned i)
{
	for (unsigned k = 0; k < d->nrows; k++)
		if (k != i && strcmp(d->rows[k].ip, d->rows[i].ip) == 0)
			return d->rows[i].pod;
	return d->rows[i].ip;
}

void decision_log(const struct decision *d)
{
	struct buf b = { 0 };
	bool any = false;
	struct jw w;

	if (log_level() > LOG_INFO)
		return;
	buf_puts(&b, "Got pod scores ");
	jw_init(&w, &b);
	jw_obj(&w);
	jw_kstr(&w, "x-request-id", d->request);
	jw_kstr(&w, "model", d->model);
	jw_kstr(&w, "resolvedTargetModel", d->base);
	jw_kstr(&w, "criticality", "Standard");
	jw_key(&w, "scores");
	for (unsigned i = 0; i < d->nrows; i++) {
		if (!d->rows[i].blocks)
			continue;
		if (!any)
			jw_obj(&w);
		any = true;
		jw_knum(&w, score_name(d, i), (double)d->rows[i].score);
	}
	if (any)
		jw_end_obj(&w);
	else
		jw_null(&w);
	jw_end_obj(&w);
	if (buf_put(&b, "", 1) == 0)
		log_raw(buf_data(&b));
	buf_free(&b);
}
