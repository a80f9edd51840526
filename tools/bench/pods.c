/* SPDX-License-Identifier: Apache-2.0
 * The upstream of the benchmark: one thread that is several pods, one per address. The request says in its header
 * X-Bench what it wants:
 *
 *   X-Bench: json size=1024                        (also without the header) one answer of that size
 *   X-Bench: stream chunks=900 rate=300 size=250   that many events of that size, so many a second
 *   X-Bench: length pieces=16384, or chunked       so many pieces of 64 KB, as fast as they go
 *
 * Streams of a pod and a rate step together, as decode steps of an engine do: each step is one look at a timer and a
 * send per stream; the first event does not wait for it. Each event carries the time of its send. A step that comes
 * late is not skipped, so what a stream owes does not depend on the machine's mood; a peer that does not read is
 * buffered for.
 *
 * An answer that is not a stream starts with when the first and the last byte of its request were read.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"
#include "bench.h"

#define HEAD_MAX   8192
#define FRAME_MAX  (EVENT_MAX + 16)
#define PIECE	   65536
#define PIECE_HEAD "10000\r\n"

struct step;

struct conn {
	int fd, pod; /* a listener has <listens> set */
	bool listens, in_body, out_armed;
	uint32_t hlen;
	uint64_t left, body; /* of the request's body: still to come, all of it */
	uint64_t t_first, t_last;
	char *pend; /* what the peer did not take yet */
	size_t npend;
	struct step *step; /* while it streams */
	uint32_t slot;	   /* in step->conns */
	uint32_t chunks, size;
	uint32_t pieces, piece_at; /* of a long answer: still to come */
	bool chunked;
	char spec[96], path[64];
	char head[HEAD_MAX + 1];
};

/* All streams of one pod at one rate and event size. */
struct step {
	struct step *next;
	int pod;
	uint32_t rate, size;
	uint64_t due;
	struct conn **conns;
	uint32_t n, cap;
	char frame[FRAME_MAX];
	size_t nframe, stamp_at;
};

static int ep;
static struct step *steps;
static char scratch[1 << 18];

static void conn_arm(struct conn *c, bool out)
{
	struct epoll_event e = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c };

	if (c->out_armed != out)
		epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
	c->out_armed = out;
}

static void step_leave(struct conn *c)
{
	struct step *s = c->step;

	if (!s)
		return;
	s->conns[c->slot] = s->conns[--s->n];
	s->conns[c->slot]->slot = c->slot;
	c->step = NULL;
}

static void conn_free(struct conn *c)
{
	step_leave(c);
	close(c->fd);
	free(c->pend);
	free(c);
}

/* What the socket does not take is kept. -EPIPE: the peer is gone. */
static int conn_send(struct conn *c, const char *p, size_t n)
{
	ssize_t done = 0;
	char *more;

	if (!c->npend) {
		done = send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (done < 0 && errno != EAGAIN)
			return -EPIPE;
		if (done < 0)
			done = 0;
	}
	if ((size_t)done == n)
		return 0;
	more = realloc(c->pend, c->npend + n - (size_t)done);
	if (!more)
		return -EPIPE;
	memcpy(more + c->npend, p + done, n - (size_t)done);
	c->pend = more;
	c->npend += n - (size_t)done;
	conn_arm(c, true);
	return 0;
}

