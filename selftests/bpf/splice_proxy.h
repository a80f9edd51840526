/* SPDX-License-Identifier: Apache-2.0
 * The smallest gateway that splices: accepts, picks the pod that the request names, relays, arms, waits. A thread per
 * client connection, with connections of its own to the pods that are kept for its next requests. Whether a splice has
 * ended it reads from kvs_splices.
 */
#ifndef KVS_SELFTESTS_SPLICE_PROXY_H
#define KVS_SELFTESTS_SPLICE_PROXY_H

#include "splice_peers.h"

#include <linux/sockios.h>

#include "datapath/splice_int.h"

struct fds {
	int conn_add, conn_close, bind, arm, closing, unbind; /* programs */
	int splices, dials;				      /* maps */
};

static struct fds fds;
static struct {
	bool relay_only, no_maxseg, keepalive;
	uint32_t cap;
	_Atomic unsigned next_id;
} proxy;

struct side {
	int fd;
	struct kvs_tuple t;
	uint64_t born, bytes; /* read from U, written to C */
	bool known;	      /* has an entry in kvs_conns */
};

struct session {
	struct side c, u[PODS];
	uint32_t id, gen;
	uint8_t buf[MAX_BULK];
	/* the response under way */
	struct request q;
	struct side *pod;
	struct http_chunks chunks;
	uint64_t left; /* of a length */
	bool body, bound;
};

static inline void addr_put(struct kvs_addr *a, uint16_t *port, const struct sockaddr_storage *ss)
{
	const struct sockaddr_in *in = (const void *)ss;
	const struct sockaddr_in6 *in6 = (const void *)ss;

	memset(a, 0, sizeof(*a));
	if (ss->ss_family == AF_INET) {
		a->b[10] = a->b[11] = 0xff;
		memcpy(a->b + 12, &in->sin_addr, 4);
	} else {
		memcpy(a->b, &in6->sin6_addr, 16);
	}
	*port = ntohs(in->sin_port);
}

static inline void side_add(struct side *s, enum kvs_side which)
{
	struct kvs_conn_add_args a = { .side = which };
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	getpeername(s->fd, (struct sockaddr *)&ss, &len);
	addr_put(&s->t.raddr, &s->t.rport, &ss);
	len = sizeof(ss);
	getsockname(s->fd, (struct sockaddr *)&ss, &len);
	addr_put(&s->t.laddr, &s->t.lport, &ss);
	a.tuple = s->t;
	s->bytes = 0;
	s->known = prog_call(fds.conn_add, &a, sizeof(a)) == 0;
	s->born = a.born;
	if (!s->known)
		report->proxy_bad++;
}

static inline void side_close(struct side *s)
{
	struct kvs_conn_close_args a = { .tuple = s->t, .born = s->born };

	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	if (s->known)
		prog_call(fds.conn_close, &a, sizeof(a));
	s->known = false;
}

static inline int pod_connect(struct session *s, unsigned pod)
{
	struct sockaddr_storage ss, peer;
	socklen_t len = sizeof(peer), ilen = sizeof(struct tcp_info), clen = sizeof(uint64_t);
	struct tcp_info ti;
	uint32_t one = 1;
	uint64_t cookie;
	int fd, on = 1, mss;

	getpeername(s->c.fd, (struct sockaddr *)&peer, &len);
	if (IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *)&peer)->sin6_addr))
		peer.ss_family = AF_INET;
	len = sockaddr_make(&ss, peer.ss_family, "2", 2, POD_PORT + (int)pod);
	fd = socket(peer.ss_family, SOCK_STREAM, 0);
	getsockopt(s->c.fd, IPPROTO_TCP, TCP_INFO, &ti, &ilen);
	mss = (int)ti.tcpi_snd_mss;
	if (!proxy.no_maxseg)
		setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof(mss));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &clen) < 0 ||
	    bpf_map_update_elem(fds.dials, &cookie, &one, BPF_ANY) < 0)
		report->proxy_bad++;
	if (connect(fd, (struct sockaddr *)&ss, len) < 0) {
		close(fd);
		return -errno;
	}
	bpf_map_delete_elem(fds.dials, &cookie);
	s->u[pod].fd = fd;
	side_add(&s->u[pod], KVS_SIDE_U);
	return 0;
}

/* Follows the framing of what is relayed. How many bytes belong to the response, or an error; s->body false: it has
 * ended. */
