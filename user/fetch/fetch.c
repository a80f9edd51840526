/* SPDX-License-Identifier: Apache-2.0
 * A question's way: (a name is looked up, an address connected to,) the request sent, the answer gathered, and at the
 * end of that turn `done`. The connection stays, watched edge-triggered, so a server that closes it is noticed; what
 * closes just when it is used again is asked once more on a fresh one.
 *
 * Answers are gathered in memory that goes round: the last body's is the next one's, unless two come at once. Fresh
 * memory costs a page fault for every 4 KB, and pages of metrics have 60 KB.
 */
#include "fetch/fetch.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/list.h"
#include "base/time.h"
#include "fetch/fetch_int.h"

#define RX_SIZE	    65536
#define SPARE_MAX   (256u << 10)
#define INTERIM_MAX 8
#define READS_MAX   16 /* in one turn; timers must have theirs */

struct fetch {
	struct loop *loop;
	struct buf spare;      /* memory of the last body */
	struct http_head head; /* scratch */
	char rx[RX_SIZE];
};

/* --- ends --- */

static void disconnect(struct fetch_ask *a)
{
	int fd = a->io.fd;

	if (fd < 0)
		return;
	loop_fd_del(&a->io);
	list_del(&a->more.link);
	close(fd);
	a->connecting = false;
}

static void body_free(struct fetch_ask *a)
{
	struct fetch *f = a->f;

	if (a->body.cap > f->spare.cap && a->body.cap <= SPARE_MAX) {
		buf_free(&f->spare);
		f->spare = a->body;
		f->spare.off = f->spare.len = 0;
		a->body = (struct buf){ 0 };
	}
	buf_free(&a->body);
}

static void over(struct loop_work *w)
{
	struct fetch_ask *a = container_of(w, struct fetch_ask, over);

	a->running = false;
	a->done(a);
	if (!a->running)
		body_free(a);
}

static void finish(struct fetch_ask *a)
{
	loop_timer_del(a->f->loop, &a->timer);
	lookup_give_up(a->lookup);
	a->lookup = NULL;
	buf_free(&a->head);
	list_del(&a->more.link);
	loop_defer(a->f->loop, &a->over);
}

__attribute__((format(printf, 2, 3))) static void failed(struct fetch_ask *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->error, sizeof(a->error), fmt, ap);
	va_end(ap);
	a->status = 0;
	disconnect(a);
	finish(a);
}

static bool waits(const struct fetch_ask *a)
{
	return a->running && list_empty(&a->over.link);
}

/* --- the answer --- */

static int body_put(struct fetch_ask *a, const char *p, size_t n)
{
	if (!a->body.mem) {
		a->body = a->f->spare;
		a->f->spare = (struct buf){ 0 };
	}
	if (buf_len(&a->body) + n > a->body_max)
		return -E2BIG;
	return buf_put(&a->body, p, n);
}

struct gather {
	struct fetch_ask *a;
	int err;
};

static void chunk_data(void *arg, const char *p, size_t n)
{
	struct gather *g = arg;

	if (!g->err)
		g->err = body_put(g->a, p, n);
}

/* Whether the answer is whole (*ret_rest bytes are behind it), or an error. */
static int take_body(struct fetch_ask *a, const char *p, size_t n, size_t *ret_rest)
{
	struct gather g = { .a = a };
	size_t take = n;
	ssize_t k;
	bool whole = false;

	switch (a->framing) {
	case HTTP_NO_BODY:
		take = 0;
		whole = true;
		break;
	case HTTP_LENGTH:
		if (a->left > a->body_max)
			return -E2BIG;
		take = a->left < n ? (size_t)a->left : n;
		a->left -= take;
		g.err = body_put(a, p, take);
		whole = a->left == 0;
		break;
	case HTTP_CHUNKED:
		k = http_chunks_walk(&a->chunks, p, n, chunk_data, &g);
		if (k < 0)
			return -EBADMSG;
		take = (size_t)k;
		whole = http_chunks_done(&a->chunks);
		break;
	case HTTP_UNTIL_CLOSE:
		g.err = body_put(a, p, n);
		break;
	}
	*ret_rest = n - take;
	return g.err ? g.err : whole;
}

/* One head of maybe several (1xx). Its length, 0: not whole, or an error. */
static ssize_t take_head(struct fetch_ask *a, struct str s)
{
	struct http_head *h = &a->f->head;
	ssize_t k = http_head_end(s, &a->scanned);
	int r;

	if (k <= 0)
		return k;
	r = http_parse_response((struct str){ s.p, (size_t)k }, false, h, NULL);
	if (r)
		return r;
	a->scanned = 0;
	if (h->status < 200 && ++a->interim > INTERIM_MAX)
		return -EBADMSG;
	if (h->status >= 200) {
		a->headed = true;
		a->status = h->status;
		a->keep = h->keep_alive;
		a->framing = h->framing;
		a->left = h->framing == HTTP_LENGTH ? h->length : 0;
		http_chunks_init(&a->chunks);
	}
	return k;
}

