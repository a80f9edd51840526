/* SPDX-License-Identifier: Apache-2.0
 *
 * A small HTTP server: GET and HEAD of a table of pages, for Prometheus, probes, browsers and curl. One request at a
 * time on a connection, answered whole, with keep-alive. A connection that is refused half-way is closed the slow way
 * (half, then what still comes is thrown away), so that its answer is not lost to a reset.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/time.h"
#include "ctl/ctl_int.h"
#include "http/http.h"

#define HEAD_MAX  16384
#define READ_SIZE 4096
#define IDLE_NS	  (30 * NS_PER_S)
#define LINGER_NS (2 * NS_PER_S)

struct admin {
	struct loop *loop;
	struct door door;
	const struct admin_page *pages;
	unsigned npages;
	void *arg;
	struct list conns; /* least recently active first */
	unsigned nconns;
};

struct conn {
	struct list link;
	struct loop_fd fd;
	struct loop_timer idle;
	struct admin *a;
	struct buf in, out;
	size_t scanned;
	bool eof, closing, lingering;
};

static void conn_free(struct conn *c)
{
	int fd = c->fd.fd;

	loop_timer_del(c->a->loop, &c->idle);
	loop_fd_del(&c->fd);
	close(fd);
	list_del(&c->link);
	c->a->nconns--;
	buf_free(&c->in);
	buf_free(&c->out);
	free(c);
}

static void conn_idle(struct loop_timer *t)
{
	conn_free(container_of(t, struct conn, idle));
}

static const char *reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} rows[] = {
		{ 200, "OK" },
		{ 400, "Bad Request" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 431, "Request Header Fields Too Large" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 503, "Service Unavailable" },
		{ 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].status == status)
			return rows[i].reason;
	return "Unknown";
}

static int answer(struct conn *c, int status, const char *type, struct str body, bool head_only)
{
	int r = buf_printf(&c->out,
			   "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
			   "X-Content-Type-Options: nosniff\r\n%sConnection: %s\r\n\r\n",
			   status, reason(status), type ? type : "text/plain; charset=utf-8", body.n,
			   status == 405 ? "Allow: GET, HEAD\r\n" : "", c->closing ? "close" : "keep-alive");

	if (r == 0 && !head_only && body.n)
		r = buf_put(&c->out, body.p, body.n);
	return r;
}

/* No request of this connection is understood after this one. */
static int refuse(struct conn *c, int status, const char *why)
{
	struct buf b = { 0 };
	int r = buf_printf(&b, "%s\n", why ? why : reason(status));

	c->closing = true;
	if (r == 0)
		r = answer(c, status, NULL, buf_str(&b), false);
	buf_free(&b);
	return r;
}

static bool page_matches(const struct admin_page *p, struct str path)
{
	struct str want = str_of(p->path);

	if (want.n && want.p[want.n - 1] == '*')
		return str_starts(path, (struct str){ want.p, want.n - 1 });
	return str_eq(path, want);
}

static int serve(struct conn *c, const struct http_head *h)
{
	bool head_only = str_eq(h->method, STR("HEAD"));
	const struct admin *a = c->a;
	const char *type = NULL;
	struct buf body = { 0 };
	char path[1024];
	int status = 404, r;
	ssize_t n;

	if (h->framing == HTTP_CHUNKED || (h->framing == HTTP_LENGTH && h->length))
		return refuse(c, 400, "a request here has no body");
	c->closing = !h->keep_alive || c->eof;
	if (!head_only && !str_eq(h->method, STR("GET")))
		return answer(c, 405, NULL, STR("only GET and HEAD\n"), false);
	n = http_path(h->target, path, sizeof(path));
	if (n < 0)
		return refuse(c, 400, "the path cannot be read");
	for (unsigned i = 0; i < a->npages; i++) {
		if (page_matches(&a->pages[i], (struct str){ path, (size_t)n })) {
			status = a->pages[i].get(a->arg, (struct str){ path, (size_t)n }, &body, &type);
			break;
		}
	}
	if (status == 404 && !buf_len(&body))
		buf_puts(&body, "no such page\n");
	r = answer(c, status, type, buf_len(&body) ? buf_str(&body) : STR(""), head_only);
	buf_free(&body);
	return r;
}

