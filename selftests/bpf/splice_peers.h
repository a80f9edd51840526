/* SPDX-License-Identifier: Apache-2.0
 * The two ends of a splice for tests: a pod that answers with a body of known bytes in one of three framings, and a
 * client that compares each byte. Request and head are structs, since the splice does not look into them; the body's
 * framing is HTTP's. Both run as processes in network namespaces of their own, one thread per connection.
 */
#ifndef KVS_SELFTESTS_SPLICE_PEERS_H
#define KVS_SELFTESTS_SPLICE_PEERS_H

#include "env.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include "kvsteer/abi_splice.h"

#define GW_PORT	 8080
#define POD_PORT 8000
#define PODS	 2
#define PATTERN	 1048583 /* prime, so that it meets no buffer's or window's size */
#define HEAD_POD 64
#define HEAD_GW	 96 /* the gateway's own head: numbers of C and U differ */
#define MAX_BULK 65536

enum fault { FAULT_NONE, FAULT_FIN, FAULT_RST, FAULT_CHUNK, FAULT_EXTRA };

struct request {
	uint8_t framing; /* enum kvs_framing */
	uint8_t pod;
	uint8_t trailer;
	uint8_t fault;	 /* enum fault, in the middle */
	uint32_t chunk;	 /* bytes of a chunk, or of a write */
	uint32_t gap_us; /* between writes; 0: as fast as it goes */
	uint32_t seed;
	uint64_t size;
	uint32_t junk; /* bytes that the client sends behind the request, for nobody */
	uint8_t pad[HEAD_POD - 28];
};

_Static_assert(sizeof(struct request) == HEAD_POD, "request");

/* What client processes and pods report; shared memory. */
struct report {
	_Atomic unsigned exact, wrong, cut,
		reset;			  /* responses: as they should be, other bytes, EOF inside, RST inside */
	_Atomic unsigned closed, aborted; /* connections that ended by FIN, by RST, as the client saw it */
	_Atomic unsigned started;	  /* responses of which something has come */
	_Atomic uint64_t bytes;
	_Atomic unsigned pod_failed;	     /* writes that failed */
	_Atomic unsigned pod_eof, pod_reset; /* connections that ended so, as the pod saw it */
	_Atomic unsigned pod_open;
	_Atomic unsigned relayed, spliced, orphaned_later; /* the proxy's: responses */
	_Atomic unsigned arm_tries, arms;
	_Atomic unsigned results[KVS_ARM_N];
	_Atomic unsigned proxy_bad; /* what should never happen */
	_Atomic uint64_t longest_us;
};

struct job {
	int family;
	uint16_t port;	 /* 0: GW_PORT */
	const char *net; /* 10.9.NET.1 is dialled; NULL: "1" */
	unsigned streams, requests;
	unsigned framings; /* bits of enum kvs_framing, taken in turn */
	uint64_t size;
	uint32_t chunk, gap_us;
	unsigned stop_ms;  /* stop reading so long in the middle */
	unsigned pipeline; /* bytes that the client sends while it reads */
	uint64_t abort_at; /* RST after so many bytes */
	bool fin_at_abort; /* FIN instead */
	bool keepalive;
	enum fault fault;
};

static uint8_t pattern[PATTERN + 2 * MAX_BULK];
static struct report *report;

static inline uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static inline const uint8_t *body_at(uint32_t seed, uint64_t at)
{
	return pattern + (at + seed) % PATTERN;
}

static inline void pattern_make(void)
{
	uint32_t x = 12345;

	for (size_t i = 0; i < PATTERN; i++) {
		x = x * 1103515245 + 12345;
		pattern[i] = (uint8_t)(x >> 16);
	}
	memcpy(pattern + PATTERN, pattern, 2 * MAX_BULK);
}

/* 1, 0 at EOF, or an error. Sockets may be non-blocking: then it waits, a minute at most. */
static inline int read_full(int fd, void *to, size_t n)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint8_t *at = to;

	while (n) {
		ssize_t r = read(fd, at, n);

		if (r < 0 && (errno == EINTR || (errno == EAGAIN && poll(&p, 1, 60000) == 1)))
			continue;
		if (r <= 0)
			return r == 0 ? 0 : -errno;
		at += r;
		n -= (size_t)r;
	}
	return 1;
}

