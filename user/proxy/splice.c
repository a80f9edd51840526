/* SPDX-License-Identifier: Apache-2.0
 *
 * The road of an answer that the kernel carries. The relay begins every answer and is what each of these steps falls
 * back to; the carrier's own states are datapath/'s (docs/datapath.md).
 *
 *   relayed ──first body byte relayed, U empty──► armed ──first diverted segment──► (in the kernel) ──► ended ──► done
 *     ▲  └─ not eligible: to its end            │ other bytes came first                 │
 *     └─────────────────────────────────────────┘                                        └ anything else: both are
 * reset
 *
 * From armed to ended nothing is written to the client and nothing of the answer is read from the pod; from ended to
 * done the answer is complete but for the client's acknowledgement, and the pod's connection cannot be used yet. The
 * request lives until done, so a client that has its next request ready waits for that: its acknowledgement is on the
 * way with it.
 *
 * The first byte is always relayed: the time to it is the scheduler's to know at once. Nothing is done for a splice
 * before it, so that it comes no later than without, and an answer that turns out to be short costs nothing.
 */
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "proxy/proxy_int.h"

void splice_unbind(struct request *r)
{
	r->spliced = SPLICE_NOT;
	carrier_unbind(r->c->w->carrier, &r->pair, false, NULL);
}

#define FAR_US 5000

/*
 * A pod's congestion control has learned the short way to us. It fills the long one to a far client badly, or not at
 * all (BBR), and of chunks no more than the store may be under way; C's own knows better. Events come at a token's
 * pace, for which neither matters.
 */
static bool is_far_bulk(const struct request *r)
{
	struct tcp_info ti = { 0 };
	socklen_t n = sizeof(ti);

	if (r->usage.sse || (r->resp_framing == HTTP_LENGTH && r->resp_left <= KVS_STORE_BYTES))
		return false;
	return getsockopt(r->c->io.fd, IPPROTO_TCP, TCP_INFO, &ti, &n) == 0 && ti.tcpi_min_rtt > FAR_US;
}

/* Worth it, and known to be right? What is not is counted once. */
static bool eligible(struct request *r)
{
	enum carrier_why why = carrier_fits(&r->c->conn, &r->u->conn);
	struct worker *w = r->c->w;

	if (r->splice_refused || !r->first_ns || r->resp_done)
		return false;
	if (why)
		carrier_count(w->carrier, why);
	else if (r->dechunk)
		carrier_count(w->carrier, CARRIER_WHY_DECHUNK);
	else if (r->resp_framing == HTTP_LENGTH && r->resp_left < w->sh->cfg->datapath_min_bytes)
		carrier_count(w->carrier, CARRIER_WHY_SHORT);
	else if (r->long_tail)
		carrier_count(w->carrier, CARRIER_WHY_USAGE);
	else if (is_far_bulk(r))
		carrier_count(w->carrier, CARRIER_WHY_FAR);
	else
		return true;
	r->splice_refused = true;
	return false;
}

void splice_try(struct request *r)
{
	struct client *c = r->c;
	struct upstream *u = r->u;
	struct carrier_arming a;

	if (u->readable || u->hup || buf_len(&c->out) || r->body_state != BODY_DONE ||
	    r->body_sent != buf_len(&r->body) || !eligible(r))
		return;
	if (!r->pair.id && carrier_bind(c->w->carrier, &r->pair, &c->conn, &u->conn, r->dispatch_ns)) {
		r->splice_refused = true;
		return;
	}
	a = (struct carrier_arming){
		.c_fd = c->io.fd,
		.u_fd = u->io.fd,
		.u_read = u->received,
		.c_written = c->sent,
		.first_at = r->first_ns,
		.last_at = r->last_ns,
		.framing = r->resp_framing,
		.left = r->resp_left,
		.chunks = &r->resp_chunks,
	};
	switch (carrier_arm(c->w->carrier, &r->pair, &a)) {
	case CARRIER_ARMED:
		r->spliced = SPLICE_ARMED;
		break;
	case CARRIER_AGAIN:
		break;
	case CARRIER_NEVER:
		r->splice_refused = true;
		break;
	}
}

/* What the kernel has carried, also of an answer that breaks off. */
static void account(struct request *r, const struct carrier_view *v)
{
	if (!v->bytes)
		return;
	r->d->carrier = "tc";
	r->d->spliced_bytes += v->bytes;
	if (v->gap_max > r->d->gap_ns)
		r->d->gap_ns = v->gap_max;
	stats_add(r->c->w->st, STATS_BYTES_OUT, v->bytes);
}

/* Ends what the kernel carries, so that both peers see that it is broken. */
bool splice_break(struct request *r, const char *end, enum stats_id how)
{
	struct client *c = r->c;
	struct worker *w = c->w;
	struct carrier_view v;

	if (r->spliced == SPLICE_NOT)
		return false;
	r->spliced = SPLICE_NOT;
	carrier_closing(w->carrier, &r->pair);
	if (r->u)
		upstream_shut(r->u, true);
	client_shut(c, true);
	carrier_unbind(w->carrier, &r->pair, true, &v);
	account(r, &v);
	request_end(r, end, how);
	client_close(c, true);
	return true;
}

