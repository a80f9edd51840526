/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection carries one request at a time and goes back to its target's idle list when the answer is complete and
 * the server keeps it. Everything that comes is checked: the head, the chunks, the events up to [DONE], and that
 * nothing follows.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/time.h"
#include "load.h"

#define READ_SIZE 65536
#define WHOLE_MAX (16u << 20)

struct client {
	struct list link; /* active or idle */
	struct worker *w;
	unsigned target;
	struct loop_fd io;
	bool connected, reused;
	struct due *d;
	struct buf out, in, body; /* in: the head; body: an event's bytes so far, or a whole answer */
	size_t scanned;
	bool have_head, keep, done, failed;
	enum http_framing framing;
	unsigned status;
	uint64_t left; /* of Content-Length */
	struct http_chunks chunks;
	uint64_t last, now; /* of the last event; of this read */
	uint32_t events, completion;
};

unsigned client_head_events(const struct load_opts *o)
{
	return (o->chat ? 1 : 0) + 2; /* the role; usage and [DONE] */
}

static void client_free(struct client *c)
{
	int fd = c->io.fd;

	list_del(&c->link);
	loop_fd_del(&c->io);
	if (fd >= 0)
		close(fd);
	buf_free(&c->out);
	buf_free(&c->in);
	buf_free(&c->body);
	free(c->d);
	free(c);
}

static struct due *pending_pop(struct worker *w)
{
	struct due *d = w->pending;

	w->pending = d->next;
	if (!w->pending)
		w->pending_end = &w->pending;
	d->next = NULL;
	return d;
}

static void start_pending(struct worker *w)
{
	while (w->nactive < w->o->max_open && w->pending)
		client_start(w, pending_pop(w));
}

/* The request has ended; the connection is kept if it may. */
static void end_request(struct client *c, enum end e)
{
	struct worker *w = c->w;
	uint64_t now = time_mono();

	if (c->d->counted) {
		w->c.end[e]++;
		if (e != END_CUT)
			lhist_add(&w->c.e2e, now - c->d->at);
		if (e == END_OK)
			w->c.completion_tokens += c->completion;
	}
	free(c->d);
	c->d = NULL;
	w->nactive--;
	list_del(&c->link);
	if (e == END_OK && c->keep && !w->o->no_keep_alive) {
		list_add(&w->idle[c->target], &c->link);
		buf_free(&c->body);
		buf_free(&c->out);
	} else {
		client_free(c);
	}
}

/* … and what waited for its end begins. */
static void finish(struct client *c, enum end e)
{
	struct worker *w = c->w;

	end_request(c, e);
	if (e == END_OK)
		arrive_next_stream(w);
	else
		w->lost++; /* a server that refuses must not make us spin */
	start_pending(w);
}

/* --- what came --- */

