/* SPDX-License-Identifier: Apache-2.0
 *
 * Three sources of due times: a Poisson process, a trace, or a closed set of streams. A due time never depends on how
 * the requests before went; what the client is late counts into the request's latency.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/time.h"
#include "load.h"

/* --- traces: Mooncake's JSON lines --- */

/* Room for one more request with <nids> ids. */
static int trace_room(struct trace *t, uint32_t nids, uint32_t *cap, uint32_t *cap_ids)
{
	if (t->n == *cap) {
		uint32_t n = *cap ? 2 * *cap : 1024;
		struct trace_req *v = realloc(t->v, n * sizeof(*v));

		if (!v)
			return -ENOMEM;
		t->v = v;
		*cap = n;
	}
	if (!t->ids || t->nids + nids > *cap_ids) {
		uint32_t n = 2 * (t->nids + nids) + 64;
		uint32_t *v = realloc(t->ids, n * sizeof(*v));

		if (!v)
			return -ENOMEM;
		t->ids = v;
		*cap_ids = n;
	}
	return 0;
}

static int trace_line(struct trace *t, const char *line, uint32_t *cap, uint32_t *cap_ids)
{
	json_t *j = json_loads(line, 0, NULL), *ids = json_object_get(j, "hash_ids"), *v;
	struct trace_req *r;
	size_t i;

	if (!json_is_number(json_object_get(j, "timestamp")) || !json_is_integer(json_object_get(j, "input_length"))) {
		json_decref(j);
		return -EINVAL;
	}
	if (trace_room(t, (uint32_t)json_array_size(ids), cap, cap_ids)) {
		json_decref(j);
		return -ENOMEM;
	}
	r = &t->v[t->n++];
	r->at_ns = (uint64_t)(json_number_value(json_object_get(j, "timestamp")) * 1e6);
	r->input = (uint32_t)json_integer_value(json_object_get(j, "input_length"));
	r->output = (uint32_t)json_integer_value(json_object_get(j, "output_length"));
	r->first_id = t->nids;
	r->nids = (uint32_t)json_array_size(ids);
	json_array_foreach(ids, i, v) t->ids[t->nids++] = (uint32_t)json_integer_value(v);
	json_decref(j);
	return 0;
}

int trace_load(const char *path, struct trace *ret, char *err, size_t err_len)
{
	bool file = strcmp(path, "-") != 0;
	FILE *f = file ? fopen(path, "r") : stdin;
	uint32_t cap = 0, cap_ids = 0;
	char *line = NULL;
	size_t n = 0;
	int r = 0;

	*ret = (struct trace){ 0 };
	if (!f) {
		snprintf(err, err_len, "%s: %s", path, strerror(errno));
		return -errno;
	}
	while (!r && getline(&line, &n, f) > 0)
		if (line[0] != '\n')
			r = trace_line(ret, line, &cap, &cap_ids);
	if (!r && !ret->n)
		r = -EINVAL;
	if (r)
		snprintf(err, err_len,
			 "%s:%u: no line with timestamp and input_length (for .gz: zcat FILE | kvload --trace -)", path,
			 ret->n + 1);
	free(line);
	if (file)
		fclose(f);
	if (r)
		trace_free(ret);
	return r;
}

void trace_free(struct trace *t)
{
	free(t->v);
	free(t->ids);
	*t = (struct trace){ 0 };
}

/* --- when --- */

static void arm(struct worker *w, uint64_t at)
{
	struct itimerspec t = { .it_value = { .tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S) } };

	timerfd_settime(w->clock.fd, TFD_TIMER_ABSTIME, &t, NULL);
}

/* The trace's next request of this worker: they take turns. */
static const struct trace_req *trace_next(const struct worker *w)
{
	uint64_t i = (uint64_t)w->next_trace * w->o->threads + w->index;

	return i < w->trace->n ? &w->trace->v[i] : NULL;
}