static inline int write_full(int fd, const void *from, size_t n)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	const uint8_t *at = from;

	while (n) {
		ssize_t r = send(fd, at, n, MSG_NOSIGNAL);

		if (r < 0 && (errno == EINTR || (errno == EAGAIN && poll(&p, 1, 60000) == 1)))
			continue;
		if (r < 0)
			return -errno;
		at += r;
		n -= (size_t)r;
	}
	return 0;
}

static inline void linger_zero(int fd)
{
	struct linger l = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

static inline socklen_t sockaddr_make(struct sockaddr_storage *ss, int family, const char *net, int host, int port)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;
	char text[64];

	memset(ss, 0, sizeof(*ss));
	ss->ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		snprintf(text, sizeof(text), "10.9.%s.%d", net, host);
		inet_pton(AF_INET, text, &in->sin_addr);
		in->sin_port = htons((uint16_t)port);
		return sizeof(*in);
	}
	snprintf(text, sizeof(text), "fd00:9:%s::%d", net, host);
	inet_pton(AF_INET6, text, &in6->sin6_addr);
	in6->sin6_port = htons((uint16_t)port);
	return sizeof(*in6);
}

static inline void thread_start(void *(*fn)(void *), void *arg)
{
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 512 * 1024);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &a, fn, arg))
		abort();
	pthread_attr_destroy(&a);
}

/* --- pod --- */

/* One write of the body: framing around <n> bytes at <at>. Returns its length. */
static inline size_t piece_make(uint8_t *out, const struct request *q, uint64_t at, uint32_t n, bool bad)
{
	size_t len = 0;

	if (q->framing == KVS_CHUNKED)
		len = (size_t)sprintf((char *)out, bad ? "zz\r\n" : at % 3 ? "%x\r\n" : "%X;ext=1\r\n", n);
	memcpy(out + len, body_at(q->seed, at), n);
	len += n;
	if (q->framing == KVS_CHUNKED) {
		memcpy(out + len, "\r\n", 2);
		len += 2;
	}
	return len;
}

static inline int body_send(int fd, const struct request *q)
{
	static __thread uint8_t out[4 * MAX_BULK];
	size_t len = 0;
	int r = 0;

	for (uint64_t at = 0; at < q->size && !r;) {
		uint32_t n = q->size - at < q->chunk ? (uint32_t)(q->size - at) : q->chunk;
		bool middle = q->fault && at + n > q->size / 2;

		if (middle && q->fault != FAULT_CHUNK && q->fault != FAULT_EXTRA) {
			r = write_full(fd, out, len);
			return -ECONNABORTED;
		}
		len += piece_make(out + len, q, at, n, middle && q->fault == FAULT_CHUNK);
		at += n;
		if (!q->gap_us && len < 2 * MAX_BULK && at < q->size)
			continue;
		r = write_full(fd, out, len);
		len = 0;
		if (q->gap_us)
			usleep(q->gap_us);
	}
	if (!r && q->framing == KVS_CHUNKED)
		r = q->trailer ? write_full(fd, "0\r\nX-T: 1;2\r\nY: \r\n\r\n", 20) : write_full(fd, "0\r\n\r\n", 5);
	if (!r && q->fault == FAULT_EXTRA)
		r = write_full(fd, "too much", 8);
	return r;
}

static inline void *pod_serve(void *arg)
{
	int fd = (int)(intptr_t)arg, r;
	struct request q;

	report->pod_open++;
	while ((r = read_full(fd, &q, sizeof(q))) > 0) {
		if (write_full(fd, &q, sizeof(q)))
			break;
		/* The first token takes its time; without that a body at full speed stays ahead of arming. */
		if (q.gap_us || q.seed % 4)
			usleep(q.gap_us ? q.gap_us : 3000);
		r = body_send(fd, &q);
		if (r == -ECONNABORTED) {
			if (q.fault == FAULT_RST) {
				usleep(20000);
				linger_zero(fd);
			}
			break;
		}
		if (r) {
			report->pod_failed++;
			break;
		}
		if (q.framing == KVS_UNTIL_CLOSE) {
			shutdown(fd, SHUT_WR);
			continue;
		}
	}
	if (r == 0)
		report->pod_eof++;
	else if (r < 0 && r != -ECONNABORTED)
		report->pod_reset++;
	close(fd);
	report->pod_open--;
	return NULL;
}

