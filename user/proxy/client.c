/* SPDX-License-Identifier: Apache-2.0
 *
 * A client's connection is watched edge-triggered, once for all: `readable` and `writable` remember what the kernel
 * said until a call has proved the contrary. client_pump moves whatever can move and is called after every change.
 *
 * While a request is under way nothing beyond its body is read, so a client that pipelines is held back by its own
 * socket. A FIN while an answer is under way is an abort: a client that closes and one that only shuts down its sending
 * side look the same until a write fails, and an engine must not generate for nobody meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/proxy_int.h"

#define ACCEPT_BATCH 64
#define HEAD_READ    16384

static void client_gone(struct client *c)
{
	if (c->req)
		request_abort(c->req);
	else
		client_close(c, false);
}

static void client_ready(struct loop_fd *f, uint32_t events)
{
	struct client *c = container_of(f, struct client, io);

	if (events & (EPOLLIN | EPOLLRDHUP))
		c->readable = true;
	if (events & EPOLLOUT)
		c->writable = true;
	if (events & EPOLLRDHUP)
		c->rdhup = true;
	if (events & (EPOLLHUP | EPOLLERR)) {
		c->readable = true;
		if (!c->req || !splice_client_readable(c->req, true))
			client_gone(c);
		return;
	}
	client_pump(c);
}

static void client_again(struct loop_work *work)
{
	client_pump(container_of(work, struct client, again));
}

static void client_expired(struct loop_timer *t)
{
	struct client *c = container_of(t, struct client, timer);
	struct worker *w = c->w;
	const struct config_pool *lim = &w->sh->cfg->pools[0];
	uint64_t now = loop_now(w->loop), limit;

	if (c->req) {
		request_tick(c->req, now);
		return;
	}
	limit = c->lingering	  ? LINGER_TIME
		: buf_len(&c->in) ? lim->request_head
		: w->draining	  ? DRAIN_IDLE
				  : lim->client_idle;
	if (now < c->since + limit) {
		client_timer(c, c->since + limit);
		return;
	}
	if (buf_len(&c->in) && !c->closing) {
		stats_inc(w->st, STATS_TIMEOUT_REQUEST);
		answer_error(c, 408, "request_timeout", "The request's head did not arrive in time.", 0, false);
		return;
	}
	if (!c->lingering)
		stats_inc(w->st, STATS_TIMEOUT_CLIENT);
	client_close(c, buf_len(&c->out) > 0);
}

/* Moves the timer only to an earlier time: when it fires too early, it is set again from the state it finds. */
void client_timer(struct client *c, uint64_t at_ns)
{
	if (!loop_timer_armed(&c->timer) || c->timer.node.key > at_ns)
		loop_timer_set(c->w->loop, &c->timer, at_ns);
}

static void client_new(struct worker *w, int fd, unsigned listener)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->w = w;
	c->listener = listener;
	c->writable = true;
	c->since = loop_now(w->loop);
	c->io.ready = client_ready;
	carrier_accepted(w->carrier, &c->conn, fd);
	loop_work_init(&c->again, client_again);
	loop_timer_init(&c->timer, client_expired);
	if (loop_fd_add(w->loop, &c->io, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)) {
		close(fd);
		carrier_closed(w->carrier, &c->conn);
		free(c);
		return;
	}
	list_add_tail(&w->clients, &c->link);
	atomic_fetch_add_explicit(&w->nclients, 1, memory_order_relaxed);
	stats_inc(w->st, STATS_CONN_ACCEPTED);
	atomic_fetch_add_explicit(&w->sh->connections, 1, memory_order_relaxed);
	client_timer(c, c->since + (w->draining ? DRAIN_IDLE : w->sh->cfg->pools[0].client_idle));
}

/* A connection on its way from the worker that accepted it to the one that will have it. */
struct handoff {
	struct loop_post post;
	struct worker *w;
	int fd;
	unsigned listener;
};

static void handoff_run(struct loop_post *p)
{
	struct handoff *h = container_of(p, struct handoff, post);

	client_new(h->w, h->fd, h->listener);
	free(h);
}