static inline ssize_t framing_follow(struct session *s, size_t n)
{
	ssize_t r = (ssize_t)n;

	if (s->q.framing == KVS_LENGTH) {
		r = s->left < n ? (ssize_t)s->left : r;
		s->left -= (uint64_t)r;
		s->body = s->left > 0;
	} else if (s->q.framing == KVS_CHUNKED) {
		r = http_chunks_walk(&s->chunks, (char *)s->buf, n, NULL, NULL);
		s->body = !http_chunks_done(&s->chunks);
	}
	return r;
}

static inline bool try_arm(struct session *s)
{
	struct kvs_arm_args a = { .splice = s->id,
				  .gen = s->gen,
				  .u_read = s->pod->bytes,
				  .c_written = s->c.bytes,
				  .left = s->left,
				  .first_at = s->pod->bytes > HEAD_POD ? now_us() * 1000 : 0,
				  .cap = proxy.cap,
				  .framing = s->q.framing };
	uint64_t left;
	int queued = 1, r;

	if (!s->bound || proxy.relay_only || ioctl(s->pod->fd, SIOCOUTQ, &queued) < 0 || queued)
		return false;
	if (s->q.framing == KVS_CHUNKED && !frame_walk(&s->chunks, &a.walk, &left))
		return false;
	if (s->q.framing == KVS_CHUNKED)
		a.left = left;
	report->arm_tries++;
	r = prog_call(fds.arm, &a, sizeof(a));
	report->results[a.result < KVS_ARM_N ? a.result : 0]++;
	if (!r)
		report->arms++;
	else if (a.result == KVS_ARM_MISCOUNT || a.result == KVS_ARM_UNBOUND || a.result == KVS_ARM_FRAMING)
		report->proxy_bad++;
	return !r;
}

static inline void unbind(struct session *s, uint32_t force)
{
	struct kvs_unbind_args a = { .splice = s->id, .gen = s->gen, .force = force };
	int r;

	if (!s->bound)
		return;
	do {
		r = prog_call(fds.unbind, &a, sizeof(a));
	} while (r == -EAGAIN);
	if (r)
		report->proxy_bad++;
	if (a.state == KVS_DONE)
		report->spliced++;
	else
		report->relayed++;
	s->bound = false;
}

static inline void closing(struct session *s)
{
	struct kvs_closing_args a = { .splice = s->id, .gen = s->gen };

	if (s->bound && prog_call(fds.closing, &a, sizeof(a)))
		report->proxy_bad++;
}

/* The response cannot be completed: reset both, the pod first. */
static inline int break_off(struct session *s, const char *why)
{
	if (getenv("V"))
		fprintf(stderr, "splice %u, framing %u: %s\n", s->id, s->q.framing, why);
	closing(s);
	linger_zero(s->pod->fd);
	close(s->pod->fd);
	s->pod->fd = -1;
	linger_zero(s->c.fd);
	close(s->c.fd);
	s->c.fd = -1;
	unbind(s, KVS_UNBIND_FORCE);
	return -1;
}

static inline void splice_look(uint32_t id, struct kvs_splice *sp)
{
	if (bpf_map_lookup_elem_flags(fds.splices, &id, sp, BPF_F_LOCK) < 0)
		report->proxy_bad++;
}

/* Until the splice is over. 1: relay on; 0: the response is complete; -1: broken off. */
static inline int spliced_wait(struct session *s)
{
	bool closed = false;

	for (;;) {
		struct pollfd p[2] = { { .fd = s->pod->fd, .events = POLLIN | POLLRDHUP },
				       { .fd = s->c.fd, .events = POLLRDHUP } };
		struct kvs_splice sp;

		poll(p, 2, 1);
		splice_look(s->id, &sp);
		if (sp.state == KVS_RELAY)
			return 1;
		if (sp.state == KVS_DONE && s->q.framing != KVS_UNTIL_CLOSE)
			return 0;
		if (sp.state >= KVS_ENDED && s->q.framing == KVS_UNTIL_CLOSE && !closed) {
			closing(s);
			shutdown(s->c.fd, SHUT_WR);
			shutdown(s->pod->fd, SHUT_WR);
			closed = true;
		}
		if (closed && sp.state == KVS_DONE)
			return 0;
		if (sp.flags & KVS_F_BROKEN)
			return break_off(s, "0");
		if (sp.state < KVS_ENDED && (p[1].revents & (POLLRDHUP | POLLHUP | POLLERR)))
			return break_off(s, "1");
		if (sp.state == KVS_ACTIVE && (p[0].revents & (POLLRDHUP | POLLHUP | POLLERR)))
			return break_off(s, "2");
	}
}