/* As take_body. */
static int take(struct fetch_ask *a, const char *p, size_t n, size_t *ret_rest)
{
	struct str s = { p, n };

	if (!a->headed && a->head.mem) {
		if (buf_put(&a->head, p, n))
			return -ENOMEM;
		s = buf_str(&a->head);
	}
	while (!a->headed) {
		ssize_t k = take_head(a, s);

		if (k < 0)
			return (int)k;
		if (k == 0) {
			if (a->head.mem)
				buf_consume(&a->head, buf_len(&a->head) - s.n);
			return a->head.mem || !s.n ? 0 : buf_put(&a->head, s.p, s.n);
		}
		s = (struct str){ s.p + k, s.n - (size_t)k };
	}
	return take_body(a, s.p, s.n, ret_rest);
}

static void bad(struct fetch_ask *a, int r)
{
	if (r == -E2BIG)
		failed(a, "the answer is larger than %zu MiB", a->body_max >> 20);
	else if (r == -ENOMEM)
		failed(a, "out of memory");
	else
		failed(a, "the answer is not HTTP/1.1");
}

/* --- the connection --- */

static void connect_next(struct fetch_ask *a);

static void ended(struct fetch_ask *a, int err)
{
	if (a->reused) { /* it was closed while this was on its way */
		disconnect(a);
		a->at = 0;
		connect_next(a);
	} else if (!err && a->headed && a->framing == HTTP_UNTIL_CLOSE) {
		disconnect(a);
		finish(a);
	} else {
		failed(a, "the connection broke before the answer was whole%s%s", err ? ": " : "",
		       err ? strerror(err) : "");
	}
}

static void receive(struct fetch_ask *a)
{
	struct fetch *f = a->f;

	for (unsigned i = 0; waits(a) && a->io.fd >= 0; i++) {
		ssize_t n;
		size_t rest = 0;
		int r;

		if (i == READS_MAX) {
			loop_defer(f->loop, &a->more);
			return;
		}
		n = recv(a->io.fd, f->rx, RX_SIZE, 0);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			ended(a, n < 0 ? errno : 0);
			return;
		}
		a->reused = false;
		r = take(a, f->rx, (size_t)n, &rest);
		if (r < 0) {
			bad(a, r);
		} else if (r) {
			if (!a->keep || rest || a->hup || a->sent < buf_len(&a->request))
				disconnect(a);
			finish(a);
		} else if (n < RX_SIZE && !a->hup) {
			return;
		}
	}
}

static void receive_more(struct loop_work *w)
{
	receive(container_of(w, struct fetch_ask, more));
}

static void transmit(struct fetch_ask *a)
{
	while (a->sent < buf_len(&a->request)) {
		ssize_t n =
			send(a->io.fd, buf_data(&a->request) + a->sent, buf_len(&a->request) - a->sent, MSG_NOSIGNAL);

		if (n >= 0)
			a->sent += (size_t)n;
		else if (errno == EAGAIN)
			return;
		else if (errno != EINTR) {
			ended(a, errno);
			return;
		}
	}
}

