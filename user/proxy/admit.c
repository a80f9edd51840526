/* SPDX-License-Identifier: Apache-2.0
 *
 * A request's head: refused, answered by the gateway itself, or the beginning of a request.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "proxy/proxy_int.h"

#define HEAD_ROOM 512 /* more than most heads have */

static const struct str session_headers[] = {
	{ "x-session-id", 12 },	      { "x-session-token", 15 }, { "x-claude-code-session-id", 24 },
	{ "x-session-affinity", 18 }, { "session-id", 10 },	 { "session_id", 10 },
};

static void read_session(struct request *r, const struct http_head *h)
{
	for (size_t i = 0; i < sizeof(session_headers) / sizeof(session_headers[0]); i++) {
		struct str v = http_header_get(h, session_headers[i]);

		if (v.n) {
			r->session = hash_bytes(v.p, v.n, 1) | 1;
			return;
		}
	}
}

static void write_hex(char *to, uint64_t v)
{
	for (int i = 0; i < 16; i++, v <<= 4)
		to[i] = "0123456789abcdef"[v >> 60];
}

/* Request ids cross into logs and headers: only plain characters are taken over. */
static void read_request_id(struct request *r, const struct http_head *h, bool *ret_own)
{
	struct str v = http_header_get(h, STR("x-request-id"));

	if (v.n && v.n < sizeof(r->d->request)) {
		memcpy(r->d->request, v.p, v.n);
		*ret_own = false;
		return;
	}
	write_hex(r->d->request, rng_next(&r->c->w->rng));
	write_hex(r->d->request + 16, rng_next(&r->c->w->rng));
	*ret_own = v.n == 0;
}

static int write_head(struct request *r, const struct http_head *h, bool own_id)
{
	struct buf *b = &r->head;
	int e = buf_room(b, h->target.n + HEAD_ROOM) ? 0 : -ENOMEM;

	e |= buf_put(b, h->method.p, h->method.n);
	e |= buf_put(b, " ", 1);
	e |= buf_put(b, h->target.p, h->target.n);
	e |= buf_put(b, " HTTP/1.1\r\n", 11);
	for (unsigned i = 0; i < h->nheaders; i++) {
		const struct http_header *f = &h->headers[i];

		if (http_hop_by_hop(h, f->name) || str_ieq(f->name, STR("Expect")))
			continue;
		e |= buf_put(b, f->name.p, f->name.n);
		e |= buf_put(b, ": ", 2);
		e |= buf_put(b, f->value.p, f->value.n);
		e |= buf_put(b, "\r\n", 2);
	}
	if (own_id) {
		e |= buf_put(b, "x-request-id: ", 14);
		e |= buf_puts(b, r->d->request);
		e |= buf_put(b, "\r\n", 2);
	}
	if (h->framing == HTTP_CHUNKED)
		e |= buf_puts(b, "Transfer-Encoding: chunked\r\n");
	e |= buf_put(b, "\r\n", 2);
	return e ? -ENOMEM : 0;
}

static int refuse_head(struct client *c, int err, const char *why)
{
	struct buf m = { 0 };
	unsigned status = err == -E2BIG ? 431 : err == -EPROTO ? 505 : err == -EOPNOTSUPP ? 501 : 400;

	stats_inc(c->w->st, err == -E2BIG ? STATS_REFUSED_HEAD : STATS_BAD_REQUEST);
	buf_printf(&m, "The request is malformed: %s.", why ? why : "its head cannot be read");
	buf_put(&m, "", 1);
	answer_error(c, status, "invalid_request_error", m.mem ? buf_data(&m) : "bad request", 0, false);
	buf_free(&m);
	return 0;
}

