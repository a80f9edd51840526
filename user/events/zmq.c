/* SPDX-License-Identifier: Apache-2.0
 * ZeroMQ's sockets on our loop. Per stream: a SUB for live batches, a PAIR that tells when its connection comes and
 * goes, and while a replay runs a DEALER.
 *
 * The descriptor of a ZeroMQ socket only says "look": it is readable while commands wait, and reading ZMQ_EVENTS or
 * receiving takes them away. So a handler must receive until EAGAIN, or come back by itself (zsock.more).
 *
 * The monitor is drained before each receive: a new connection is announced on it before its first message, so a batch
 * of a restarted engine is never taken for one of the old connection.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#include "events/events_int.h"

#define PARTS_MAX   5
#define BUDGET	    256
#define MESSAGE_MAX (64 << 20)

static uint64_t be64(const void *p)
{
	const uint8_t *b = p;
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | b[i];
	return v;
}

static void zsock_close(struct zsock *z)
{
	if (!z->sock)
		return;
	loop_fd_del(&z->fd);
	list_del(&z->more.link);
	zmq_close(z->sock);
	z->sock = NULL;
}

/* Watch z->sock. */
static int zsock_watch(struct zsock *z, struct stream *s, void (*ready)(struct loop_fd *f, uint32_t ev),
		       void (*more)(struct loop_work *w))
{
	int fd;
	size_t n = sizeof(fd);

	z->s = s;
	z->fd = (struct loop_fd){ .ready = ready, .fd = -1 };
	loop_work_init(&z->more, more);
	if (zmq_getsockopt(z->sock, ZMQ_FD, &fd, &n))
		return -errno;
	return loop_fd_add(s->f->e->loop, &z->fd, fd, EPOLLIN);
}

static int zsock_open(struct zsock *z, struct stream *s, int type)
{
	static const struct {
		int opt, v;
	} rows[] = {
		{ ZMQ_RCVHWM, 100000 },
		{ ZMQ_LINGER, 0 },
		{ ZMQ_RECONNECT_IVL, 100 },
		{ ZMQ_RECONNECT_IVL_MAX, 2000 },
		{ ZMQ_TCP_KEEPALIVE, 1 },
		{ ZMQ_TCP_KEEPALIVE_IDLE, 30 },
		{ ZMQ_TCP_KEEPALIVE_INTVL, 10 },
		{ ZMQ_TCP_KEEPALIVE_CNT, 3 },
		{ ZMQ_IPV6, 1 },
	};
	int64_t max = MESSAGE_MAX;

	z->sock = zmq_socket(s->f->e->zmq, type);
	if (!z->sock)
		return -errno;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (zmq_setsockopt(z->sock, rows[i].opt, &rows[i].v, sizeof(rows[i].v)))
			return -errno;
	return zmq_setsockopt(z->sock, ZMQ_MAXMSGSIZE, &max, sizeof(max)) ? -errno : 0;
}

/* A message's first PARTS_MAX frames. Returns how many it has, or -EAGAIN. Close them with parts_close. */
static int parts_recv(void *sock, zmq_msg_t parts[PARTS_MAX])
{
	int n = 0, more = 1;

	while (more) {
		zmq_msg_t m;

		zmq_msg_init(&m);
		if (zmq_msg_recv(&m, sock, ZMQ_DONTWAIT) < 0) {
			zmq_msg_close(&m);
			for (int i = 0; i < n && i < PARTS_MAX; i++)
				zmq_msg_close(&parts[i]);
			return -EAGAIN;
		}
		more = zmq_msg_more(&m);
		if (n < PARTS_MAX)
			parts[n] = m;
		else
			zmq_msg_close(&m);
		n++;
	}
	return n;
}

static void parts_close(zmq_msg_t parts[PARTS_MAX], int n)
{
	for (int i = 0; i < n && i < PARTS_MAX; i++)
		zmq_msg_close(&parts[i]);
}

static bool sub_drain(struct stream *s, unsigned budget)
{
	zmq_msg_t p[PARTS_MAX];
	int n;

	while (budget-- && s->sub.sock) {
		n = parts_recv(s->sub.sock, p);
		if (n < 0)
			return true;
		/* Frame 0, the topic, says nothing: who speaks is known by the connection. */
		if (n == 3 && zmq_msg_size(&p[1]) == 8)
			stream_live(s, be64(zmq_msg_data(&p[1])), zmq_msg_data(&p[2]), zmq_msg_size(&p[2]));
		else
			stats_inc(s->f->e->st, STATS_EVENT_BAD_FRAME);
		parts_close(p, n);
	}
	return false;
}

static void mon_drain(struct stream *s)
{
	zmq_msg_t p[PARTS_MAX];
	int n;

	while (s->mon.sock && (n = parts_recv(s->mon.sock, p)) > 0) {
		uint16_t event = 0;

		if (zmq_msg_size(&p[0]) >= sizeof(event))
			memcpy(&event, zmq_msg_data(&p[0]), sizeof(event));
		parts_close(p, n);
		if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
			stream_up(s);
		} else if (event == ZMQ_EVENT_DISCONNECTED) {
			/* What the old connection brought belongs to it. */
			sub_drain(s, 100000);
			stream_down(s);
		}
	}
}

static void sub_look(struct stream *s)
{
	mon_drain(s);
	if (!sub_drain(s, BUDGET))
		loop_defer(s->f->e->loop, &s->sub.more);
}