static inline int response_relay(struct session *s)
{
	struct pollfd p = { .fd = s->pod->fd, .events = POLLIN };

	while (s->body) {
		ssize_t n = recv(s->pod->fd, s->buf, sizeof(s->buf), MSG_DONTWAIT);
		ssize_t ours;
		int r;

		if (n < 0 && errno == EAGAIN) {
			if (try_arm(s)) {
				r = spliced_wait(s);
				if (r <= 0)
					return r;
				continue;
			}
			poll(&p, 1, 100);
			continue;
		}
		if (n == 0 && s->q.framing == KVS_UNTIL_CLOSE)
			return 0;
		if (n <= 0)
			return break_off(s, "3");
		s->pod->bytes += (uint64_t)n;
		ours = framing_follow(s, (size_t)n);
		if (ours > 0 && write_full(s->c.fd, s->buf, (size_t)ours))
			return break_off(s, "4");
		s->c.bytes += ours > 0 ? (size_t)ours : 0;
		if (ours < n)
			return break_off(s, "5");
	}
	return 0;
}

static inline int response_begin(struct session *s)
{
	struct kvs_bind_args b = {
		.splice = s->id, .gen = ++s->gen, .cookie = s->id * 1000ULL, .owner = (uint64_t)getpid()
	};
	uint8_t head[HEAD_GW] = { 0 };
	int r;

	b.c = s->c.t;
	b.u = s->pod->t;
	if (s->c.known && s->pod->known) {
		r = prog_call(fds.bind, &b, sizeof(b));
		s->bound = r == 0;
		if (r)
			report->proxy_bad++;
	}
	if (write_full(s->pod->fd, &s->q, sizeof(s->q)) || read_full(s->pod->fd, head, HEAD_POD) <= 0)
		return break_off(s, "6");
	s->pod->bytes += HEAD_POD;
	if (write_full(s->c.fd, head, sizeof(head)))
		return break_off(s, "7");
	s->c.bytes += sizeof(head);
	http_chunks_init(&s->chunks);
	s->left = s->q.framing == KVS_LENGTH ? s->q.size : 0;
	s->body = true;
	return 0;
}

static inline void *proxy_serve(void *arg)
{
	struct session *s = arg;
	int one = 1;

	setsockopt(s->c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (proxy.keepalive) {
		setsockopt(s->c.fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
		setsockopt(s->c.fd, IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof(one));
		setsockopt(s->c.fd, IPPROTO_TCP, TCP_KEEPINTVL, &one, sizeof(one));
	}
	side_add(&s->c, KVS_SIDE_C);
	while (read_full(s->c.fd, &s->q, sizeof(s->q)) > 0) {
		s->pod = &s->u[s->q.pod % PODS];
		if (s->pod->fd < 0 && pod_connect(s, s->q.pod % PODS))
			break;
		if (response_begin(s) || response_relay(s))
			break;
		unbind(s, 0);
		for (uint32_t n = s->q.junk; n;) {
			uint32_t k = n < MAX_BULK ? n : MAX_BULK;

			if (read_full(s->c.fd, s->buf, k) <= 0)
				break;
			n -= k;
		}
		if (s->q.framing == KVS_UNTIL_CLOSE) {
			side_close(s->pod);
			break;
		}
	}
	side_close(&s->c);
	for (unsigned i = 0; i < PODS; i++)
		side_close(&s->u[i]);
	free(s);
	return NULL;
}

static inline int proxy_listen(void)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(GW_PORT) };
	int one = 1, l = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return bind(l, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(l, 1024) < 0 ? -1 : l;
}

static inline void proxy_run(int l)
{
	for (;;) {
		int fd = accept(l, NULL, NULL);
		struct session *s;

		if (fd < 0)
			continue;
		s = calloc(1, sizeof(*s));
		s->c.fd = fd;
		for (unsigned i = 0; i < PODS; i++)
			s->u[i].fd = -1;
		s->id = ++proxy.next_id;
		thread_start(proxy_serve, s);
	}
}

#endif
