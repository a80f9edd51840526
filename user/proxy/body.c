/* SPDX-License-Identifier: Apache-2.0
 *
 * A request's body: received where it stays, looked into piece by piece, decided on as soon as the rest cannot change
 * the choice (request.c tells when that is).
 */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "proxy/proxy_int.h"

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

/* Fresh memory costs a page fault for every 4 KB: a worker keeps that of one long body for the next. */
void request_free_body(struct request *r)
{
	struct buf *spare = &r->c->w->spare_body;

	if (r->body.cap >= BODY_SPARE_MIN && r->body.cap <= BODY_SPARE_MAX && r->body.cap > spare->cap) {
		buf_free(spare);
		*spare = r->body;
		spare->off = spare->len = 0;
		r->body = (struct buf){ 0 };
	}
	buf_free(&r->body);
}

static bool over_memory(struct request *r)
{
	request_settle(r);
	return (uint64_t)atomic_load_explicit(&r->c->w->sh->memory, memory_order_relaxed) >
	       r->c->w->sh->cfg->memory_max;
}

uint64_t body_limit(const struct worker *w, const struct proxy_pool *pool)
{
	uint64_t most = 0;

	if (pool)
		return pool->cfg->body;
	for (unsigned i = 0; i < w->sh->cfg->npools; i++)
		if (w->sh->cfg->pools[i].body > most)
			most = w->sh->cfg->pools[i].body;
	return most;
}

/* Body data without chunk framing. A failure of buf_put shows as a short body at the end. */
static void body_data(void *arg, const char *p, size_t n)
{
	struct request *r = arg;

	r->data_bytes += n;
	if (!r->unpack)
		buf_put(&r->plain, p, n);
	else if (r->unpacked >= 0)
		r->unpacked = http_inflate_feed(r->unpack, p, n, &r->plain, body_limit(r->c->w, r->pool));
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
	if (r->data_bytes > body_limit(w, r->pool) || r->unpacked == -E2BIG) {
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
			/* Small ones until it may be known to where, then fewer wake-ups, also of the pod. */
			size_t piece = r->body_bytes < 2 * PIECE ? PIECE : 2 * PIECE;

			/* One byte more than the body has: a short read tells that there is nothing behind it. */
			want = all < piece ? all + 1 : piece;
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
		client_timer(c, r->decided ? r->last_ns + request_limits(r)->client_idle : r->stall_at);
	}
}

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