static inline void pod_run(int port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	int one = 1, l = socket(AF_INET6, SOCK_STREAM, 0);

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(l, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(l, 256) < 0)
		_exit(1);
	for (;;) {
		int fd = accept(l, NULL, NULL);

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (fd >= 0)
			thread_start(pod_serve, (void *)(intptr_t)fd);
	}
}

/* --- client --- */

struct reader {
	int fd;
	const struct job *job;
	const struct request *q;
	uint64_t at;  /* body bytes compared */
	uint64_t raw; /* bytes of the connection */
	uint8_t buf[MAX_BULK];
	size_t from, to;
	bool stopped;
	int err; /* 0 at EOF */
};

static inline bool reader_fill(struct reader *r)
{
	ssize_t n;

	if (r->from < r->to)
		return true;
	if (r->job->stop_ms && !r->stopped && r->at >= r->q->size / 2) {
		r->stopped = true;
		usleep(r->job->stop_ms * 1000);
	}
	do {
		n = read(r->fd, r->buf, sizeof(r->buf));
	} while (n < 0 && errno == EINTR);
	r->err = n < 0 ? errno : 0;
	if (n <= 0)
		return false;
	if (!r->raw)
		report->started++;
	r->raw += (uint64_t)n;
	report->bytes += (uint64_t)n;
	r->from = 0;
	r->to = (size_t)n;
	return true;
}

/* <n> bytes of the body. 1, 0 at a premature end, -1: other bytes. */
static inline int reader_body(struct reader *r, uint64_t n)
{
	while (n) {
		size_t k;

		if (!reader_fill(r))
			return 0;
		k = r->to - r->from < n ? r->to - r->from : (size_t)n;
		if (memcmp(r->buf + r->from, body_at(r->q->seed, r->at), k) != 0)
			return -1;
		r->from += k;
		r->at += k;
		n -= k;
	}
	return 1;
}

static inline int reader_line(struct reader *r, char *line, size_t size)
{
	size_t n = 0;

	for (;;) {
		if (!reader_fill(r))
			return 0;
		line[n++] = (char)r->buf[r->from++];
		if (n >= 2 && line[n - 2] == '\r' && line[n - 1] == '\n')
			break;
		if (n + 1 >= size)
			return -1;
	}
	line[n - 2] = '\0';
	return 1;
}

static inline int reader_chunked(struct reader *r)
{
	char line[64];
	int ok;

	for (;;) {
		char *end;
		uint64_t n;

		ok = reader_line(r, line, sizeof(line));
		if (ok <= 0)
			return ok;
		n = strtoull(line, &end, 16);
		if (end == line || (*end && *end != ';'))
			return -1;
		if (!n)
			break;
		if (r->at + n > r->q->size)
			return -1;
		ok = reader_body(r, n);
		if (ok > 0)
			ok = reader_line(r, line, sizeof(line));
		if (ok <= 0 || line[0])
			return ok > 0 ? -1 : ok;
	}
	if (r->at != r->q->size)
		return -1;
	for (unsigned lines = 0;; lines++) {
		ok = reader_line(r, line, sizeof(line));
		if (ok <= 0)
			return ok;
		if (!line[0])
			return lines == (r->q->trailer ? 2U : 0U) ? 1 : -1;
	}
}

static inline int response_read(struct reader *r)
{
	uint8_t head[HEAD_GW];

	for (size_t i = 0; i < sizeof(head); i++) {
		if (!reader_fill(r))
			return 0;
		head[i] = r->buf[r->from++];
	}
	if (memcmp(head, r->q, 24) != 0)
		return -1;
	if (r->q->framing == KVS_CHUNKED)
		return reader_chunked(r);
	return reader_body(r, r->q->size);
}

struct stream {
	const struct job *job;
	unsigned number;
	atomic_uint *left;
};