static int conn_flush(struct conn *c)
{
	ssize_t done = send(c->fd, c->pend, c->npend, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (done < 0)
		return errno == EAGAIN ? 0 : -EPIPE;
	c->npend -= (size_t)done;
	memmove(c->pend, c->pend + done, c->npend);
	if (!c->npend)
		conn_arm(c, false);
	return 0;
}

static void frame_build(struct step *s)
{
	char event[EVENT_MAX];
	size_t n = event_build(event, s->size);

	s->nframe = (size_t)snprintf(s->frame, sizeof(s->frame), "%zx\r\n", n);
	s->stamp_at = s->nframe + EVENT_STAMP_AT;
	memcpy(s->frame + s->nframe, event, n);
	s->nframe += n;
	memcpy(s->frame + s->nframe, "\r\n", 2);
	s->nframe += 2;
}

static struct step *step_find(int pod, uint32_t rate, uint32_t size)
{
	struct step *s;

	for (s = steps; s; s = s->next)
		if (s->pod == pod && s->rate == rate && s->size == size)
			return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	s->pod = pod;
	s->rate = rate;
	s->size = size;
	frame_build(s);
	s->next = steps;
	steps = s;
	return s;
}

static int stream_step(struct conn *c, struct step *s)
{
	static const char tail[] =
		"60\r\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":256,\"completion_tokens\":900,"
		"\"total_tokens\":1156}}\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
	uint64_t t = time_mono();
	char *d = s->frame + s->stamp_at + EVENT_STAMP;

	for (size_t i = 0; i < EVENT_STAMP; i++, t /= 10)
		*--d = (char)('0' + t % 10);
	if (conn_send(c, s->frame, s->nframe))
		return -EPIPE;
	if (--c->chunks)
		return 0;
	step_leave(c);
	return conn_send(c, tail, sizeof(tail) - 1);
}

static int stream_begin(struct conn *c)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
				   "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
	unsigned int rate = 300;
	struct step *s;

	c->chunks = 900;
	c->size = 250;
	sscanf(c->spec, "stream chunks=%u rate=%u size=%u", &c->chunks, &rate, &c->size);
	if (!c->chunks || !rate || c->size > FRAME_MAX - 32)
		return -EINVAL;
	s = step_find(c->pod, rate, c->size);
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 64;
		s->conns = reallocarray(s->conns, s->cap, sizeof(*s->conns));
		if (!s->conns)
			abort();
	}
	if (!s->n)
		s->due = time_mono() + NS_PER_S / rate;
	c->step = s;
	c->slot = s->n;
	s->conns[s->n++] = c;
	return conn_send(c, head, sizeof(head) - 1) ? -EPIPE : stream_step(c, s);
}

/* --- long answers --- */

static int pieces_send(struct conn *c)
{
	static char piece[sizeof(PIECE_HEAD) - 1 + PIECE + 2];
	size_t head = sizeof(PIECE_HEAD) - 1, n = c->chunked ? sizeof(piece) : PIECE;
	ssize_t done = 0;

	if (!piece[0]) {
		memset(piece, 'x', sizeof(piece));
		memcpy(piece, PIECE_HEAD, head);
		piece[sizeof(piece) - 3] = piece[sizeof(piece) - 1] = '\n';
		piece[sizeof(piece) - 2] = '\r';
	}
	for (int i = 0; c->pieces && i < 16; i++) {
		done = send(c->fd, piece + (c->chunked ? 0 : head) + c->piece_at, n - c->piece_at,
			    MSG_DONTWAIT | MSG_NOSIGNAL);
		if (done < 0)
			break;
		c->piece_at += (uint32_t)done;
		if (c->piece_at == n) {
			c->piece_at = 0;
			c->pieces--;
		}
	}
	if (done < 0 && errno != EAGAIN)
		return -EPIPE;
	conn_arm(c, c->pieces > 0);
	return c->pieces || !c->chunked ? 0 : conn_send(c, "0\r\n\r\n", 5);
}

static int pieces_begin(struct conn *c)
{
	char head[160];
	int n;

	c->chunked = c->spec[0] == 'c';
	if (sscanf(c->spec, "%*s pieces=%u", &c->pieces) != 1)
		return -EINVAL;
	n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n");
	if (c->chunked)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "Transfer-Encoding: chunked\r\n\r\n");
	else
		n += snprintf(head + n, sizeof(head) - (size_t)n, "Content-Length: %" PRIu64 "\r\n\r\n",
			      (uint64_t)c->pieces * PIECE);
	return conn_send(c, head, (size_t)n) ? -EPIPE : pieces_send(c);
}