static void on_ready(struct loop_fd *io, uint32_t ev)
{
	struct fetch_ask *a = container_of(io, struct fetch_ask, io);
	int e;

	if (!waits(a)) { /* idle: whatever it is, the connection is of no more use */
		if (ev & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			disconnect(a);
		return;
	}
	if (a->connecting) {
		e = net_error(io->fd);
		if (e || ev & (EPOLLHUP | EPOLLERR)) {
			disconnect(a);
			snprintf(a->error, sizeof(a->error), "cannot connect: %s", strerror(e ? -e : ECONNREFUSED));
			connect_next(a);
			return;
		}
		if (!(ev & EPOLLOUT))
			return;
		a->connecting = false;
	}
	if (ev & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		a->hup = true;
	if (ev & EPOLLOUT)
		transmit(a);
	if (ev & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		receive(a);
}

static int dial(struct fetch_ask *a, const struct net_addr *to)
{
	int fd = net_dial(to), r;

	if (fd < 0)
		return fd;
	a->io.ready = on_ready;
	r = loop_fd_add(a->f->loop, &a->io, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	if (r)
		close(fd);
	return r;
}

/* The next address that is left to try; behind the last, a->error tells of it. */
static void connect_next(struct fetch_ask *a)
{
	a->sent = 0;
	a->reused = a->hup = false;
	while (a->at < a->naddrs) {
		int r = dial(a, &a->addr[a->at++]);

		if (!r) {
			a->connecting = true;
			return;
		}
		snprintf(a->error, sizeof(a->error), "cannot connect: %s", strerror(-r));
	}
	a->status = 0;
	finish(a);
}

/* --- the question --- */

static void expired(struct loop_timer *t)
{
	struct fetch_ask *a = container_of(t, struct fetch_ask, timer);

	failed(a, "%s within %.3g s",
	       a->lookup       ? "the name was not resolved"
	       : a->connecting ? "no connection"
			       : "no answer",
	       (double)a->timeout_ns / 1e9);
}

/* HOST and port of http://HOST[:PORT][/PATH], the host without its brackets. */
static int url_split(const char *url, struct str *ret_host, uint16_t *ret_port, struct str *ret_peer)
{
	struct str s = str_of(url), port = STR("80");
	const char *colon;
	uint64_t n;

	if (!str_starts(s, STR("http://")))
		return -EINVAL;
	s = (struct str){ s.p + 7, strcspn(s.p + 7, "/") };
	*ret_peer = s;
	colon = memrchr(s.p, ':', s.n);
	if (colon && !memchr(colon, ']', (size_t)(s.p + s.n - colon))) {
		port = (struct str){ colon + 1, (size_t)(s.p + s.n - colon) - 1 };
		s.n = (size_t)(colon - s.p);
	}
	if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
		s = (struct str){ s.p + 1, s.n - 2 };
	if (!s.n || str_u64(port, &n) || n > UINT16_MAX)
		return -EINVAL;
	*ret_host = s;
	*ret_port = (uint16_t)n;
	return 0;
}

static void found(struct fetch_ask *a, struct lookup *l)
{
	struct str host, peer;
	uint16_t port = 0;

	a->lookup = NULL;
	(void)url_split(a->url, &host, &port, &peer);
	if (l->err || !l->n) {
		failed(a, "%s: %s", l->host, l->err ? gai_strerror(l->err) : "has no address");
		return;
	}
	for (unsigned i = 0; i < l->n; i++) {
		a->addr[i] = l->addr[i];
		net_addr_set_port(&a->addr[i], port);
	}
	a->naddrs = l->n;
	connect_next(a);
}

static void begin(struct fetch_ask *a)
{
	struct str host, peer;
	char literal[160];
	uint16_t port;

	if (url_split(a->url, &host, &port, &peer)) {
		failed(a, "%s is not a URL of http://HOST:PORT/PATH", a->url);
		return;
	}
	if (peer.n < sizeof(a->peer) && a->io.fd >= 0 && str_eq(peer, str_of(a->peer))) {
		a->reused = true;
		a->hup = false;
		a->sent = 0;
		transmit(a);
		return;
	}
	disconnect(a);
	snprintf(a->peer, sizeof(a->peer), "%.*s", (int)peer.n, peer.p);
	snprintf(literal, sizeof(literal), memchr(host.p, ':', host.n) ? "[%.*s]:%u" : "%.*s:%u", (int)host.n, host.p,
		 port);
	a->at = a->naddrs = 0;
	if (!net_addr_parse(str_of(literal), &a->addr[0])) {
		a->naddrs = 1;
		connect_next(a);
		return;
	}
	a->lookup = lookup_start(a->f->loop, host, a, found);
	if (!a->lookup)
		failed(a, "cannot look up %.*s: %s", (int)host.n, host.p, strerror(errno));
}

static int write_request(struct fetch_ask *a, const char *method, const char *url, const char *key)
{
	const char *host = url + strcspn(url, ":"), *path;
	struct buf *b = &a->request;
	int r;

	host += strspn(host, ":/");
	path = host + strcspn(host, "/");
	b->off = b->len = 0;
	r = buf_printf(b, "%s %s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: kvsteer\r\nAccept: */*\r\n", method,
		       *path ? path : "/", (int)(path - host), host);
	if (!r && key)
		r = buf_printf(b, "Authorization: Bearer %s\r\n", key);
	if (!r && strcmp(method, "GET") != 0)
		r = buf_puts(b, "Content-Length: 0\r\n");
	return r ? r : buf_puts(b, "\r\n");
}

void fetch_init(struct fetch_ask *a, struct fetch *f, size_t body_max, void (*done)(struct fetch_ask *a))
{
	*a = (struct fetch_ask){ .f = f, .body_max = body_max, .done = done, .io.fd = -1 };
	loop_timer_init(&a->timer, expired);
	loop_work_init(&a->over, over);
	loop_work_init(&a->more, receive_more);
}

int fetch_go(struct fetch_ask *a, const char *method, const char *url, const char *key, uint64_t timeout_ns)
{
	int r;

	if (a->running)
		return -EBUSY;
	if (strlen(url) >= sizeof(a->url))
		return -ENAMETOOLONG;
	r = write_request(a, method, url, key);
	if (!r)
		r = loop_timer_set(a->f->loop, &a->timer, time_mono() + timeout_ns);
	if (r)
		return r;
	str_copy(a->url, sizeof(a->url), url);
	buf_consume(&a->body, buf_len(&a->body));
	a->error[0] = '\0';
	a->status = 0;
	a->headed = false;
	a->scanned = a->interim = 0;
	a->timeout_ns = timeout_ns;
	a->running = true;
	begin(a);
	return 0;
}

void fetch_fini(struct fetch_ask *a)
{
	if (!a->f)
		return;
	loop_timer_del(a->f->loop, &a->timer);
	lookup_give_up(a->lookup);
	disconnect(a);
	list_del(&a->over.link);
	list_del(&a->more.link);
	a->lookup = NULL;
	a->running = false;
	buf_free(&a->request);
	buf_free(&a->head);
	buf_free(&a->body);
}

struct fetch *fetch_new(struct loop *l)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (f)
		f->loop = l;
	return f;
}

void fetch_free(struct fetch *f)
{
	if (!f)
		return;
	buf_free(&f->spare);
	free(f);
}
