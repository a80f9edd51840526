/* SPDX-License-Identifier: Apache-2.0
 *
 * One request's life:
 *
 *   head parsed ──► body arriving ──► decided ──► leg under way ──► answer's head ──► answer done ──► end
 *                        │ stalls         │            │ connect fails, 503, stale: the next leg
 *                        └────────────────┘            └ closed or reset before an answer: 502
 *
 * A request is decided when its body is whole; before that, if the rest of a long body cannot change the choice any
 * more (decide_early); or when the body has paused for BODY_STALL (a client that waits for an early answer must not
 * wait for us). What was decided on a part is looked at again when the rest has come, before the last bytes go on:
 * members that clients may not set never reach a pod in a complete request.
 *
 * The body is kept until the answer's head is there, so that another leg can be tried; no byte of an answer has reached
 * the client before that.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "proxy/proxy_int.h"

#define HEAD_ROOM	 512 /* more than most heads have */
#define RETRANSMITS_LOST 2   /* of the same bytes, in a row: 0.6 s at the least */

static const struct config_pool *limits(const struct request *r)
{
	return r->pool ? r->pool->cfg : &r->c->w->sh->cfg->pools[0];
}

/* --- start --- */

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
	if (h->framing == HTTP_LENGTH && h->length > w->sh->cfg->pools[0].body) {
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

/* --- the body --- */

void request_settle(struct request *r)
{
	int64_t now = (int64_t)(r->body.cap + r->plain.cap + (r->in ? prompt_memory(&r->in->prompt) : 0) +
				(r->unpack ? HTTP_INFLATE_MEMORY : 0) + guess_memory(r));
	int64_t d = now - r->memory;

	if (d) {
		atomic_fetch_add_explicit(&r->c->w->sh->memory, d, memory_order_relaxed);
		r->memory = now;
	}
}

static bool over_memory(struct request *r)
{
	request_settle(r);
	return (uint64_t)atomic_load_explicit(&r->c->w->sh->memory, memory_order_relaxed) >
	       r->c->w->sh->cfg->memory_max;
}

/* Body data without chunk framing. A failure of buf_put shows as a short body at the end. */
static void body_data(void *arg, const char *p, size_t n)
{
	struct request *r = arg;

	r->data_bytes += n;
	if (!r->unpack)
		buf_put(&r->plain, p, n);
	else if (r->unpacked >= 0)
		r->unpacked = http_inflate_feed(r->unpack, p, n, &r->plain, limits(r)->body);
}

/* What of the body can be read as JSON so far. */
static void look(struct request *r, bool whole)
{
	bool as_it_came = r->framing == HTTP_LENGTH && !r->unpack;

	if (!r->in || r->opaque)
		return;
	if (r->unpack && (r->unpacked < 0 || (whole && r->unpacked == 0)))
		r->opaque = true; /* broken: the engine's to refuse */
	else
		inspection_feed(r->in, buf_str(as_it_came ? &r->body : &r->plain), whole);
}

/* Has the body, as far as it is here, what may not pass? Then the request is over. */
static bool refuse_body(struct request *r)
{
	char m[160];

	if (r->in->forbidden)
		snprintf(m, sizeof(m), "The member \"%s\" names hosts and may only be set by the gateway.",
			 r->in->forbidden);
	else if (r->is_json && inspection_suspicious(r->in))
		snprintf(m, sizeof(m),
			 "The body is not JSON (RFC 8259, UTF-8), and may hold a member that only the "
			 "gateway may set.");
	else
		return false;
	request_refuse(r, STATS_REFUSED_FIELD, 400, "invalid_request_error", m);
	return true;
}

/* Nothing more is to be learned from the body. */
static void read_off(struct request *r)
{
	r->long_tail = r->in && r->in->long_tail;
	inspection_free(r->in);
	r->in = NULL;
	http_inflate_free(r->unpack);
	r->unpack = NULL;
	buf_free(&r->plain);
	r->vetted = true;
	request_settle(r);
}

static void body_whole(struct request *r)
{
	r->body_state = BODY_DONE;
	if (!r->decided) {
		request_ready(r);
		return;
	}
	if (r->in && refuse_body(r))
		return;
	r->vetted = true;
	request_send(r);
	if (r->grave.dead)
		return;
	if (r->in && r->in->decided) {
		inspection_judge(r->in);
		decide_rest(r);
	}
	read_off(r);
}

static void decided(struct request *r, uint64_t began)
{
	struct worker *w = r->c->w;

	r->decided = true;
	r->vetted = r->body_state == BODY_DONE;
	r->d->decide_ns = time_mono() - began;
	stats_add(w->st, STATS_DECISION_NS, r->d->decide_ns);
	stats_hist_add(&w->sh->decision[w->id], r->d->decide_ns);
}

static void go(struct request *r)
{
	decision_log(r->d);
	request_dispatch(r);
}

/* Forward what there is of a long body, if it is known to where. */
static void try_early(struct request *r)
{
	uint64_t began = time_mono();

	if (r->in->forbidden || !decide_early(r))
		return;
	stats_inc(r->c->w->st, STATS_DECIDED_EARLY);
	r->in->decided = true;
	decided(r, began);
	go(r);
}

size_t request_body_feed(struct request *r, const char *p, size_t n)
{
	struct client *c = r->c;
	struct worker *w = c->w;
	size_t take = n;
	bool done;

	if (r->framing == HTTP_LENGTH) {
		if (take > r->body_left)
			take = (size_t)r->body_left;
		r->body_left -= take;
		done = r->body_left == 0;
		if (r->unpack)
			body_data(r, p, take);
		else
			r->data_bytes += take;
	} else {
		ssize_t k = http_chunks_walk(&r->chunks, p, n, body_data, r);

		if (k < 0) {
			request_refuse(r, STATS_BAD_REQUEST, 400, "invalid_request_error",
				       "The body's chunked framing is malformed.");
			return n;
		}
		take = (size_t)k;
		done = http_chunks_done(&r->chunks);
	}
	r->body_bytes += take;
	stats_add(w->st, STATS_BYTES_IN, take);
	if (r->data_bytes > limits(r)->body || r->unpacked == -E2BIG) {
		request_refuse(r, STATS_REFUSED_BODY, 413, "invalid_request_error",
			       "The request's body is larger than limits.body allows.");
		return n;
	}
	if (p != r->body.mem + r->body.len && buf_put(&r->body, p, take))
		goto memory;
	else if (p == r->body.mem + r->body.len)
		buf_commit(&r->body, take);
	look(r, done);
	if (over_memory(r))
		goto memory;
	r->last_ns = loop_now(w->loop);
	r->stall_at = r->last_ns + BODY_STALL;
	if (done)
		body_whole(r);
	else if (r->decided)
		request_send(r);
	else if (r->framing == HTTP_LENGTH && !r->unpack && r->body_left >= EARLY_REST &&
		 inspection_may_be_early(r->in))
		try_early(r);
	return take;
memory:
	request_refuse(r, STATS_REFUSED_MEMORY, 503, "overloaded_error",
		       "The gateway holds as many bytes as memory.max allows. Try again.");
	return n;
}

static void send_continue(struct request *r)
{
	r->expect = false;
	client_send(r->c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

void request_body_read(struct request *r)
{
	struct client *c = r->c;
	struct worker *w = c->w;
	size_t budget = TURN_BYTES;

	if (r->expect)
		send_continue(r);
	while (c->req == r && r->body_state == BODY_MORE && c->readable) {
		bool direct = r->framing == HTTP_LENGTH;
		size_t want = RX_SIZE;
		char *to = w->rx;
		ssize_t n;

		if (r->decided && buf_len(&r->body) - r->body_sent > UNSENT_HIGH)
			return; /* the pod is slow: so is the client */
		if (direct) {
			/* A long body is received where it stays, in pieces that are read while they are near. */
			size_t all = r->body_left < (4u << 20) ? (size_t)r->body_left : (4u << 20);

			/* One byte more than the body has: a short read tells that there is nothing behind it. */
			want = all < PIECE ? all + 1 : PIECE;
			to = buf_room(&r->body, all + 1);
			if (!to) {
				request_refuse(r, STATS_REFUSED_MEMORY, 503, "overloaded_error",
					       "The gateway is out of memory.");
				return;
			}
		}
		n = recv(c->io.fd, to, want, 0);
		if (n > 0) {
			if ((size_t)n < want && !c->rdhup)
				c->readable = false;
			size_t used = request_body_feed(r, to, (size_t)n);

			if (c->grave.dead || c->req != r)
				return;
			if (used < (size_t)n && buf_put(&c->in, to + used, (size_t)n - used)) {
				client_close(c, true);
				return;
			}
			budget -= (size_t)n < budget ? (size_t)n : budget;
			if (!budget) {
				loop_defer(w->loop, &c->again);
				break;
			}
		} else if (n < 0 && errno == EAGAIN) {
			c->readable = false;
		} else if (n == 0 || errno != EINTR) {
			request_abort(r);
			return;
		}
	}
	if (c->req == r && r->body_state == BODY_MORE) {
		if (!r->stall_at)
			r->stall_at = loop_now(w->loop) + BODY_STALL;
		client_timer(c, r->decided ? r->last_ns + limits(r)->client_idle : r->stall_at);
	}
}

/* --- decision and dispatch --- */

void request_ready(struct request *r)
{
	struct inspection *in = r->in;
	struct refusal no;
	uint64_t t0 = time_mono();
	int status;

	inspection_judge(in);
	if (r->opaque) {
		in->opaque = true;
		in->why = STATS_OPAQUE_ENCODING;
	}
	if (refuse_body(r))
		return;
	status = decide(r, &no);
	decided(r, t0);
	if (status) {
		request_refuse(r, no.why, (unsigned)status, no.type, no.message);
		return;
	}
	go(r);
	if (r->grave.dead)
		return;
	if (r->vetted)
		read_off(r);
	else
		inspection_forget_text(in);
}

static struct leg *leg_now(struct request *r)
{
	return &r->legs[r->leg];
}

void request_dispatch(struct request *r)
{
	struct worker *w = r->c->w;
	struct leg *leg = leg_now(r);
	uint64_t now = loop_now(w->loop);
	struct upstream *u;

	r->head_sent = r->body_sent = 0;
	r->dispatch_ns = r->last_ns = now;
	r->d->attempts++;
	str_copy(r->d->pod, sizeof(r->d->pod), leg->pod->name);
	r->d->predicted = leg->matched;
	ledger_charge(leg->pod, &r->charge, leg->own, leg->work, leg->uncached, now);
	u = upstream_get(r->c, leg->pod, r->stale_retries > 0);
	if (!u) {
		request_failed(r, POD_CONNECT_FAILED);
		return;
	}
	u->req = r;
	r->u = u;
	if (u->connecting && !r->queued) {
		r->queued = true;
		atomic_fetch_add_explicit(&r->pool->queued, 1, memory_order_relaxed);
	} else if (!u->connecting) {
		request_unqueue(r);
	}
	if (!u->connecting)
		splice_bind(r);
	client_timer(r->c, now + (u->connecting || limits(r)->connect_timeout < limits(r)->first_byte
					  ? limits(r)->connect_timeout
					  : limits(r)->first_byte));
	if (u->writable)
		request_send(r);
	if (!r->grave.dead)
		guess_tell(r);
}

void request_unqueue(struct request *r)
{
	if (!r->queued)
		return;
	r->queued = false;
	atomic_fetch_sub_explicit(&r->pool->queued, 1, memory_order_relaxed);
}

void request_send(struct request *r)
{
	struct upstream *u = r->u;

	while (u && u->writable && !u->connecting) {
		size_t body = buf_len(&r->body) - r->body_sent;
		struct iovec iov[2];
		struct msghdr m = { .msg_iov = iov };
		ssize_t n;

		if (r->body_state == BODY_DONE && !r->vetted)
			return;
		if (r->head_sent < buf_len(&r->head))
			iov[m.msg_iovlen++] =
				(struct iovec){ buf_data(&r->head) + r->head_sent, buf_len(&r->head) - r->head_sent };
		if (body)
			iov[m.msg_iovlen++] = (struct iovec){ buf_data(&r->body) + r->body_sent, body };
		if (!m.msg_iovlen)
			break;
		n = sendmsg(u->io.fd, &m, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			/* Whatever the pod said before it closed is still to be read; reading finds the error too. */
			u->writable = false;
			if (errno != EAGAIN) {
				u->hup = u->readable = true;
				loop_defer(r->c->w->loop, &r->c->again);
			}
			break;
		}
		r->last_ns = loop_now(r->c->w->loop);
		if (r->head_sent < buf_len(&r->head)) {
			size_t k = buf_len(&r->head) - r->head_sent;

			k = (size_t)n < k ? (size_t)n : k;
			r->head_sent += k;
			n -= (ssize_t)k;
		}
		r->body_sent += (size_t)n;
		if (r->resp_head && r->vetted && r->body_sent) { /* no other leg any more: forget what is sent */
			buf_consume(&r->body, r->body_sent);
			r->body_sent = 0;
		}
	}
	if (r->resp_done && r->body_state == BODY_DONE && buf_len(&r->body) == r->body_sent) {
		request_finish(r);
		return;
	}
	if (r->body_state == BODY_MORE && r->c->readable && buf_len(&r->body) - r->body_sent < UNSENT_HIGH / 2)
		loop_defer(r->c->w->loop, &r->c->again);
}

/* --- failures --- */

static void drop_leg(struct request *r, bool failed)
{
	if (failed)
		guess_undo(r);
	ledger_release(&r->charge, failed, loop_now(r->c->w->loop));
	if (r->u)
		upstream_close(r->u, true);
}

static bool next_leg(struct request *r)
{
	if (r->retries >= limits(r)->retries || r->leg + 1 >= r->nlegs)
		return false;
	r->retries++;
	r->leg++;
	r->stale_retries = 0;
	drop_leg(r, true);
	return true;
}

bool request_retry_busy(struct request *r)
{
	struct pod *p = leg_now(r)->pod;

	if (!limits(r)->retry_busy || !next_leg(r))
		return false;
	pod_result(p, POD_BUSY, r->retry_after, loop_now(r->c->w->loop));
	r->retry_after = 0;
	stats_inc(r->c->w->st, STATS_RETRY_BUSY);
	request_dispatch(r);
	return true;
}

/* The answer broke off after a part of it had gone out: the client must see that it is broken. */
static void cut(struct request *r)
{
	struct client *c = r->c;
	bool by_close = r->resp_framing == HTTP_UNTIL_CLOSE || r->dechunk;

	request_end(r, "upstream_cut", STATS_REQ_UPSTREAM_CUT);
	c->closing = true;
	if (by_close)
		client_close(c, true);
	else
		client_answered(c);
}

void request_failed(struct request *r, enum pod_outcome why)
{
	struct worker *w = r->c->w;
	struct pod *p = leg_now(r)->pod;
	bool stale = r->u && r->u->reused && !r->u->heard && why == POD_CUT;
	char m[160];

	if (splice_break(r, "upstream_cut", STATS_REQ_UPSTREAM_CUT)) {
		pod_result(p, why, 0, loop_now(w->loop));
		return;
	}
	if (stale && r->stale_retries == 0 && !r->resp_head) {
		stats_inc(w->st, STATS_RETRY_STALE);
		r->stale_retries++;
		drop_leg(r, false);
		request_dispatch(r);
		return;
	}
	pod_result(p, why, 0, loop_now(w->loop));
	if (r->resp_head) {
		drop_leg(r, true);
		cut(r);
		return;
	}
	if (why == POD_CONNECT_FAILED && next_leg(r)) {
		stats_inc(w->st, STATS_RETRY_CONNECT);
		request_dispatch(r);
		return;
	}
	drop_leg(r, true);
	snprintf(m, sizeof(m), "The pod %s %s.", p->name,
		 why == POD_CONNECT_FAILED ? "cannot be reached, and so were those tried before it"
		 : why == POD_GARBAGE	   ? "answered with something that is not HTTP"
					   : "closed the connection before it answered");
	request_refuse(r, STATS_REQ_UPSTREAM_CUT, why == POD_CONNECT_FAILED ? 503 : 502, "upstream_error", m);
}

static void timed_out(struct request *r, enum stats_id which, const char *what)
{
	struct worker *w = r->c->w;

	stats_inc(w->st, which);
	if (which == STATS_TIMEOUT_CONNECT) {
		request_failed(r, POD_CONNECT_FAILED);
		return;
	}
	if (r->charge.pod)
		pod_result(leg_now(r)->pod, POD_SERVER_ERROR, 0, loop_now(w->loop));
	if (splice_break(r, "upstream_cut", STATS_REQ_UPSTREAM_CUT))
		return;
	drop_leg(r, true);
	if (r->resp_head)
		cut(r);
	else
		request_refuse(r, STATS_REQ_UPSTREAM_CUT, 504, "timeout_error", what);
}

/* A host that vanished says nothing: a pooled connection to it looks alive, and the request would wait for its first
 * byte as long as that may take. TCP knows that nothing arrives. *ret_look: when to ask it again, if that is open. */
static bool lost_on_the_way(struct request *r, uint64_t now, uint64_t *ret_look)
{
	uint64_t patience = limits(r)->connect_timeout;
	unsigned again;

	if (!r->u || r->u->heard || r->resp_head || net_unacked(r->u->io.fd, &again) <= 0)
		return false;
	*ret_look = now + patience;
	return again >= RETRANSMITS_LOST && now - r->last_ns >= patience;
}

void request_tick(struct request *r, uint64_t now)
{
	const struct config_pool *lim = limits(r);
	uint64_t at, look = UINT64_MAX;

	if (!r->decided) {
		if (now >= r->stall_at && r->stall_at) {
			request_ready(r);
			return;
		}
		at = r->stall_at ? r->stall_at : now + BODY_STALL;
	} else if (r->u && r->u->connecting) {
		if (now - r->arrived_ns > lim->queue_timeout) {
			timed_out(r, STATS_TIMEOUT_QUEUE, "No pod could be reached within limits.queue-timeout.");
			return;
		}
		at = r->dispatch_ns + lim->connect_timeout;
		if (now >= at) {
			timed_out(r, STATS_TIMEOUT_CONNECT, NULL);
			return;
		}
	} else if (buf_len(&r->c->out)) {
		at = r->c->since + lim->client_idle; /* it is the client that does not take its answer */
		if (now >= at) {
			stats_inc(r->c->w->st, STATS_TIMEOUT_CLIENT);
			request_abort(r);
			return;
		}
	} else if (r->body_state == BODY_MORE) {
		at = r->last_ns + lim->client_idle;
		if (now >= at) {
			timed_out(r, STATS_TIMEOUT_CLIENT, "The request's body did not arrive in time.");
			return;
		}
	} else if (lost_on_the_way(r, now, &look)) {
		timed_out(r, STATS_TIMEOUT_CONNECT, NULL);
		return;
	} else {
		at = splice_last_byte(r) + (r->resp_head ? lim->stream_idle : lim->first_byte);
		if (now >= at) {
			timed_out(r, r->resp_head ? STATS_TIMEOUT_STREAM : STATS_TIMEOUT_FIRST,
				  "The pod did not answer within limits.first-byte.");
			return;
		}
		at = look < at ? look : at;
	}
	client_timer(r->c, at);
}

/* --- ends --- */

void request_end(struct request *r, const char *end, enum stats_id how)
{
	struct client *c = r->c;
	struct worker *w = c->w;
	struct decision *d = r->d;
	uint64_t now = loop_now(w->loop);

	ledger_release(&r->charge, how == STATS_REQ_UPSTREAM_CUT, now);
	request_unqueue(r);
	splice_unbind(r);
	if (r->u) {
		bool whole = how == STATS_REQ_DONE && r->resp_keep && r->resp_done &&
			     buf_len(&r->body) == r->body_sent && r->body_state == BODY_DONE;

		if (whole)
			upstream_put(r->u);
		else
			upstream_close(r->u, !r->resp_done);
		r->u = NULL;
	}
	stats_inc(w->st, how);
	d->end = end;
	d->status = r->status;
	d->duration_ns = now - r->arrived_ns;
	d->ttft_ns = r->first_ns ? r->first_ns - r->arrived_ns : 0;
	stats_hist_add(&w->sh->duration[w->id], d->duration_ns);
	if (r->decided)
		decision_store(w->px, d);
	for (unsigned i = 0; i < r->nlegs; i++)
		pod_unref(r->legs[i].pod);
	free(d);
	r->d = NULL;
	inspection_free(r->in);
	r->in = NULL;
	http_inflate_free(r->unpack);
	r->unpack = NULL;
	buf_free(&r->head);
	request_free_body(r);
	buf_free(&r->plain);
	guess_settled(r);
	request_settle(r);
	atomic_fetch_sub_explicit(&w->sh->streams, 1, memory_order_relaxed);
	c->req = NULL;
	worker_bury(w, &r->grave);
}

/* Bytes per token, times 256: the first answers count in full, later ones a sixteenth. */
static void learn_density(struct proxy_pool *p, int64_t q8)
{
	int64_t old = atomic_load_explicit(&p->bytes_per_token_q8, memory_order_relaxed);
	uint32_t n = atomic_load_explicit(&p->bytes_per_token_n, memory_order_relaxed);

	if (q8 < 64 || q8 > 64 * 256)
		return;
	if (n < 16)
		atomic_store_explicit(&p->bytes_per_token_n, ++n, memory_order_relaxed);
	atomic_store_explicit(&p->bytes_per_token_q8, (uint32_t)(old + (q8 - old) / (int64_t)n), memory_order_relaxed);
}

static void learn_from_usage(struct request *r)
{
	const struct usage *g = &r->usage.usage;
	struct worker *w = r->c->w;
	struct pod *p = leg_now(r)->pod;

	if (r->kind == API_OTHER || r->status != 200)
		return;
	stats_inc(w->st, g->seen ? STATS_USAGE_SEEN : STATS_USAGE_UNSEEN);
	if (!g->seen)
		return;
	stats_add(w->st, STATS_PROMPT_TOKENS, g->prompt);
	if (r->text_bytes >= 64 && g->prompt)
		learn_density(r->pool, (int64_t)(r->text_bytes * 256 / g->prompt));
	if (g->cached_known) {
		r->d->reported = g->cached;
		r->d->reported_known = true;
		atomic_fetch_add_explicit(&p->predicted_tokens, r->d->predicted, memory_order_relaxed);
		atomic_fetch_add_explicit(&p->reported_tokens, g->cached, memory_order_relaxed);
	}
}

void request_finish(struct request *r)
{
	struct client *c = r->c;
	bool whole = r->body_state == BODY_DONE && r->vetted && buf_len(&r->body) == r->body_sent &&
		     r->head_sent == buf_len(&r->head);

	if (!whole && r->u && !r->u->hup && r->resp_keep)
		return; /* the client is still sending; request_send comes back here */
	if (!whole)
		c->drained = 1; /* part of the body is unread: linger */
	if (!whole || !r->keep_alive || r->resp_framing == HTTP_UNTIL_CLOSE || r->dechunk)
		c->closing = true;
	learn_from_usage(r);
	pod_result(leg_now(r)->pod,
		   r->status < 400			  ? POD_OK
		   : r->status == 503 || r->status == 429 ? POD_BUSY
		   : r->status >= 500			  ? POD_SERVER_ERROR
							  : POD_CLIENT_ERROR,
		   0, loop_now(c->w->loop));
	request_end(r, "complete", STATS_REQ_DONE);
	client_answered(c);
}

void request_refuse(struct request *r, enum stats_id why, unsigned status, const char *type, const char *message)
{
	struct client *c = r->c;
	bool keep = r->body_state == BODY_DONE && r->keep_alive && status != 400;
	bool started = r->resp_started;

	if (why != STATS_REQ_UPSTREAM_CUT)
		stats_inc(c->w->st, why);
	r->status = (uint16_t)status;
	request_end(r, "refused", why == STATS_REQ_UPSTREAM_CUT ? why : STATS_REQ_REFUSED);
	if (started) {
		client_close(c, true);
		return;
	}
	answer_error(c, status, type, message, status == 503 || status == 429 ? 1 : 0, keep);
}

void request_abort(struct request *r)
{
	struct client *c = r->c;

	if (splice_break(r, "client_gone", STATS_REQ_CLIENT_GONE))
		return;
	if (r->u && r->u->connecting)
		guess_undo(r);
	if (r->u)
		upstream_close(r->u, true);
	request_end(r, "client_gone", STATS_REQ_CLIENT_GONE);
	client_close(c, true);
}