/* Returns when the next step is due, at most a second from now. */
static uint64_t steps_run(void)
{
	uint64_t now = time_mono(), next = now + NS_PER_S;

	for (struct step *s = steps; s; s = s->next) {
		if (s->n && now >= s->due) {
			for (uint32_t i = s->n; i-- > 0;) {
				struct conn *c = s->conns[i];

				if (stream_step(c, s))
					conn_free(c);
			}
			s->due += NS_PER_S / s->rate;
		}
		if (s->n && s->due < next)
			next = s->due;
	}
	return next;
}

static int json_send(struct conn *c, const char *type, const char *body, size_t n)
{
	static char out[FRAME_MAX * 5];
	int at;

	at = snprintf(out, sizeof(out), "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", type, n);
	memcpy(out + at, body, n);
	return conn_send(c, out, (size_t)at + n);
}

static int answer_chat(struct conn *c)
{
	char body[4 * FRAME_MAX], end[160];
	unsigned int size = 1024;
	int n, nend;

	sscanf(c->spec, "json size=%u", &size);
	if (size > sizeof(body) - 512)
		size = sizeof(body) - 512;
	n = snprintf(body, sizeof(body),
		     "{\"t_first\":%" PRIu64 ",\"t_last\":%" PRIu64 ",\"id\":\"chatcmpl-6a0b5c1d2e3f4a5b\","
		     "\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":"
		     "{\"role\":\"assistant\",\"content\":\"",
		     c->t_first, c->t_last);
	nend = snprintf(end, sizeof(end),
			"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":%" PRIu64
			",\"completion_tokens\":200,\"total_tokens\":%" PRIu64 "}}",
			c->body / 4, c->body / 4 + 200);
	while (n + nend < (int)size)
		body[n++] = 'a';
	memcpy(body + n, end, (size_t)nend);
	return json_send(c, "application/json", body, (size_t)n + (size_t)nend);
}

static int answer_metrics(struct conn *c)
{
	static char body[2048];
	uint32_t running = 0;
	int n;

	for (struct step *s = steps; s; s = s->next)
		if (s->pod == c->pod)
			running += s->n;
	n = snprintf(body, sizeof(body),
		     "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"m\"} %u\n"
		     "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"m\"} 0\n"
		     "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{model_name=\"m\"} 0.25\n"
		     "# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size=\"16\","
		     "num_gpu_blocks=\"262144\"} 1\n",
		     running);
	return json_send(c, "text/plain; version=0.0.4", body, (size_t)n);
}

static int answer(struct conn *c)
{
	static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\","
				     "\"owned_by\":\"bench\",\"max_model_len\":1048576}]}";

	c->t_last = time_mono();
	if (!strncmp(c->path, "/metrics", 8))
		return answer_metrics(c);
	if (!strcmp(c->path, "/v1/models"))
		return json_send(c, "application/json", models, sizeof(models) - 1);
	if (!strcmp(c->path, "/health"))
		return json_send(c, "text/plain", "", 0);
	if (!strncmp(c->spec, "stream", 6))
		return stream_begin(c);
	if (!strncmp(c->spec, "length", 6) || !strncmp(c->spec, "chunked", 7))
		return pieces_begin(c);
	return answer_chat(c);
}

static int head_parse(struct conn *c, char *end)
{
	char *s = c->head, *nl;

	c->left = 0;
	c->spec[0] = c->path[0] = '\0';
	sscanf(s, "%*15s %63s", c->path);
	for (; s < end; s = nl + 2) {
		nl = memmem(s, (size_t)(end + 2 - s), "\r\n", 2);
		if (!nl)
			return -EPROTO;
		*nl = '\0';
		if (!strncasecmp(s, "content-length:", 15))
			c->left = strtoull(s + 15, NULL, 10);
		else if (!strncasecmp(s, "x-bench:", 8))
			sscanf(s + 8, " %95[^\r]", c->spec);
		else if (!strncasecmp(s, "transfer-encoding:", 18))
			return -EPROTO; /* the client gives lengths, and a gateway has no reason to change that */
	}
	return 0;
}

