/* SPDX-License-Identifier: Apache-2.0
 * A gateway on the datapath's own interface, as short as one can be: it follows the sequence of datapath.h and nothing
 * else. A thread with a loop and a carrier_worker of its own per client connection; the ends are splice_peers.h's.
 */
#ifndef KVS_SELFTESTS_CARRIER_GATEWAY_H
#define KVS_SELFTESTS_CARRIER_GATEWAY_H

#include "splice_peers.h"

#include "base/time.h"
#include "datapath/datapath.h"

/* Shared with the test. */
struct gateway_report {
	_Atomic unsigned ready, events[CARRIER_EVENTS_N], tails, bad_tails, bound, unbound_busy, open;
	_Atomic unsigned whys[CARRIER_WHYS_N];
	_Atomic uint64_t spliced_bytes;
};

static struct gateway_report *gw;
static struct datapath *gateway_dp;
static const char *gateway_listen = ":8080";

struct link {
	int fd;
	struct carrier_conn conn;
	uint64_t bytes; /* read from U, written to C */
};

struct talk {
	struct link c, u[PODS];
	struct loop *loop;
	struct carrier_worker *w;
	struct carrier_pair pair;
	struct request q;
	struct link *pod;
	struct http_chunks chunks;
	uint64_t left;
	bool body, ended, done, failed;
	uint8_t buf[MAX_BULK];
};

/* What the tail must be: the body's last bytes, here only for framings without chunks. */
static inline void tail_check(const struct talk *t, const struct carrier_event *e)
{
	gw->tails++;
	if (t->q.framing == KVS_CHUNKED) {
		if (e->tail_n < 5 || memcmp(e->tail + e->tail_n - 4, "\r\n\r\n", 4) != 0)
			gw->bad_tails++;
	} else if (e->tail_n > t->q.size ||
		   memcmp(e->tail, body_at(t->q.seed, t->q.size - e->tail_n), e->tail_n) != 0) {
		gw->bad_tails++;
	}
}

static inline void talk_event(void *arg, struct carrier_pair *p, const struct carrier_event *e)
{
	struct talk *t = arg;

	gw->events[e->type]++;
	if (e->tail_n)
		tail_check(t, e);
	if (e->type == CARRIER_ENDED)
		t->ended = true;
	else if (e->type == CARRIER_DONE)
		t->done = true;
	else
		t->failed = true;
}

static inline void talk_unbind(struct talk *t, bool force)
{
	struct carrier_view v;

	if (!t->pair.id)
		return;
	if (carrier_unbind(t->w, &t->pair, force, &v))
		gw->unbound_busy++;
	gw->spliced_bytes += v.bytes;
	if (v.bytes)
		report->spliced++;
	else
		report->relayed++;
}

/* Any other end. */
static inline int talk_break(struct talk *t)
{
	carrier_closing(t->w, &t->pair);
	net_reset(t->pod->fd);
	net_reset(t->c.fd);
	talk_unbind(t, true);
	carrier_closed(t->w, &t->pod->conn);
	carrier_closed(t->w, &t->c.conn);
	t->pod->fd = t->c.fd = -1;
	return -1;
}

static inline int pod_dial(struct talk *t, unsigned pod)
{
	struct net_addr a = { .len = sizeof(a.v6) };
	struct link *l = &t->u[pod];
	struct pollfd p = { .events = POLLOUT };
	struct sockaddr_storage ss;
	bool v4;

	getpeername(t->c.fd, &a.sa, &a.len);
	v4 = a.sa.sa_family == AF_INET || IN6_IS_ADDR_V4MAPPED(&a.v6.sin6_addr);
	a.len = sockaddr_make(&ss, v4 ? AF_INET : AF_INET6, "2", 2, POD_PORT + (int)pod);
	memcpy(&a.sa, &ss, a.len);
	l->bytes = 0;
	l->fd = net_socket(&a);
	carrier_dialing(t->w, &l->conn, l->fd, &t->c.conn);
	p.fd = l->fd;
	if (net_connect(l->fd, &a) || poll(&p, 1, 5000) != 1 || net_error(l->fd)) {
		close(l->fd);
		carrier_closed(t->w, &l->conn);
		l->fd = -1;
		return -1;
	}
	carrier_connected(t->w, &l->conn, l->fd);
	return 0;
}

static inline int talk_begin(struct talk *t)
{
	uint8_t head[HEAD_GW] = { 0 };
	enum carrier_why why;

	if (t->pod->fd < 0 && pod_dial(t, t->q.pod % PODS))
		return -1;
	why = carrier_bind(t->w, &t->pair, &t->c.conn, &t->pod->conn, time_mono());
	gw->whys[why]++;
	gw->bound += !why;
	t->ended = t->done = t->failed = false;
	if (write_full(t->pod->fd, &t->q, sizeof(t->q)) || read_full(t->pod->fd, head, HEAD_POD) <= 0)
		return talk_break(t);
	t->pod->bytes += HEAD_POD;
	if (write_full(t->c.fd, head, sizeof(head)))
		return talk_break(t);
	t->c.bytes += sizeof(head);
	t->body = true;
	t->left = t->q.size;
	http_chunks_init(&t->chunks);
	return 0;
}

static inline enum carrier_arm talk_arm(struct talk *t)
{
	static const enum http_framing framings[] = {
		[KVS_UNTIL_CLOSE] = HTTP_UNTIL_CLOSE, [KVS_LENGTH] = HTTP_LENGTH, [KVS_CHUNKED] = HTTP_CHUNKED
	};
	struct carrier_arming a = { .c_fd = t->c.fd,
				    .u_fd = t->pod->fd,
				    .u_read = t->pod->bytes,
				    .c_written = t->c.bytes,
				    .framing = framings[t->q.framing],
				    .left = t->left,
				    .chunks = &t->chunks };

	return carrier_arm(t->w, &t->pair, &a);
}

