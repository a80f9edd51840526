/* SPDX-License-Identifier: Apache-2.0
 *
 * The carrier that is always possible, and the reference of the others: receive from the pod, walk the framing, send to
 * the client. A byte is copied in user space only when the client's socket is full; then nothing more is read from the
 * pod until it has taken it, so a slow reader holds up its pod and costs one receive of memory.
 */
#include <errno.h>
#include <sys/socket.h>

#include "proxy/proxy_int.h"

static void usage_data(void *arg, const char *p, size_t n)
{
	struct request *r = arg;

	usage_watch_feed(&r->usage, p, n);
}

/* HTTP/1.0 clients know no chunks: they get the data, and the close as its end. */
struct dechunk {
	struct request *r;
	int err;
};

static void dechunk_data(void *arg, const char *p, size_t n)
{
	struct dechunk *d = arg;

	usage_watch_feed(&d->r->usage, p, n);
	if (!d->err)
		d->err = client_send(d->r->c, p, n);
}

static void first_byte(struct request *r)
{
	struct worker *w = r->c->w;
	uint64_t now = time_mono();

	r->first_ns = now;
	if (r->usage.sse && r->status < 300)
		ledger_first(&r->charge, now);
	stats_hist_add(&w->sh->ttft[w->id], now - r->arrived_ns);
}

/* Body bytes. 0, -EPIPE (client gone), -EBADMSG (pod's framing is bad). resp_done may be set. */
static int body_bytes(struct request *r, const char *p, size_t n)
{
	struct worker *w = r->c->w;
	struct dechunk d = { .r = r };
	size_t take = n;
	ssize_t k;
	int e;

	if (n && !r->first_ns)
		first_byte(r);
	switch (r->resp_framing) {
	case HTTP_NO_BODY:
		take = 0;
		r->resp_done = true;
		break;
	case HTTP_LENGTH:
		if (take > r->resp_left)
			take = (size_t)r->resp_left;
		r->resp_left -= take;
		r->resp_done = r->resp_left == 0;
		usage_data(r, p, take);
		break;
	case HTTP_CHUNKED:
		k = http_chunks_walk(&r->resp_chunks, p, n, r->dechunk ? dechunk_data : usage_data,
				     r->dechunk ? (void *)&d : r);
		if (k < 0)
			return -EBADMSG;
		take = (size_t)k;
		r->resp_done = http_chunks_done(&r->resp_chunks);
		break;
	case HTTP_UNTIL_CLOSE:
		usage_data(r, p, take);
		break;
	}
	stats_add(w->st, STATS_BYTES_OUT, take);
	if (take < n)
		r->resp_keep = false; /* bytes that belong to no answer: never reuse this connection */
	e = r->dechunk ? d.err : client_send(r->c, p, take);
	if (e)
		return -EPIPE;
	r->resp_started = true;
	return 0;
}

static void put_header(struct buf *b, struct str name, struct str value)
{
	buf_put(b, name.p, name.n);
	buf_put(b, ": ", 2);
	buf_put(b, value.p, value.n);
	buf_put(b, "\r\n", 2);
}

/* What led here is not needed for what may be a long stream. No other leg follows. */
static void slim(struct request *r)
{
	if (r->body_state != BODY_DONE || r->body_sent != buf_len(&r->body) || r->head_sent != buf_len(&r->head))
		return;
	buf_free(&r->head);
	request_free_body(r);
	r->head_sent = r->body_sent = 0;
	if (buf_len(&r->c->in) == 0)
		buf_free(&r->c->in);
}

static void write_head(struct request *r, const struct http_head *h, struct buf *b)
{
	bool has_id = false;
	struct jw w;

	buf_put(b, "HTTP/1.1 ", 9);
	buf_put(b,
		(char[]){ (char)('0' + h->status / 100), (char)('0' + h->status / 10 % 10),
			  (char)('0' + h->status % 10), ' ' },
		4);
	buf_put(b, h->reason.p, h->reason.n);
	buf_put(b, "\r\n", 2);
	for (unsigned i = 0; i < h->nheaders; i++) {
		if (http_hop_by_hop(h, h->headers[i].name))
			continue;
		has_id |= str_ieq(h->headers[i].name, STR("x-request-id"));
		put_header(b, h->headers[i].name, h->headers[i].value);
	}
	if (h->status >= 200) {
		put_header(b, STR("x-kvsteer-pod"), str_of(r->d->pod));
		if (!has_id)
			put_header(b, STR("x-request-id"), str_of(r->d->request));
		if (r->explain) {
			buf_puts(b, "x-kvsteer-decision: ");
			jw_init(&w, b);
			decision_write_header(r->d, &w);
			buf_put(b, "\r\n", 2);
		}
		if (r->resp_framing == HTTP_CHUNKED && !r->dechunk)
			buf_puts(b, "Transfer-Encoding: chunked\r\n");
		if (!r->keep_alive || r->dechunk || r->resp_framing == HTTP_UNTIL_CLOSE || r->c->w->draining)
			buf_puts(b, "Connection: close\r\n");
		else if (r->minor_10)
			buf_puts(b, "Connection: keep-alive\r\n");
	}
	buf_put(b, "\r\n", 2);
}

