/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections to pods: dialed, bound to one request at a time, pooled while idle. An idle one is still watched, so a
 * pod that closes it takes it out of the pool at once; what slips through between that and the next request is a stale
 * connection, which request.c answers with a fresh one.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "proxy/proxy_int.h"

static void upstream_ready(struct loop_fd *f, uint32_t events)
{
	struct upstream *u = container_of(f, struct upstream, io);
	struct request *r = u->req;

	if (!r) {
		if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			upstream_close(u, false);
		return;
	}
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		u->readable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		u->hup = true;
	if (events & EPOLLOUT)
		u->writable = true;
	if (u->connecting) {
		int e = net_error(f->fd);

		if (e || events & (EPOLLHUP | EPOLLERR)) {
			request_failed(r, POD_CONNECT_FAILED);
			return;
		}
		if (!u->writable)
			return;
		u->connecting = false;
		carrier_connected(u->w->carrier, &u->conn, f->fd);
		request_unqueue(r);
		r->last_ns = loop_now(u->w->loop);
	}
	if (u->writable)
		request_send(r);
	if (!r->grave.dead && u->readable)
		relay_pump(r);
}

static struct pod_idle *idle_of(struct worker *w, struct pod *p)
{
	struct pod_idle *v;

	for (unsigned i = 0; i < w->nidle; i++)
		if (w->idle[i].pod == p)
			return &w->idle[i];
	for (unsigned i = 0; i < w->nidle; i++)
		if (!w->idle[i].pod) {
			w->idle[i].pod = pod_ref(p);
			return &w->idle[i];
		}
	v = calloc(w->nidle + 16, sizeof(*v));
	if (!v)
		return NULL;
	for (unsigned i = 0; i < w->nidle + 16; i++) {
		list_init(&v[i].idle);
		if (i < w->nidle) { /* the heads move: hang the rings on the new ones */
			v[i].pod = w->idle[i].pod;
			v[i].n = w->idle[i].n;
			if (!list_empty(&w->idle[i].idle)) {
				list_add(&w->idle[i].idle, &v[i].idle);
				list_del(&w->idle[i].idle);
			}
		}
	}
	free(w->idle);
	w->idle = v;
	v += w->nidle;
	w->nidle += 16;
	v->pod = pod_ref(p);
	return v;
}

static struct upstream *dial(struct client *c, struct pod *p)
{
	struct upstream *u = calloc(1, sizeof(*u));
	struct worker *w = c->w;
	int fd, r;

	if (!u)
		return NULL;
	fd = net_socket(&p->spec.addr);
	if (fd < 0) {
		free(u);
		errno = -fd;
		return NULL;
	}
	carrier_dialing(w->carrier, &u->conn, fd, &c->conn);
	r = net_connect(fd, &p->spec.addr);
	if (r)
		goto failed;
	u->w = w;
	u->connecting = true;
	u->io.ready = upstream_ready;
	list_init(&u->link);
	r = loop_fd_add(w->loop, &u->io, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	if (r)
		goto failed;
	u->pod = pod_ref(p);
	stats_inc(w->st, STATS_UP_DIALED);
	return u;
failed:
	close(fd);
	carrier_closed(w->carrier, &u->conn);
	free(u);
	errno = -r;
	return NULL;
}

/* The most recently used one that could be spliced with the client; else the most recently used one. */
static struct upstream *choose(struct pod_idle *pi, const struct client *c)
{
	list_for_each (it, &pi->idle) {
		struct upstream *u = container_of(it, struct upstream, link);

		if (c->conn.why != CARRIER_WHY_OK || carrier_fits(&c->conn, &u->conn) == CARRIER_WHY_OK)
			return u;
	}
	return container_of(pi->idle.next, struct upstream, link);
}

struct upstream *upstream_get(struct client *c, struct pod *p, bool fresh)
{
	struct worker *w = c->w;
	struct pod_idle *pi = fresh ? NULL : idle_of(w, p);

	while (pi && !list_empty(&pi->idle)) {
		struct upstream *u = choose(pi, c);

		if (net_idle_dead(u->io.fd) ||
		    (c->conn.why == CARRIER_WHY_OK && carrier_outdated(w->carrier, &u->conn))) {
			upstream_close(u, false);
			continue;
		}
		list_del(&u->link);
		pi->n--;
		u->heard = u->readable = u->hup = false;
		u->reused = true;
		stats_inc(w->st, STATS_UP_REUSED);
		return u;
	}
	return dial(c, p);
}

void upstream_put(struct upstream *u)
{
	struct worker *w = u->w;
	struct pod_idle *pi = idle_of(w, u->pod);

	u->req = NULL;
	if (!pi || pi->n >= POOL_PER_POD || u->hup || w->draining || buf_len(&u->in) ||
	    atomic_load(&u->pod->down) & POD_DOWN_REMOVED) {
		upstream_close(u, false);
		return;
	}
	buf_free(&u->in);
	u->scanned = 0;
	u->idle_since = loop_now(w->loop);
	list_add(&pi->idle, &u->link);
	pi->n++;
}

void upstream_shut(struct upstream *u, bool reset)
{
	int fd = u->io.fd;

	if (u->shut)
		return;
	u->shut = true;
	loop_fd_del(&u->io);
	if (reset)
		net_reset(fd);
	else
		close(fd);
}

void upstream_close(struct upstream *u, bool reset)
{
	struct worker *w = u->w;

	if (u->grave.dead)
		return;
	if (u->req)
		splice_unbind(u->req);
	upstream_shut(u, reset);
	carrier_closed(w->carrier, &u->conn);
	if (!list_empty(&u->link)) {
		idle_of(w, u->pod)->n--;
		list_del(&u->link);
	}
	if (u->req)
		u->req->u = NULL;
	buf_free(&u->in);
	pod_unref(u->pod);
	worker_bury(w, &u->grave);
}

void upstream_sweep(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, sweep);
	uint64_t now = loop_now(w->loop);

	for (unsigned i = 0; i < w->nidle; i++) {
		struct pod_idle *pi = &w->idle[i];
		bool gone;

		if (!pi->pod)
			continue;
		gone = atomic_load(&pi->pod->down) & POD_DOWN_REMOVED;
		while (!list_empty(&pi->idle)) {
			struct upstream *u = container_of(pi->idle.prev, struct upstream, link);

			if (!gone && u->idle_since + POOL_IDLE_MAX > now)
				break;
			upstream_close(u, false);
		}
		if (gone) {
			pod_unref(pi->pod);
			pi->pod = NULL;
		}
	}
	worker_slim(w);
	loop_timer_set(w->loop, t, now + NS_PER_S);
}

void upstream_close_idle(struct worker *w)
{
	for (unsigned i = 0; i < w->nidle; i++) {
		struct pod_idle *pi = &w->idle[i];

		while (!list_empty(&pi->idle))
			upstream_close(container_of(pi->idle.next, struct upstream, link), false);
		if (pi->pod)
			pod_unref(pi->pod);
		pi->pod = NULL;
	}
}