static bool find_u32(struct str s, const char *key, uint32_t *ret)
{
	const char *p = memmem(s.p, s.n, key, strlen(key)), *end = s.p + s.n;
	uint64_t v = 0;

	if (!p)
		return false;
	p += strlen(key);
	if (p == end || *p < '0' || *p > '9')
		return false;
	for (; p < end && *p >= '0' && *p <= '9'; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	*ret = (uint32_t)v;
	return true;
}

static void take_usage(struct client *c, struct str s)
{
	struct counts *n = &c->w->c;
	const char *u = memmem(s.p, s.n, "\"usage\":{", 9);
	uint32_t prompt = 0, cached = 0;

	if (!u)
		return;
	s = (struct str){ u, s.n - (size_t)(u - s.p) };
	find_u32(s, "\"completion_tokens\":", &c->completion);
	if (!c->d->counted)
		return;
	if (find_u32(s, "\"prompt_tokens\":", &prompt))
		n->prompt_tokens += prompt;
	if (find_u32(s, "\"cached_tokens\":", &cached)) {
		n->cached_tokens += cached;
		n->cached_known += prompt;
	}
}

static void take_stamp(struct client *c, struct str s)
{
	const char *p = memmem(s.p, s.n, "\"kvsim_ns\":", 11);
	uint64_t at = p ? strtoull(p + 11, NULL, 10) : 0; /* the event ends with a line feed */

	if (at && at <= c->now)
		lhist_add(&c->w->c.chunk, c->now - at);
}

static void take_event(struct client *c, struct str s)
{
	struct counts *n = &c->w->c;

	if (!str_starts(s, STR("data: ")))
		return; /* a comment */
	c->events++;
	if (c->done)
		c->failed = true; /* something after the end */
	if (str_eq(s, STR("data: [DONE]"))) {
		c->done = true;
		return;
	}
	if (str_starts(s, STR("data: {\"error\":")))
		c->failed = true;
	if (c->d->counted) {
		n->events++;
		if (c->events == 1)
			lhist_add(&n->ttft, c->now - c->d->at);
		else if (!memmem(s.p, s.n, "\"choices\":[],", 13))
			lhist_add(&n->itl, c->now - c->last);
		take_stamp(c, s);
	}
	c->last = c->now;
	take_usage(c, s);
}

/* Body bytes without their framing. */
static void take_data(void *arg, const char *p, size_t n)
{
	struct client *c = arg;

	if (c->status != 200 || !c->w->o->stream) {
		if (buf_len(&c->body) < WHOLE_MAX)
			buf_put(&c->body, p, n);
		return;
	}
	buf_put(&c->body, p, n);
	for (;;) {
		struct str s = buf_str(&c->body);
		const char *e = s.n ? memmem(s.p, s.n, "\n\n", 2) : NULL;

		if (!e)
			return;
		s.n = (size_t)(e - s.p);
		take_event(c, s);
		buf_consume(&c->body, s.n + 2);
	}
}

static void answer_complete(struct client *c)
{
	const struct load_opts *o = c->w->o;
	enum end e = END_OK;

	if (c->status == 429)
		e = END_STATUS_429;
	else if (c->status >= 500)
		e = END_STATUS_5XX;
	else if (c->status != 200)
		e = END_STATUS_4XX;
	else if (o->stream && c->failed)
		e = END_STREAM_ERROR;
	else if (o->stream && (!c->done || buf_len(&c->body)))
		e = END_NO_DONE;
	if (e == END_OK && !o->stream) {
		take_usage(c, buf_str(&c->body));
		if (c->d->counted)
			lhist_add(&c->w->c.ttft, c->now - c->d->at);
	}
	if (e == END_OK && o->exact &&
	    (c->completion != c->d->output || (o->stream && c->events != c->d->output + client_head_events(o))))
		e = END_WRONG_COUNT;
	finish(c, e);
}

static bool take_head(struct client *c)
{
	ssize_t n = http_head_end(buf_str(&c->in), &c->scanned);
	struct http_head h;

	if (n == 0)
		return true;
	if (n < 0 || http_parse_response((struct str){ buf_data(&c->in), (size_t)n }, false, &h, NULL)) {
		finish(c, END_BAD_HEAD);
		return false;
	}
	buf_consume(&c->in, (size_t)n);
	c->scanned = 0;
	if (h.status < 200)
		return take_head(c);
	c->have_head = true;
	c->status = h.status;
	c->framing = h.framing;
	c->keep = h.keep_alive;
	c->left = h.framing == HTTP_LENGTH ? h.length : 0;
	http_chunks_init(&c->chunks);
	return true;
}

/* The bytes in <in>; false: the request has ended. */
static bool take_body(struct client *c)
{
	struct str s = buf_str(&c->in);
	ssize_t n = (ssize_t)s.n;
	bool complete = false;

	switch (c->framing) {
	case HTTP_NO_BODY:
		n = 0;
		complete = true;
		break;
	case HTTP_LENGTH:
		if ((uint64_t)n >= c->left) {
			n = (ssize_t)c->left;
			complete = true;
		}
		c->left -= (uint64_t)n;
		take_data(c, s.p, (size_t)n);
		break;
	case HTTP_CHUNKED:
		n = http_chunks_walk(&c->chunks, s.p, s.n, take_data, c);
		complete = n >= 0 && http_chunks_done(&c->chunks);
		break;
	case HTTP_UNTIL_CLOSE:
		take_data(c, s.p, s.n);
		break;
	}
	if (n < 0) {
		finish(c, END_BAD_FRAMING);
		return false;
	}
	buf_consume(&c->in, (size_t)n);
	if (!complete)
		return true;
	if (buf_len(&c->in)) /* nobody asked for more */
		finish(c, END_BAD_FRAMING);
	else
		answer_complete(c);
	return false;
}

static void peer_gone(struct client *c, bool reset)
{
	if (!c->d) {
		client_free(c); /* was idle */
		return;
	}
	if (!c->have_head)
		finish(c, reset ? END_RESET_BEFORE : END_CLOSED_BEFORE);
	else if (c->framing == HTTP_UNTIL_CLOSE && !reset)
		answer_complete(c);
	else
		finish(c, reset ? END_RESET_MID : END_CLOSED_MID);
}

static void on_readable(struct client *c)
{
	char *to = buf_room(&c->in, READ_SIZE);
	ssize_t n = to ? recv(c->io.fd, to, READ_SIZE, MSG_DONTWAIT) : -1;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || !c->d) {
		peer_gone(c, n < 0);
		return;
	}
	c->now = time_mono();
	c->w->c.bytes_in += (uint64_t)n;
	buf_commit(&c->in, (size_t)n);
	if (!c->have_head && !take_head(c))
		return;
	if (c->have_head && !take_body(c))
		return;
	/* A thousand slow streams should not hold a buffer each. */
	if (!buf_len(&c->in))
		buf_free(&c->in);
}