/* 1: relay on, 0: complete, -1: broken off. */
static inline int talk_wait(struct talk *t)
{
	for (;;) {
		struct pollfd p[2] = { { .fd = t->pod->fd, .events = POLLIN }, { .fd = t->c.fd, .events = POLLRDHUP } };
		struct carrier_view v = { .state = KVS_FREE };

		loop_turn(t->loop, 2);
		if (t->failed)
			return talk_break(t);
		if (t->done)
			return 0;
		poll(p, 2, 0);
		if ((!p[0].revents && !p[1].revents) || t->ended)
			continue;
		if (carrier_look(t->w, &t->pair, &v) || (p[1].revents && v.state < KVS_ENDED))
			return talk_break(t);
		if (v.state == KVS_RELAY)
			return 1;
		if (v.state == KVS_ARMED && recv(t->pod->fd, t->buf, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
			talk_unbind(t, false);
			return 1;
		}
	}
}

static inline int talk_relay(struct talk *t)
{
	struct pollfd p = { .fd = t->pod->fd, .events = POLLIN };

	while (t->body) {
		ssize_t n = recv(t->pod->fd, t->buf, sizeof(t->buf), 0), k = n;

		if (n < 0 && errno == EAGAIN) {
			if (talk_arm(t) == CARRIER_ARMED) {
				int r = talk_wait(t);

				if (r <= 0)
					return r;
			} else {
				poll(&p, 1, 60000);
			}
			continue;
		}
		if (n == 0 && t->q.framing == KVS_UNTIL_CLOSE)
			break;
		if (n <= 0)
			return talk_break(t);
		t->pod->bytes += (uint64_t)n;
		if (t->q.framing == KVS_CHUNKED) {
			k = http_chunks_walk(&t->chunks, (char *)t->buf, (size_t)n, NULL, NULL);
			t->body = !http_chunks_done(&t->chunks);
		} else if (t->q.framing == KVS_LENGTH) {
			k = t->left < (uint64_t)n ? (ssize_t)t->left : n;
			t->left -= (uint64_t)k;
			t->body = t->left > 0;
		}
		if (k != n || write_full(t->c.fd, t->buf, (size_t)k))
			return talk_break(t);
		t->c.bytes += (uint64_t)k;
	}
	return 0;
}

static inline void talk_close(struct talk *t, struct link *l)
{
	if (l->fd < 0)
		return;
	close(l->fd);
	carrier_closed(t->w, &l->conn);
	l->fd = -1;
}

static inline void *talk_run(void *arg)
{
	struct talk *t = arg;

	gw->open++;
	t->loop = loop_new();
	t->w = carrier_worker_new(gateway_dp, t->loop, talk_event, t);
	carrier_accepted(t->w, &t->c.conn, t->c.fd);
	while (read_full(t->c.fd, &t->q, sizeof(t->q)) > 0) {
		t->pod = &t->u[t->q.pod % PODS];
		if (talk_begin(t) || talk_relay(t))
			break;
		if (t->q.framing == KVS_UNTIL_CLOSE) {
			carrier_closing(t->w, &t->pair);
			shutdown(t->c.fd, SHUT_WR);
			talk_unbind(t, false);
			talk_close(t, t->pod);
			break;
		}
		talk_unbind(t, false);
	}
	talk_close(t, &t->c);
	for (unsigned i = 0; i < PODS; i++)
		talk_close(t, &t->u[i]);
	carrier_worker_free(t->w);
	loop_free(t->loop);
	free(t);
	gw->open--;
	return NULL;
}

/* For ever. <pods>: whether the datapath is told of them. */
static inline void gateway_run(const struct datapath_opts *o)
{
	char why[DATAPATH_WHY_MAX];
	struct datapath_pod pods[2 * PODS];
	struct net_addr any;
	struct sockaddr_storage ss;
	int l, fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	gateway_dp = datapath_open(o, why);
	if (!gateway_dp || why[0]) {
		fprintf(stderr, "%s\n", why);
		_exit(1);
	}
	for (unsigned i = 0; i < 2 * PODS; i++) {
		pods[i].addr.len =
			sockaddr_make(&ss, i < PODS ? AF_INET : AF_INET6, "2", 2, POD_PORT + (int)(i % PODS));
		memcpy(&pods[i].addr.sa, &ss, pods[i].addr.len);
	}
	net_addr_parse(str_of(gateway_listen), &any);
	if (datapath_set_pods(gateway_dp, pods, 2 * PODS) || datapath_set_listeners(gateway_dp, &any, 1)) {
		fprintf(stderr, "%s\n", datapath_why(gateway_dp));
		_exit(1);
	}
	l = net_listen(&any, 1024);
	if (l < 0)
		_exit(1);
	gw->ready++;
	for (uint64_t next = 0;;) {
		struct pollfd p = { .fd = l, .events = POLLIN };

		if (time_mono() >= next) {
			datapath_refresh(gateway_dp);
			next = time_mono() + NS_PER_S / 10;
		}
		poll(&p, 1, 50);
		fd = net_accept(l, NULL);
		if (fd >= 0) {
			struct talk *t = calloc(1, sizeof(*t));

			t->c.fd = fd;
			for (unsigned i = 0; i < PODS; i++)
				t->u[i].fd = -1;
			thread_start(talk_run, t);
		}
	}
}

#endif