static int conn_read(struct conn *c)
{
	char *end;
	ssize_t n;
	size_t body;

	if (c->in_body) {
		n = recv(c->fd, scratch, c->left < sizeof(scratch) ? (size_t)c->left : sizeof(scratch), MSG_DONTWAIT);
		if (n <= 0)
			return n < 0 && errno == EAGAIN ? 0 : -EPIPE;
		c->left -= (uint64_t)n;
	} else {
		n = recv(c->fd, c->head + c->hlen, HEAD_MAX - c->hlen, MSG_DONTWAIT);
		if (n <= 0)
			return n < 0 && errno == EAGAIN ? 0 : -EPIPE;
		if (c->step)
			return -EPROTO;
		if (!c->hlen)
			c->t_first = time_mono();
		c->hlen += (uint32_t)n;
		c->head[c->hlen] = '\0';
		end = memmem(c->head, c->hlen, "\r\n\r\n", 4);
		if (!end)
			return c->hlen == HEAD_MAX ? -EPROTO : 0;
		body = (size_t)(c->head + c->hlen - (end + 4));
		if (head_parse(c, end) || body > c->left)
			return -EPROTO;
		c->body = c->left;
		c->left -= body;
		c->hlen = 0;
		c->in_body = true;
	}
	if (c->left)
		return 0;
	c->in_body = false;
	return answer(c);
}

static void conn_accept(const struct conn *l)
{
	struct epoll_event e = { .events = EPOLLIN };
	struct conn *c;
	int fd, one = 1;

	while ((fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		c = calloc(1, sizeof(*c));
		if (!c) {
			close(fd);
			return;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		c->fd = fd;
		c->pod = l->pod;
		e.data.ptr = c;
		epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	}
}

static int pod_listen(const char *addr, int pod)
{
	struct epoll_event e = { .events = EPOLLIN };
	struct sockaddr_storage ss;
	struct conn *l;
	socklen_t len;
	int fd, one = 1;

	if (addr_parse(addr, &ss, &len))
		return -EINVAL;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&ss, len) || listen(fd, 4096))
		return -errno;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->fd = fd;
	l->pod = pod;
	l->listens = true;
	e.data.ptr = l;
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	return 0;
}

static int conn_event(struct conn *c, uint32_t events)
{
	if ((events & EPOLLOUT) && c->npend && conn_flush(c))
		return -EPIPE;
	if ((events & EPOLLOUT) && !c->npend && c->pieces && pieces_send(c))
		return -EPIPE;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		return conn_read(c);
	return 0;
}

int pods_main(int argc, char **argv)
{
	struct epoll_event ev[256];
	struct timespec wait;
	uint64_t next, now;
	int n, err;

	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1UL);
	ep = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 1; i < argc; i++) {
		err = pod_listen(argv[i], i);
		if (err) {
			fprintf(stderr, "kvbench: pod %s: %s\n", argv[i], strerror(-err));
			return 1;
		}
	}
	if (argc < 2) {
		fprintf(stderr, "usage: kvbench pods ADDR:PORT...\n");
		return 2;
	}
	for (;;) {
		next = steps_run();
		now = time_mono();
		next = next > now ? next - now : 0;
		wait = (struct timespec){ .tv_sec = (time_t)(next / NS_PER_S), .tv_nsec = (long)(next % NS_PER_S) };
		n = epoll_pwait2(ep, ev, 256, &wait, NULL);
		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;

			if (c->listens)
				conn_accept(c);
			else if (conn_event(c, ev[i].events))
				conn_free(c);
		}
	}
}