/* 1: may go on to a pod; 0: answered. */
static int route_path(struct client *c, const struct http_head *h, char *path, size_t cap)
{
	struct worker *w = c->w;

	if (http_path(h->target, path, cap) < 0) {
		refuse_head(c, -EBADMSG, "its target is not a path");
		return 0;
	}
	if (api_path_allowed(&w->sh->cfg->listeners[c->listener], path))
		return 1;
	if (answer_local(c, h, path))
		return 0;
	stats_inc(w->st, STATS_REFUSED_PATH);
	answer_error(
		c, 404, "not_found_error",
		"This path is not served. Paths of an engine's operator are refused here unless the configuration's "
		"listeners[].paths.allow names them.",
		0, h->keep_alive && h->framing == HTTP_NO_BODY);
	return 0;
}

int request_new(struct client *c, struct str head)
{
	struct worker *w = c->w;
	struct http_head *h = &w->head;
	const char *why = NULL;
	char path[2048];
	enum api_kind kind;
	struct request *r;
	struct str coding;
	bool own_id;
	int e;

	stats_inc(w->st, STATS_REQ);
	e = http_parse_request(head, h, &why);
	if (e)
		return refuse_head(c, e, why);
	if (!h->keep_alive)
		c->closing = true;
	e = route_path(c, h, path, sizeof(path));
	if (e != 1) {
		if (!c->grave.dead)
			buf_consume(&c->in, head.n);
		return 0;
	}
	if (h->framing == HTTP_LENGTH && h->length > body_limit(w, NULL)) {
		stats_inc(w->st, STATS_REFUSED_BODY);
		answer_error(c, 413, "invalid_request_error", "The request's body is larger than limits.body allows.",
			     0, false);
		return 0;
	}
	r = zalloc(sizeof(*r));
	if (r)
		r->d = zalloc(sizeof(*r->d)); /* the rows come with the decision */
	kind = str_ieq(h->method, STR("POST")) ? api_kind_of(path) : API_OTHER;
	if (r)
		r->in = inspection_new(w, kind, h->framing == HTTP_LENGTH ? h->length : 0);
	if (!r || !r->d || !r->in) {
		if (r) {
			inspection_free(r->in);
			free(r->d);
		}
		free(r);
		client_close(c, true);
		return -EPIPE;
	}
	r->c = c;
	r->arrived_ns = r->last_ns = loop_now(w->loop);
	r->d->wall_ns = time_wall();
	r->kind = kind;
	r->is_json = kind != API_OTHER || str_starts(http_header_get(h, STR("content-type")), STR("application/json"));
	r->head_method = str_eq(h->method, STR("HEAD"));
	r->minor_10 = h->minor == 0;
	r->keep_alive = h->keep_alive;
	r->expect = h->expect_continue && h->minor == 1;
	r->explain = str_eq(http_header_get(h, STR("x-kvsteer-explain")), STR("1"));
	coding = http_header_get(h, STR("content-encoding"));
	if (coding.n && !str_ieq(coding, STR("identity"))) {
		r->unpack = http_inflate_new(coding);
		r->opaque = !r->unpack;
	}
	r->framing = h->framing;
	r->body_left = h->framing == HTTP_LENGTH ? h->length : 0;
	r->body_state =
		h->framing == HTTP_NO_BODY || (h->framing == HTTP_LENGTH && h->length == 0) ? BODY_DONE : BODY_MORE;
	http_chunks_init(&r->chunks);
	read_session(r, h);
	read_request_id(r, h, &own_id);
	e = write_head(r, h, own_id);
	c->req = r;
	atomic_fetch_add_explicit(&w->sh->streams, 1, memory_order_relaxed);
	if (e) {
		request_refuse(r, STATS_REFUSED_MEMORY, 503, "overloaded_error", "The gateway is out of memory.");
		return 0;
	}
	buf_consume(&c->in, head.n);
	if (r->body_state == BODY_DONE) {
		request_ready(r);
		return 0;
	}
	if (r->body_left >= BODY_SPARE_MIN) {
		r->body = w->spare_body;
		w->spare_body = (struct buf){ 0 };
	}
	if (buf_len(&c->in)) {
		size_t used = request_body_feed(r, buf_data(&c->in), buf_len(&c->in));

		if (c->req == r)
			buf_consume(&c->in, used);
	}
	return 0;
}