static uint64_t trace_due(const struct worker *w, const struct trace_req *r)
{
	return w->start + (uint64_t)((double)(r->at_ns - w->trace->v[0].at_ns) / w->o->trace_speed);
}

static void plan(struct worker *w)
{
	const struct trace_req *r;

	if (w->o->streams) { /* their first start, spread over the ramp */
		uint32_t mine = w->o->streams / w->o->threads + (w->index < w->o->streams % w->o->threads);

		w->next_due =
			w->made < mine ? w->start + (uint64_t)(w->o->ramp * 1e9 * (double)w->made / mine) : UINT64_MAX;
	} else if (w->trace->n) {
		r = trace_next(w);
		w->next_due = r ? trace_due(w, r) : UINT64_MAX;
	} else {
		w->next_due += (uint64_t)(-log(1 - rng_unit(&w->rng)) * 1e9 * w->o->threads / w->o->rate);
		if (w->o->requests && w->made * w->o->threads + w->index >= w->o->requests)
			w->next_due = UINT64_MAX;
	}
	if (w->next_due >= w->stop)
		w->next_due = UINT64_MAX;
}

static void issue(struct worker *w, uint64_t at)
{
	struct due *d = calloc(1, sizeof(*d));

	if (!d) {
		w->err = -ENOMEM;
		return;
	}
	d->at = at;
	d->unique = mix64(w->o->seed ^ mix64(((uint64_t)w->index << 40) + w->made + 1));
	d->prefix = (uint32_t)rng_below(&w->rng, w->o->prefixes);
	d->output = w->o->output_tokens;
	d->counted = at >= w->start + (uint64_t)(w->o->warmup * 1e9);
	if (w->trace->n && !w->o->streams) {
		d->trace = trace_next(w);
		d->output = d->trace->output ? d->trace->output : 1;
		w->next_trace++;
	}
	w->made++;
	if (d->counted)
		w->c.due++;
	client_start(w, d);
}

void arrive_next_stream(struct worker *w)
{
	uint64_t now = time_mono();

	if (w->o->streams && now < w->stop)
		issue(w, now);
}

static void due_ready(struct loop_fd *f, uint32_t events)
{
	struct worker *w = container_of(f, struct worker, clock);
	uint64_t n;

	if (read(f->fd, &n, sizeof(n)) < 0)
		return;
	while (w->next_due <= time_mono()) {
		issue(w, w->next_due);
		plan(w);
	}
	if (w->next_due != UINT64_MAX)
		arm(w, w->next_due);
}

static bool idle_now(const struct worker *w)
{
	return w->next_due == UINT64_MAX && !w->nactive && !w->pending && !w->o->streams;
}

static void sweep(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, sweep);
	uint64_t now = time_mono();
	/* Streams that are open when the time is over are cut; requests of an open loop get the grace. */
	uint64_t end = w->o->streams ? w->stop : w->end;

	client_sweep(w, now);
	for (uint32_t n = w->lost; n; n--, w->lost--)
		arrive_next_stream(w);
	if (now >= end || idle_now(w)) {
		client_close_all(w, now);
		loop_stop(w->loop);
		return;
	}
	loop_timer_set(w->loop, &w->sweep, now + 20 * NS_PER_MS);
}

int arrive_start(struct worker *w)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	w->clock.ready = due_ready;
	r = loop_fd_add(w->loop, &w->clock, fd, EPOLLIN);
	if (r) {
		close(fd);
		return r;
	}
	loop_timer_init(&w->sweep, sweep);
	loop_timer_set(w->loop, &w->sweep, w->start + 20 * NS_PER_MS);
	w->next_due = w->start;
	plan(w);
	if (w->next_due != UINT64_MAX)
		arm(w, w->next_due);
	return 0;
}