/* A parsed head. 0; 1: another leg is under way, or the request has ended; -EPIPE, -EBADMSG. */
static int take_head(struct request *r, const struct http_head *h)
{
	struct buf *b = &r->c->w->plain;
	struct str type = http_header_get(h, STR("content-type"));

	if (h->status == 101)
		return -EBADMSG; /* nobody asked for an upgrade */
	if (h->status < 200) {
		/* 100 was the gateway's to say; others pass to those who know them */
		if (h->status == 100 || r->minor_10)
			return 0;
		b->off = b->len = 0;
		write_head(r, h, b);
		return client_send(r->c, buf_data(b), buf_len(b)) ? -EPIPE : 0;
	}
	if (h->status == 503 || h->status == 429) {
		uint64_t after = 0;

		if (str_u64(http_header_get(h, STR("retry-after")), &after) == -ERANGE || after > 3600)
			after = 3600;
		r->retry_after = (uint32_t)after;
		if (h->status == 503 && request_retry_busy(r))
			return 1;
	}
	r->resp_head = true;
	r->status = (uint16_t)h->status;
	r->resp_framing = h->framing;
	r->resp_left = h->framing == HTTP_LENGTH ? h->length : 0;
	r->resp_keep = h->keep_alive && h->framing != HTTP_UNTIL_CLOSE;
	r->dechunk = r->minor_10 && h->framing == HTTP_CHUNKED;
	http_chunks_init(&r->resp_chunks);
	usage_watch_init(&r->usage, str_starts(type, STR("text/event-stream")));
	if (h->status >= 400)
		guess_undo(r);
	guess_settled(r);
	slim(r);
	request_settle(r);
	b->off = b->len = 0;
	write_head(r, h, b);
	return 0;
}

/* Bytes of the answer, in order. 0; 1: the request has moved on or ended; else an error. */
static int feed(struct request *r, const char *p, size_t n)
{
	struct upstream *u = r->u;
	struct worker *w = r->c->w;
	struct buf *b = &w->plain;

	u->heard = true;
	r->last_ns = loop_now(w->loop);
	while (!r->resp_head) {
		struct str s = { p, n };
		const char *why;
		ssize_t k;
		int e;

		if (buf_len(&u->in)) {
			if (n && buf_put(&u->in, p, n))
				return -EBADMSG;
			n = 0;
			s = buf_str(&u->in);
		}
		if (s.n == 0)
			return 0;
		k = http_head_end(s, &u->scanned);
		if (k < 0)
			return -EBADMSG;
		if (k == 0) {
			if (!buf_len(&u->in) && buf_put(&u->in, p, n))
				return -EBADMSG;
			return 0;
		}
		u->scanned = 0;
		if (http_parse_response((struct str){ s.p, (size_t)k }, r->head_method, &w->head, &why))
			return -EBADMSG;
		e = take_head(r, &w->head);
		if (e)
			return e;
		p = s.p + k;
		n = s.n - (size_t)k;
		if (!r->resp_head && buf_len(&u->in)) {
			buf_consume(&u->in, (size_t)k);
			n = 0;
			continue;
		}
		if (!r->resp_head)
			continue;
		/* Head and first bytes leave in one segment where they fit. */
		if (!buf_room(&r->c->out, buf_len(b) + (n > 16384 ? 0 : n)) ||
		    buf_put(&r->c->out, buf_data(b), buf_len(b)) || (n > 16384 && client_flush(r->c)))
			return -EPIPE;
		r->resp_started = true;
		e = 0;
		if (r->resp_framing == HTTP_NO_BODY || (r->resp_framing == HTTP_LENGTH && r->resp_left == 0)) {
			r->resp_done = true;
			if (n)
				r->resp_keep = false;
			if (!r->first_ns)
				first_byte(r);
		} else if (n) {
			e = body_bytes(r, p, n);
		}
		buf_free(&u->in);
		return e ? e : client_flush(r->c);
	}
	return body_bytes(r, p, n);
}

static void broke(struct request *r, int e)
{
	if (e == -EPIPE) {
		request_abort(r);
		return;
	}
	stats_inc(r->c->w->st, STATS_UP_GARBAGE);
	request_failed(r, POD_GARBAGE);
}

/* The pod has closed its side, or the connection (<err>). */
static void ended(struct request *r, int err)
{
	struct upstream *u = r->u;

	u->hup = true;
	if (!err && r->resp_head && r->resp_framing == HTTP_UNTIL_CLOSE) {
		r->resp_done = true;
		r->resp_keep = false;
		request_finish(r);
		return;
	}
	request_failed(r, u->heard && !r->resp_head ? POD_GARBAGE : POD_CUT);
}

void relay_pump(struct request *r)
{
	struct client *c = r->c;
	struct worker *w = c->w;
	struct upstream *u = r->u;
	size_t budget = TURN_BYTES;

	if (u && r->spliced && (!u->readable || splice_readable(r)))
		return;
	while (u && r->u == u && u->readable && !u->connecting && !r->resp_done && buf_len(&c->out) == 0) {
		ssize_t n = recv(u->io.fd, w->rx, RX_SIZE, 0);
		int e;

		if (n < 0 && errno == EAGAIN) {
			u->readable = false;
			break;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			ended(r, n < 0 ? errno : 0);
			return;
		}
		u->received += (uint64_t)n;
		if (n < RX_SIZE && !u->hup)
			u->readable = false;
		e = feed(r, w->rx, (size_t)n);
		if (e < 0) {
			broke(r, e);
			return;
		}
		if (e > 0 || r->grave.dead)
			return;
		if (budget <= (size_t)n) {
			loop_defer(w->loop, &c->again);
			break;
		}
		budget -= (size_t)n;
	}
	if (r->resp_done && r->u == u) {
		/* A pod that has answered and closed takes no more of the body. */
		request_finish(r);
		return;
	}
	if (u && r->u == u && r->resp_head)
		splice_try(r);
}