static bool flush(struct client *c)
{
	ssize_t n = send(c->io.fd, buf_data(&c->out), buf_len(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	if (n > 0) {
		c->w->c.bytes_out += (uint64_t)n;
		buf_consume(&c->out, (size_t)n);
	}
	if (!buf_len(&c->out))
		buf_free(&c->out);
	loop_fd_mod(&c->io, EPOLLIN | (buf_len(&c->out) ? EPOLLOUT : 0));
	return true;
}

static void ready(struct loop_fd *f, uint32_t events)
{
	struct client *c = container_of(f, struct client, io);

	if (!c->connected) {
		if (net_error(f->fd)) {
			finish(c, END_CONNECT);
			return;
		}
		c->connected = true;
	}
	/* An answer that came before the request was all sent is read first; a failed send shows in the read. */
	if (events & EPOLLOUT && buf_len(&c->out) && !flush(c))
		events |= EPOLLIN;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		on_readable(c);
}

static struct client *idle_client(struct worker *w, unsigned target)
{
	list_for_each_safe (it, next, &w->idle[target]) {
		struct client *c = container_of(it, struct client, link);

		if (!net_idle_dead(c->io.fd)) {
			list_del(&c->link);
			return c;
		}
		client_free(c);
	}
	return NULL;
}

static struct client *dial(struct worker *w, unsigned target)
{
	struct client *c = calloc(1, sizeof(*c));
	int fd;

	if (!c)
		return NULL;
	list_init(&c->link);
	c->w = w;
	c->target = target;
	c->io.fd = -1;
	c->io.ready = ready;
	fd = net_dial(&w->o->addr[target]);
	if (fd < 0 || loop_fd_add(w->loop, &c->io, fd, EPOLLIN | EPOLLOUT)) {
		if (fd >= 0)
			close(fd);
		free(c);
		return NULL;
	}
	return c;
}

void client_start(struct worker *w, struct due *d)
{
	unsigned target = (w->turn++ + w->index) % w->o->nurls;
	struct client *c;

	if (w->nactive >= w->o->max_open) {
		*w->pending_end = d;
		w->pending_end = &d->next;
		return;
	}
	c = idle_client(w, target);
	if (c) {
		w->c.reuses++;
		c->have_head = c->done = c->failed = false;
		c->scanned = 0;
		c->events = c->completion = 0;
	} else {
		w->c.dials++;
		c = dial(w, target);
	}
	if (!c) {
		if (d->counted)
			w->c.end[END_CONNECT]++;
		w->lost++;
		free(d);
		return;
	}
	c->d = d;
	w->nactive++;
	list_add_tail(&w->active, &c->link);
	if (arrive_write(w, d, target, &c->out))
		w->err = -ENOMEM;
	if (c->connected && !flush(c))
		peer_gone(c, true);
}

void client_sweep(struct worker *w, uint64_t now)
{
	list_for_each_safe (it, next, &w->active) {
		struct client *c = container_of(it, struct client, link);

		if (now - c->d->at > (uint64_t)(w->o->timeout * 1e9))
			finish(c, END_TIMEOUT);
	}
}

void client_close_all(struct worker *w, uint64_t now)
{
	list_for_each_safe (it, next, &w->active)
		end_request(container_of(it, struct client, link), w->o->streams ? END_CUT : END_UNFINISHED);
	while (w->pending) {
		struct due *d = pending_pop(w);

		if (d->counted) {
			w->c.end[END_UNFINISHED]++;
			lhist_add(&w->c.e2e, now - d->at);
		}
		free(d);
	}
	for (unsigned i = 0; i < w->o->nurls; i++)
		list_for_each_safe (it, next, &w->idle[i])
			client_free(container_of(it, struct client, link));
}