static inline int client_connect(const struct job *j)
{
	struct sockaddr_storage ss;
	socklen_t len = sockaddr_make(&ss, j->family, j->net ? j->net : "1", 1, j->port ? j->port : GW_PORT);
	int fd = socket(j->family, SOCK_STREAM, 0), one = 1, secs = 1, probes = 3;

	if (j->keepalive) {
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &secs, sizeof(secs));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &secs, sizeof(secs));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	}
	return connect(fd, (struct sockaddr *)&ss, len) < 0 ? -1 : fd;
}

static inline enum kvs_framing framing_of(const struct job *j, unsigned i)
{
	for (;; i++)
		if (j->framings & (1U << i % 3))
			return (enum kvs_framing)(i % 3);
}

/* A response that is to be left in the middle. */
static inline void client_abort(struct reader *r, const struct job *j)
{
	while (r->raw < j->abort_at) {
		r->from = r->to;
		if (!reader_fill(r))
			break;
	}
	if (j->fin_at_abort)
		shutdown(r->fd, SHUT_WR);
	else
		linger_zero(r->fd);
}

/* The end of a connection as the client sees it. */
static inline void client_end(struct reader *r)
{
	struct pollfd p = { .fd = r->fd, .events = POLLIN };

	if (r->from < r->to)
		report->wrong++;
	r->from = r->to;
	if (poll(&p, 1, 20000) == 1 && !reader_fill(r)) {
		if (r->err)
			report->aborted++;
		else
			report->closed++;
	}
}

static inline void *client_stream(void *arg)
{
	struct stream *s = arg;
	const struct job *j = s->job;
	struct reader *r = calloc(1, sizeof(*r));
	struct request q;

	r->job = j;
	r->fd = -1;
	for (unsigned i = 0; i < j->requests; i++) {
		uint64_t t0 = now_us();
		int ok;

		memset(&q, 0, sizeof(q));
		q.framing = (uint8_t)framing_of(j, s->number + i);
		q.pod = (uint8_t)((s->number + i / 2) % PODS);
		q.trailer = i % 3 == 1;
		q.chunk = j->chunk;
		q.gap_us = j->gap_us;
		q.seed = s->number * 7919 + i * 104729;
		q.size = j->size + (j->size > 1000 ? i * 37 % 1000 : 0);
		q.fault = (uint8_t)j->fault;
		q.junk = i + 1 == j->requests ? j->pipeline * 1500 : 0;
		if (r->fd < 0)
			r->fd = client_connect(j);
		r->q = &q;
		r->at = r->raw = 0;
		r->stopped = false;
		if (r->fd < 0 || write_full(r->fd, &q, sizeof(q))) {
			report->cut++;
			break;
		}
		if (j->abort_at) {
			client_abort(r, j);
			close(r->fd);
			r->fd = -1;
			continue;
		}
		for (unsigned k = 0; k < j->pipeline && i + 1 == j->requests; k++) {
			uint8_t junk[1500] = { 0 };

			usleep(300);
			if (write_full(r->fd, junk, sizeof(junk)))
				break;
		}
		ok = response_read(r);
		if (ok > 0)
			report->exact++;
		else if (ok < 0)
			report->wrong++;
		else if (r->err)
			report->reset++;
		else
			report->cut++;
		if (now_us() - t0 > report->longest_us)
			report->longest_us = now_us() - t0;
		if (ok <= 0)
			break;
		if (q.framing == KVS_UNTIL_CLOSE) {
			client_end(r);
			close(r->fd);
			r->fd = -1;
		}
	}
	if (r->fd >= 0) {
		shutdown(r->fd, SHUT_WR);
		client_end(r);
		close(r->fd);
	}
	free(r);
	(*s->left)--;
	return NULL;
}

/* All streams of a job; returns when they have ended. */
static inline void client_run(const struct job *j)
{
	struct stream *s = calloc(j->streams, sizeof(*s));
	atomic_uint left = j->streams;

	for (unsigned i = 0; i < j->streams; i++) {
		s[i] = (struct stream){ .job = j, .number = i, .left = &left };
		thread_start(client_stream, &s[i]);
		usleep(500);
	}
	while (left)
		usleep(1000);
	free(s);
}

#endif