/* The kernel spreads connections over the listeners by hash, and streams last for minutes: by chance one worker may
 * have twice as many as another. Whoever has notably more than the least gives the next one away. */
static bool hand_off(struct worker *w, int fd, unsigned listener)
{
	unsigned mine = atomic_load_explicit(&w->nclients, memory_order_relaxed), least = mine;
	struct worker *to = NULL;
	struct handoff *h;

	for (unsigned i = 0; i < w->px->nworkers; i++) {
		unsigned n = atomic_load_explicit(&w->px->workers[i].nclients, memory_order_relaxed);

		if (n < least) {
			least = n;
			to = &w->px->workers[i];
		}
	}
	if (!to || mine <= least + 2 + least / 16)
		return false;
	h = malloc(sizeof(*h));
	if (!h)
		return false;
	*h = (struct handoff){ .post.run = handoff_run, .w = to, .fd = fd, .listener = listener };
	loop_post(to->loop, &h->post);
	return true;
}

void client_accept(struct loop_fd *f, uint32_t events)
{
	struct listener *ls = container_of(f, struct listener, io);

	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = net_accept(f->fd, NULL);

		if (fd < 0)
			return; /* EAGAIN; out of descriptors: the listener's queue holds them */
		if (!hand_off(ls->w, fd, ls->no))
			client_new(ls->w, fd, ls->no);
	}
}

void client_accept_rest(struct listener *ls)
{
	int fd;

	while ((fd = net_accept(ls->io.fd, NULL)) >= 0)
		client_new(ls->w, fd, ls->no);
}

void client_drain(struct client *c)
{
	int unread = 0;

	if (c->req || c->closing || buf_len(&c->in) || buf_len(&c->out))
		return;
	if (c->sent == 0 || ioctl(c->io.fd, FIONREAD, &unread) || unread)
		client_timer(c, loop_now(c->w->loop) + DRAIN_IDLE);
	else
		client_close(c, false);
}

void client_shut(struct client *c, bool reset)
{
	int fd = c->io.fd;

	if (c->shut)
		return;
	c->shut = true;
	loop_fd_del(&c->io);
	if (reset)
		net_reset(fd);
	else
		close(fd);
}

void client_close(struct client *c, bool reset)
{
	struct worker *w = c->w;

	if (c->grave.dead)
		return;
	loop_timer_del(w->loop, &c->timer);
	client_shut(c, reset);
	carrier_closed(w->carrier, &c->conn);
	list_del(&c->link);
	list_del(&c->again.link);
	buf_free(&c->in);
	buf_free(&c->out);
	atomic_fetch_sub_explicit(&w->nclients, 1, memory_order_relaxed);
	stats_inc(w->st, STATS_CONN_CLOSED);
	atomic_fetch_sub_explicit(&w->sh->connections, 1, memory_order_relaxed);
	worker_bury(w, &c->grave);
}

int client_flush(struct client *c)
{
	while (buf_len(&c->out) && c->writable) {
		ssize_t n = send(c->io.fd, buf_data(&c->out), buf_len(&c->out), MSG_NOSIGNAL);

		if (n >= 0) {
			c->sent += (uint64_t)n;
			buf_consume(&c->out, (size_t)n);
			c->since = loop_now(c->w->loop);
		} else if (errno == EAGAIN) {
			c->writable = false;
		} else if (errno != EINTR) {
			return -EPIPE;
		}
	}
	if (buf_len(&c->out) == 0 && c->out.mem)
		buf_free(&c->out);
	return 0;
}

int client_send(struct client *c, const char *p, size_t n)
{
	while (n && c->writable && buf_len(&c->out) == 0) {
		ssize_t k = send(c->io.fd, p, n, MSG_NOSIGNAL);

		if (k >= 0) {
			c->sent += (uint64_t)k;
			p += k;
			n -= (size_t)k;
		} else if (errno == EAGAIN) {
			c->writable = false;
		} else if (errno != EINTR) {
			return -EPIPE;
		}
	}
	return buf_put(&c->out, p, n);
}

/* Read and forget until the peer has seen our end, so that its unread bytes do not make the kernel send a reset that
 * overtakes the answer. */