bool splice_readable(struct request *r)
{
	struct upstream *u = r->u;
	struct worker *w = r->c->w;
	struct carrier_view v;
	bool fin = false;
	ssize_t n;

	if (r->spliced != SPLICE_ARMED)
		goto after_end;
	if (carrier_look(w->carrier, &r->pair, &v)) {
		splice_break(r, "upstream_cut", STATS_REQ_UPSTREAM_CUT);
		return true;
	}
	if (v.state == KVS_ARMED) {
		char c;

		n = recv(u->io.fd, &c, 1, MSG_PEEK);
		if (n < 0 && errno == EAGAIN) {
			u->readable = false;
			return true;
		}
		carrier_unbind(w->carrier, &r->pair, false, NULL); /* its bytes come by the socket after all */
	}
	if (v.state == KVS_ARMED || v.state == KVS_RELAY) {
		r->spliced = SPLICE_NOT;
		return false;
	}
after_end:
	while (u->readable) {
		n = recv(u->io.fd, w->rx, RX_SIZE, 0);
		if (n <= 0)
			u->readable = n < 0 && errno == EINTR;
		if (n >= 0)
			r->resp_keep = false; /* closed, or bytes of no answer */
		fin = n == 0;
	}
	/* The socket gets a FIN when all before it was diverted: if that was not the end, none comes. */
	if (fin && carrier_look(w->carrier, &r->pair, &v) == 0 && v.state == KVS_ACTIVE)
		request_failed(r, POD_CUT);
	return true;
}

static void done(struct request *r, const struct carrier_view *v)
{
	r->spliced = SPLICE_NOT;
	account(r, v);
	r->resp_done = true;
	request_finish(r);
}

bool splice_client_readable(struct request *r, bool reset)
{
	struct carrier_worker *w = r->c->w->carrier;
	struct carrier_view v;
	int e;

	if (r->spliced == SPLICE_NOT)
		return false;
	/* The tail comes with the event, which may still be on its way. */
	if (r->spliced != SPLICE_ENDED)
		return carrier_look(w, &r->pair, &v) == 0 && v.state >= (reset ? KVS_DONE : KVS_ENDED);
	e = carrier_finish(w, &r->pair, &v);
	if (!e)
		done(r, &v);
	return !e || (e == -EAGAIN && !reset);
}

uint64_t splice_last_byte(struct request *r, uint64_t now)
{
	struct carrier_view v;

	if (r->spliced == SPLICE_NOT || carrier_look(r->c->w->carrier, &r->pair, &v))
		return r->last_ns;
	if (v.client_owes) /* the pod may not send, or not be heard: STALLED is for that */
		r->last_ns = now;
	else if (v.last_at > r->last_ns)
		r->last_ns = v.last_at;
	return r->last_ns;
}

/* The chunk framing of a tail begins anywhere: the first place from which it can be walked to its very end. What lies
 * before it is data of one chunk. */
static size_t find_chunk(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct http_chunks c;

		if (i && (i < 2 || p[i - 1] != '\n' || p[i - 2] != '\r'))
			continue;
		http_chunks_init(&c);
		if (http_chunks_walk(&c, p + i, n - i, NULL, NULL) == (ssize_t)(n - i) && http_chunks_done(&c))
			return i;
	}
	return n;
}

static void watch_data(void *arg, const char *p, size_t n)
{
	usage_watch_feed(arg, p, n);
}

/* What the last bytes say: nothing is no news, since it may have been said before. */
static void read_tail(struct request *r, const char *p, size_t n, uint64_t carried)
{
	struct usage_watch w;
	size_t from = 0;

	if (carried == n) { /* all of it: go on where the relay stood, in whatever word that was */
		if (r->resp_framing == HTTP_CHUNKED)
			http_chunks_walk(&r->resp_chunks, p, n, watch_data, &r->usage);
		else
			usage_watch_feed(&r->usage, p, n);
		return;
	}
	usage_watch_init(&w, r->usage.sse);
	w.usage = r->usage.usage;
	if (r->resp_framing == HTTP_CHUNKED) {
		struct http_chunks c;

		from = find_chunk(p, n);
		if (from >= 2)
			usage_watch_feed(&w, p, from - 2);
		http_chunks_init(&c);
		http_chunks_walk(&c, p + from, n - from, watch_data, &w);
	} else {
		usage_watch_feed(&w, p, n);
	}
	r->usage.usage = w.usage;
}

void splice_event(void *arg, struct carrier_pair *pair, const struct carrier_event *e)
{
	struct request *r = container_of(pair, struct request, pair);
	struct worker *w = r->c->w;
	struct carrier_view v;

	if (e->tail_n && (e->type == CARRIER_ENDED || e->type == CARRIER_DONE))
		read_tail(r, e->tail, e->tail_n, e->bytes);
	if (e->type != CARRIER_ENDED && e->type != CARRIER_DONE)
		r->spliced = SPLICE_ARMED; /* wherever it stood: both go */
	switch (e->type) {
	case CARRIER_ENDED:
		r->spliced = SPLICE_ENDED;
		r->last_ns = loop_now(w->loop);
		if (r->c->readable) /* its next request has told that it is done, and wakes nobody again */
			splice_client_readable(r, false);
		break;
	case CARRIER_DONE:
		carrier_unbind(w->carrier, &r->pair, false, &v);
		done(r, &v);
		break;
	case CARRIER_BROKEN:
		stats_inc(w->st, STATS_UP_GARBAGE);
		request_failed(r, POD_GARBAGE);
		break;
	case CARRIER_POD_FIN:
	case CARRIER_POD_RST:
		request_failed(r, POD_CUT);
		break;
	case CARRIER_STALLED:
		stats_inc(w->st, STATS_TIMEOUT_CLIENT);
		splice_break(r, "client_gone", STATS_REQ_CLIENT_GONE);
		break;
	default: /* nobody's fault but this host's */
		splice_break(r, "upstream_cut", STATS_REQ_UPSTREAM_CUT);
	}
}