void arrive_stop(struct worker *w)
{
	int fd = w->clock.fd;

	loop_timer_del(w->loop, &w->sweep);
	loop_fd_del(&w->clock);
	if (fd >= 0)
		close(fd);
}

/* --- what --- */

/* About <n> bytes of text as it stands in JSON, the same for the same seed: words, some escapes, some UTF-8. */
static void put_text(struct buf *b, uint64_t seed, size_t n)
{
	static const char *const words[] = {
		"time ",    "and ",   "tide ",	"wait ", "for ",	  "no ",    "man ",  "\\n",
		"however ", "much ",  "he ",	"may ",	 "\\\"want\\\" ", "it ",    "élan ", "token ",
		"prefix ",  "cache ", "block ", "of ",	 "water ",	  "over ",  "the ",  "dam ",
		"when ",    "all ",   "is ",	"said ", "and ",	  "done. ", "\\t",   "日本 ",
	};
	static const char pad[] = "................"; /* longer than any word */
	struct rng r = { seed };
	size_t done = 0;

	while (done < n) {
		uint64_t bits = rng_next(&r);

		for (int i = 0; i < 12 && done < n; i++, bits >>= 5) {
			const char *w = words[bits & 31];
			size_t len = strlen(w);

			if (len > n - done) {
				w = &pad[sizeof(pad) - 1 - (n - done)];
				len = n - done;
			}
			buf_put(b, w, len);
			/* What counts is the text's length, not the escapes'. */
			done += len - (w[0] == '\\' ? (len > 2 ? 2 : 1) : 0);
		}
	}
}

static void put_trace_text(const struct worker *w, const struct due *d, struct buf *b)
{
	const struct trace_req *t = d->trace;
	size_t left = (size_t)t->input * w->o->bytes_per_token;
	size_t block = (size_t)w->o->trace_block * w->o->bytes_per_token;

	for (uint32_t i = 0; i < t->nids && left; i++) {
		size_t n = left < block ? left : block;

		put_text(b, mix64(w->o->seed ^ (w->trace->ids[t->first_id + i] + UINT64_C(0x100000000))), n);
		left -= n;
	}
	if (left)
		put_text(b, d->unique, left);
}

int arrive_write(const struct worker *w, const struct due *d, unsigned target, struct buf *out)
{
	const struct load_opts *o = w->o;
	uint32_t shared = o->shared_prefix < o->prompt_bytes ? o->shared_prefix : o->prompt_bytes;
	struct buf b = { 0 };
	int r;

	buf_printf(&b, "{\"model\":\"%s\",", o->model);
	buf_puts(&b, o->chat ? "\"messages\":[{\"role\":\"system\",\"content\":\"" : "\"prompt\":\"");
	if (d->trace) {
		put_trace_text(w, d, &b);
		if (o->chat)
			buf_puts(&b, "\"},{\"role\":\"user\",\"content\":\"go on");
	} else {
		put_text(&b, mix64(o->seed ^ (d->prefix + 1)), shared);
		if (o->chat)
			buf_puts(&b, "\"},{\"role\":\"user\",\"content\":\"");
		put_text(&b, d->unique, o->prompt_bytes - shared);
	}
	buf_puts(&b, o->chat ? "\"}]" : "\"");
	buf_printf(&b, ",\"max_tokens\":%u,\"temperature\":0,\"ignore_eos\":true", d->output);
	if (o->salt)
		buf_printf(&b, ",\"cache_salt\":\"%s\"", o->salt);
	if (o->stream)
		buf_puts(&b, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
	buf_puts(&b, "}");

	buf_printf(out, "POST /v1/%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n",
		   o->chat ? "chat/completions" : "completions", o->host[target], buf_len(&b));
	for (unsigned i = 0; i < o->nheaders; i++)
		buf_printf(out, "%s\r\n", o->header[i]);
	buf_puts(out, "\r\n");
	r = buf_put(out, buf_data(&b), buf_len(&b));
	buf_free(&b);
	return r;
}
