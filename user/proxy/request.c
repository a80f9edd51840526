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

#include "proxy/proxy_int.h"

#define FLAT_MAX	 4096
#define RETRANSMITS_LOST 2 /* of the same bytes, in a row: 0.6 s at the least */

const struct config_pool *request_limits(const struct request *r)
{
	return r->pool ? r->pool->cfg : &r->c->w->sh->cfg->pools[0];
}

/* --- dispatch --- */

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
	client_timer(r->c, now + (u->connecting || request_limits(r)->connect_timeout < request_limits(r)->first_byte
					  ? request_limits(r)->connect_timeout
					  : request_limits(r)->first_byte));
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

/* Of what is short one piece is made: copying it costs less than the kernel's way through a vector. */
static ssize_t send_pieces(int fd, const struct iovec *v, size_t n)
{
	const struct msghdr m = { .msg_iov = (struct iovec *)v, .msg_iovlen = n };
	char flat[FLAT_MAX];

	if (n == 1)
		return send(fd, v[0].iov_base, v[0].iov_len, MSG_NOSIGNAL);
	if (v[0].iov_len + v[1].iov_len > sizeof(flat))
		return sendmsg(fd, &m, MSG_NOSIGNAL);
	memcpy(flat, v[0].iov_base, v[0].iov_len);
	memcpy(flat + v[0].iov_len, v[1].iov_base, v[1].iov_len);
	return send(fd, flat, v[0].iov_len + v[1].iov_len, MSG_NOSIGNAL);
}

void request_send(struct request *r)
{
	struct upstream *u = r->u;

	while (u && u->writable && !u->connecting) {
		size_t body = buf_len(&r->body) - r->body_sent;
		struct iovec iov[2];
		size_t pieces = 0;
		ssize_t n;

		if (r->body_state == BODY_DONE && !r->vetted)
			return;
		if (r->head_sent < buf_len(&r->head))
			iov[pieces++] =
				(struct iovec){ buf_data(&r->head) + r->head_sent, buf_len(&r->head) - r->head_sent };
		if (body)
			iov[pieces++] = (struct iovec){ buf_data(&r->body) + r->body_sent, body };
		if (!pieces)
			break;
		n = send_pieces(u->io.fd, iov, pieces);
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
	if (r->retries >= request_limits(r)->retries || r->leg + 1 >= r->nlegs)
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

	if (!request_limits(r)->retry_busy || !next_leg(r))
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
	uint64_t patience = request_limits(r)->connect_timeout;
	unsigned again;

	if (!r->u || r->u->heard || r->resp_head || net_unacked(r->u->io.fd, &again) <= 0)
		return false;
	*ret_look = now + patience;
	return again >= RETRANSMITS_LOST && now - r->last_ns >= patience;
}

void request_tick(struct request *r, uint64_t now)
{
	const struct config_pool *lim = request_limits(r);
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
		at = splice_last_byte(r, now) + (r->resp_head ? lim->stream_idle : lim->first_byte);
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
	uint32_t prompt = g->prompt;

	if (r->kind == API_OTHER || r->status != 200)
		return;
	stats_inc(w->st, g->seen ? STATS_USAGE_SEEN : STATS_USAGE_UNSEEN);
	if (!g->seen)
		return;
	if (r->kind == API_MESSAGES) /* this API counts what was cached apart */
		prompt += g->cached + g->created;
	stats_add(w->st, STATS_PROMPT_TOKENS, prompt);
	if (r->text_bytes >= 64 && prompt)
		learn_density(r->pool, (int64_t)(r->text_bytes * 256 / prompt));
	check_answer(r, g->cached_known, g->cached, prompt);
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