/* Requests that have come, while no answer waits to be read. -errno: the connection is of no more use. */
static int serve_next(struct conn *c)
{
	struct http_head h;
	const char *why = NULL;
	ssize_t n;
	int r;

	if (!buf_len(&c->in) || buf_len(&c->out) || c->closing)
		return 0;
	n = http_head_end(buf_str(&c->in), &c->scanned);
	if (n == 0 && buf_len(&c->in) <= HEAD_MAX)
		return 0;
	if (n == 0 || n == -E2BIG || n > HEAD_MAX)
		return refuse(c, 431, NULL);
	if (n < 0)
		return refuse(c, 400, NULL);
	r = http_parse_request((struct str){ buf_data(&c->in), (size_t)n }, &h, &why);
	if (r)
		r = refuse(c, r == -EPROTO ? 505 : r == -E2BIG ? 431 : r == -EOPNOTSUPP ? 501 : 400, why);
	else
		r = serve(c, &h);
	buf_consume(&c->in, (size_t)n);
	c->scanned = 0;
	return r;
}

/* 0: written, or the peer reads slowly. */
static int conn_flush(struct conn *c)
{
	while (buf_len(&c->out)) {
		ssize_t n = send(c->fd.fd, buf_data(&c->out), buf_len(&c->out), MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		buf_consume(&c->out, (size_t)n);
	}
	buf_free(&c->out);
	return 0;
}

static int conn_read(struct conn *c)
{
	char *p = buf_room(&c->in, READ_SIZE);
	ssize_t n;

	if (!p)
		return -ENOMEM;
	n = recv(c->fd.fd, p, READ_SIZE, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	c->eof = n == 0;
	if (!c->closing)
		buf_commit(&c->in, (size_t)n);
	return 0;
}

/* Serve and write until there is nothing to serve or the peer reads slowly. */
static int conn_work(struct conn *c)
{
	for (;;) {
		int r = conn_flush(c);

		if (r || buf_len(&c->out))
			return r;
		r = serve_next(c);
		if (r || !buf_len(&c->out))
			return r;
	}
}

static void conn_ready(struct loop_fd *f, uint32_t events)
{
	struct conn *c = container_of(f, struct conn, fd);
	uint64_t now = loop_now(c->a->loop);
	uint32_t want = 0;
	int r = events & EPOLLERR ? -EPIPE : 0;

	list_del(&c->link);
	list_add_tail(&c->a->conns, &c->link);
	if (r == 0 && events & (EPOLLIN | EPOLLHUP))
		r = conn_read(c);
	if (r == 0 && !c->lingering)
		r = conn_work(c);
	if (r == 0 && !buf_len(&c->out) && c->eof)
		r = -EPIPE;
	if (r == 0 && c->closing && !c->lingering && !buf_len(&c->out)) {
		c->lingering = true;
		r = shutdown(f->fd, SHUT_WR) < 0 ? -errno : loop_timer_set(c->a->loop, &c->idle, now + LINGER_NS);
	} else if (r == 0 && !c->lingering && !buf_len(&c->in)) {
		/* Bytes of a head that trickle in do not move it. */
		r = loop_timer_set(c->a->loop, &c->idle, now + IDLE_NS);
	}
	if (!c->eof && (c->lingering || !buf_len(&c->out)))
		want |= EPOLLIN;
	if (buf_len(&c->out))
		want |= EPOLLOUT;
	if (r == 0)
		r = loop_fd_mod(f, want);
	if (!buf_len(&c->in))
		buf_free(&c->in);
	if (r)
		conn_free(c);
}

static void admin_accepted(struct door *d, int fd)
{
	struct admin *a = container_of(d, struct admin, door);
	struct conn *c;

	if (a->nconns >= CTL_CONNS_MAX) /* the one that has been silent the longest makes room */
		conn_free(container_of(a->conns.next, struct conn, link));
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return;
	}
	c->a = a;
	c->fd.ready = conn_ready;
	loop_timer_init(&c->idle, conn_idle);
	if (loop_fd_add(a->loop, &c->fd, fd, EPOLLIN)) {
		close(fd);
		free(c);
		return;
	}
	list_add_tail(&a->conns, &c->link);
	a->nconns++;
	if (loop_timer_set(a->loop, &c->idle, loop_now(a->loop) + IDLE_NS))
		conn_free(c);
}

struct admin *admin_start(struct loop *l, const struct net_addr *addr, const struct admin_page *pages, unsigned n,
			  void *arg)
{
	struct admin *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return NULL;
	*a = (struct admin){ .loop = l, .pages = pages, .npages = n, .arg = arg, .door.fd.fd = -1 };
	list_init(&a->conns);
	r = net_listen(addr, 64);
	if (r >= 0)
		r = door_open(&a->door, l, r, admin_accepted);
	if (r < 0) {
		free(a);
		errno = -r;
		return NULL;
	}
	return a;
}

void admin_stop(struct admin *a)
{
	if (!a)
		return;
	list_for_each_safe (it, tmp, &a->conns)
		conn_free(container_of(it, struct conn, link));
	door_close(&a->door);
	free(a);
}