static void sub_ready(struct loop_fd *f, uint32_t ev)
{
	sub_look(container_of(f, struct zsock, fd)->s);
}

static void sub_more(struct loop_work *w)
{
	sub_look(container_of(w, struct zsock, more)->s);
}

static void mon_ready(struct loop_fd *f, uint32_t ev)
{
	mon_drain(container_of(f, struct zsock, fd)->s);
}

static void mon_more(struct loop_work *w)
{
	mon_drain(container_of(w, struct zsock, more)->s);
}

/* "tcp://host:port" of rank r is port + r; what has no port gets a suffix, as the engines do it. */
static int endpoint_of(const char *base, unsigned rank, char *out, size_t n)
{
	const char *colon = strrchr(base, ':');
	char *end = NULL;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
	int r;

	if (!rank)
		r = snprintf(out, n, "%s", base);
	else if (colon && end != colon + 1 && !*end && port)
		r = snprintf(out, n, "%.*s:%lu", (int)(colon - base), base, port + rank);
	else
		r = snprintf(out, n, "%s_dp%u", base, rank);
	return r > 0 && (size_t)r < n ? 0 : -ENAMETOOLONG;
}

int zmq_follow(struct stream *s)
{
	char url[160], mon[64];
	int r;

	r = endpoint_of(s->f->events, s->rank, url, sizeof(url));
	if (r)
		return r;
	r = zsock_open(&s->sub, s, ZMQ_SUB);
	if (r)
		goto fail;
	snprintf(mon, sizeof(mon), "inproc://mon-%p", (void *)s);
	if (zmq_setsockopt(s->sub.sock, ZMQ_SUBSCRIBE, "", 0) ||
	    zmq_socket_monitor(s->sub.sock, mon, ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED)) {
		r = -errno;
		goto fail;
	}
	s->mon.sock = zmq_socket(s->f->e->zmq, ZMQ_PAIR);
	if (!s->mon.sock || zmq_connect(s->mon.sock, mon)) {
		r = -errno;
		goto fail;
	}
	r = zsock_watch(&s->mon, s, mon_ready, mon_more);
	if (r)
		goto fail;
	r = zsock_watch(&s->sub, s, sub_ready, sub_more);
	if (r)
		goto fail;
	if (zmq_connect(s->sub.sock, url)) {
		r = -errno;
		goto fail;
	}
	loop_defer(s->f->e->loop, &s->sub.more);
	return 0;
fail:
	zmq_unfollow(s);
	return r;
}

void zmq_unfollow(struct stream *s)
{
	zmq_ask_close(s);
	if (s->sub.sock)
		zmq_socket_monitor(s->sub.sock, NULL, 0);
	zsock_close(&s->mon);
	zsock_close(&s->sub);
}

/* --- replay --- */

/* After the empty delimiter: [topic] number payload; the end has number 2^64 - 1. */
static void reply_frames(struct stream *s, zmq_msg_t p[PARTS_MAX], int n)
{
	uint64_t seq;

	if ((n != 3 && n != 4) || zmq_msg_size(&p[0]) || zmq_msg_size(&p[n - 2]) != 8) {
		stats_inc(s->f->e->st, STATS_EVENT_BAD_FRAME);
		return;
	}
	seq = be64(zmq_msg_data(&p[n - 2]));
	if (seq == UINT64_MAX)
		stream_end(s);
	else
		stream_reply(s, seq, zmq_msg_data(&p[n - 1]), zmq_msg_size(&p[n - 1]));
}

static void replay_look(struct stream *s)
{
	zmq_msg_t p[PARTS_MAX];
	void *sock = s->replay.sock;
	int n;

	/* An answer can end this replay and begin another on a new socket. */
	for (unsigned budget = BUDGET; budget && s->replay.sock && s->replay.sock == sock; budget--) {
		n = parts_recv(sock, p);
		if (n < 0)
			return;
		reply_frames(s, p, n);
		parts_close(p, n);
	}
	if (s->replay.sock)
		loop_defer(s->f->e->loop, &s->replay.more);
}

static void replay_ready(struct loop_fd *f, uint32_t ev)
{
	replay_look(container_of(f, struct zsock, fd)->s);
}

static void replay_more(struct loop_work *w)
{
	replay_look(container_of(w, struct zsock, more)->s);
}

int zmq_ask(struct stream *s, uint64_t from)
{
	uint8_t start[8];
	char url[160];
	int r;

	zmq_ask_close(s);
	r = endpoint_of(s->f->replay, s->rank, url, sizeof(url));
	if (r)
		return r;
	r = zsock_open(&s->replay, s, ZMQ_DEALER);
	if (!r)
		r = zsock_watch(&s->replay, s, replay_ready, replay_more);
	if (r)
		goto fail;
	for (int i = 0; i < 8; i++)
		start[i] = (uint8_t)(from >> (56 - 8 * i));
	if (zmq_connect(s->replay.sock, url) || zmq_send(s->replay.sock, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0 ||
	    zmq_send(s->replay.sock, start, sizeof(start), ZMQ_DONTWAIT) < 0) {
		r = -errno;
		goto fail;
	}
	loop_defer(s->f->e->loop, &s->replay.more);
	return 0;
fail:
	zmq_ask_close(s);
	return r;
}

void zmq_ask_close(struct stream *s)
{
	zsock_close(&s->replay);
}