static void linger(struct client *c)
{
	struct worker *w = c->w;

	while (c->readable) {
		ssize_t n = recv(c->io.fd, w->rx, RX_SIZE, 0);

		if (n > 0) {
			c->drained += (uint32_t)(n >> 10) + 1;
			if (c->drained > LINGER_BYTES >> 10)
				break;
		} else if (n < 0 && errno == EAGAIN) {
			c->readable = false;
			return;
		} else if (n == 0 || errno != EINTR) {
			break;
		}
	}
	if (c->readable)
		client_close(c, false);
}

static void start_close(struct client *c)
{
	/* Nothing unread and nothing more to come: the plain close is clean. */
	if (c->rdhup || (!c->readable && buf_len(&c->in) == 0 && !c->lingering && c->drained == 0)) {
		client_close(c, false);
		return;
	}
	c->lingering = true;
	c->since = loop_now(c->w->loop);
	shutdown(c->io.fd, SHUT_WR);
	client_timer(c, c->since + LINGER_TIME);
	c->readable = true;
	linger(c);
}

/* Bytes of heads. Returns false when there is nothing more to do now. */
static bool read_head(struct client *c)
{
	struct worker *w = c->w;
	struct str head;
	ssize_t n;

	if (buf_len(&c->in)) {
		n = http_head_end(buf_str(&c->in), &c->scanned);
		if (n > 0) {
			head = (struct str){ buf_data(&c->in), (size_t)n };
			c->scanned = 0;
			request_new(c, head);
			return true;
		}
		if (n < 0) {
			bool big = n == -E2BIG;

			stats_inc(w->st, big ? STATS_REFUSED_HEAD : STATS_BAD_REQUEST);
			answer_error(c, big ? 431 : 400, "invalid_request_error",
				     big ? "The request's head is larger than 64 KB."
					 : "The request's head is malformed: lines must end in CRLF and hold no NUL.",
				     0, false);
			return false;
		}
	}
	if (!c->readable)
		return false;
	n = recv(c->io.fd, w->rx, HEAD_READ, 0);
	if (n < 0 && errno == EAGAIN) {
		c->readable = false;
		return false;
	}
	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0) {
		client_close(c, false);
		return false;
	}
	if (n < HEAD_READ && !c->rdhup)
		c->readable = false;
	if (buf_len(&c->in) == 0) {
		c->since = loop_now(w->loop);
		client_timer(c, c->since + w->sh->cfg->pools[0].request_head);
	}
	if (buf_put(&c->in, w->rx, (size_t)n)) {
		client_close(c, true);
		return false;
	}
	return true;
}

static void pump(struct client *c)
{
	if (client_flush(c)) {
		client_gone(c);
		return;
	}
	if (c->lingering) {
		linger(c);
		return;
	}
	while (!c->grave.dead && !c->req && !c->closing)
		if (!read_head(c))
			break;
	if (c->grave.dead)
		return;
	if (c->req && c->req->body_state == BODY_MORE)
		request_body_read(c->req);
	if (!c->grave.dead && c->req && c->req->spliced && (c->readable || c->rdhup) &&
	    splice_client_readable(c->req, false))
		return;
	if (!c->grave.dead && c->req && c->rdhup && c->req->body_state == BODY_DONE) {
		request_abort(c->req);
		return;
	}
	if (!c->grave.dead && c->req && c->req->u)
		relay_pump(c->req);
	if (!c->grave.dead && !c->req && c->closing && buf_len(&c->out) == 0)
		start_close(c);
}

void client_pump(struct client *c)
{
	if (c->grave.dead)
		return;
	if (c->in_pump) {
		loop_defer(c->w->loop, &c->again);
		return;
	}
	c->in_pump = true;
	pump(c);
	c->in_pump = false;
}

void client_answered(struct client *c)
{
	if (c->grave.dead)
		return;
	c->since = loop_now(c->w->loop);
	if (buf_len(&c->in) == 0)
		buf_free(&c->in);
	if (c->w->draining)
		c->closing = true;
	if (c->closing || c->readable || c->rdhup || buf_len(&c->in))
		loop_defer(c->w->loop, &c->again);
	client_timer(c, c->since + c->w->sh->cfg->pools[0].client_idle);
}
