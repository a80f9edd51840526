/* SPDX-License-Identifier: Apache-2.0
 *
 * One request at a time, pipelined ones after it. A head stays in the buffer until its body is complete and is parsed
 * again for the handler, because the bytes may have moved meanwhile. The client's FIN ends its connection and what
 * runs for it, as with uvicorn.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/time.h"
#include "sim.h"

#define BODY_MAX  (256u << 20)
#define READ_STEP 65536

static void progress(struct conn *c);

/* What is no HTTP is answered below the application: without its headers, and the connection is over. */
static void refuse(struct conn *c)
{
	struct buf *b = &c->pod->sim->scratch;

	buf_consume(b, buf_len(b));
	head_start(b, c, 400);
	buf_puts(b, "content-type: text/plain; charset=utf-8\r\ncontent-length: 30\r\nconnection: close\r\n\r\n"
		    "Invalid HTTP request received.");
	conn_send(c, buf_data(b), buf_len(b));
	conn_finish(c);
}

static void on_data(void *arg, const char *p, size_t n)
{
	buf_put(arg, p, n);
}

/* Has the whole body come? Its end in <in> goes to <ret_end>. 1, 0 or -EBADMSG. */
static int body_complete(struct conn *c, size_t *ret_end)
{
	size_t have = buf_len(&c->in) - c->head_len;
	ssize_t n;

	if (!c->chunked) {
		*ret_end = c->head_len + c->length;
		return have >= c->length;
	}
	n = http_chunks_walk(&c->chunks, buf_data(&c->in) + c->head_len + c->walked, have - c->walked, on_data,
			     &c->body);
	if (n < 0)
		return -EBADMSG;
	c->walked += (uint64_t)n;
	*ret_end = c->head_len + c->walked;
	return http_chunks_done(&c->chunks);
}

static int take_head(struct conn *c, struct http_head *h)
{
	ssize_t n = http_head_end(buf_str(&c->in), &c->scanned);

	if (n <= 0)
		return n < 0 ? -EBADMSG : -EAGAIN;
	if (http_parse_request((struct str){ buf_data(&c->in), (size_t)n }, h, NULL))
		return -EBADMSG;
	c->head_len = (size_t)n;
	c->have_head = true;
	c->chunked = h->framing == HTTP_CHUNKED;
	c->length = h->framing == HTTP_LENGTH ? h->length : 0;
	c->walked = 0;
	c->minor = h->minor;
	c->close_after = !h->keep_alive;
	c->continued = !h->expect_continue;
	http_chunks_init(&c->chunks);
	return c->length > BODY_MAX ? -EBADMSG : 0;
}

static void dispatch(struct conn *c, size_t end)
{
	struct http_head h;
	struct request r = { .c = c, .head = &h };
	char path[1024];
	struct str id;
	const char *q;

	http_parse_request((struct str){ buf_data(&c->in), c->head_len }, &h, NULL);
	r.body = c->chunked ? buf_str(&c->body) : (struct str){ buf_data(&c->in) + c->head_len, c->length };
	if (http_path(h.target, path, sizeof(path)) < 0)
		path[0] = 0;
	r.path = path;
	q = h.target.n ? memchr(h.target.p, '?', h.target.n) : NULL;
	if (q)
		r.query = (struct str){ q + 1, (size_t)(h.target.p + h.target.n - q - 1) };
	id = http_header_get(&h, STR("x-request-id"));
	r.id_given = id.n && id.n < sizeof(r.id);
	if (r.id_given)
		memcpy(r.id, id.p, id.n);
	else
		random_hex(c->pod, r.id, 32);
	c->busy = true;
	api_dispatch(&r);
	c->have_head = false;
	c->scanned = 0;
	buf_consume(&c->in, end);
	buf_free(&c->body);
}

static void progress(struct conn *c)
{
	while (!c->dead && !c->closing && !c->busy && buf_len(&c->in)) {
		struct http_head h;
		size_t end = 0;
		int r = 0;

		if (!c->have_head)
			r = take_head(c, &h);
		if (!r) {
			r = body_complete(c, &end);
			if (!r && !c->continued) {
				c->continued = true;
				conn_send(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
			}
			if (!r)
				return;
		}
		if (r == -EAGAIN)
			return;
		if (r < 0) {
			refuse(c);
			return;
		}
		dispatch(c, end);
	}
	if (!c->dead && !buf_len(&c->in) && c->in.cap > READ_STEP)
		buf_free(&c->in);
}

static void more_run(struct loop_work *w)
{
	progress(container_of(w, struct conn, more));
}

static void idle_fire(struct loop_timer *t)
{
	conn_kill(container_of(t, struct conn, idle), false);
}

static void on_readable(struct conn *c)
{
	for (int i = 0; i < 16; i++) {
		char *to = buf_room(&c->in, READ_STEP);
		ssize_t n = to ? recv(c->io.fd, to, READ_STEP, MSG_DONTWAIT) : -1;

		if (n > 0) {
			buf_commit(&c->in, (size_t)n);
			loop_timer_del(c->pod->sim->loop, &c->idle);
			if (n == READ_STEP && buf_len(&c->in) < BODY_MAX)
				continue;
			break;
		}
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		conn_kill(c, false);
		return;
	}
	progress(c);
}

static void want(struct conn *c)
{
	loop_fd_mod(&c->io, EPOLLIN | EPOLLRDHUP | (buf_len(&c->out) ? EPOLLOUT : 0));
}

static void on_writable(struct conn *c)
{
	ssize_t n = send(c->io.fd, buf_data(&c->out), buf_len(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		conn_kill(c, false);
		return;
	}
	if (n > 0)
		buf_consume(&c->out, (size_t)n);
	if (buf_len(&c->out))
		return;
	buf_free(&c->out);
	if (c->closing) {
		conn_kill(c, false);
		return;
	}
	want(c);
}

static void ready(struct loop_fd *f, uint32_t events)
{
	struct conn *c = container_of(f, struct conn, io);

	if (events & (EPOLLERR | EPOLLHUP)) {
		conn_kill(c, false);
		return;
	}
	if (events & EPOLLOUT && buf_len(&c->out))
		on_writable(c);
	if (!c->dead && events & (EPOLLIN | EPOLLRDHUP))
		on_readable(c);
}

void conn_sendv(struct conn *c, struct iovec *v, unsigned n)
{
	struct msghdr m = { .msg_iov = v, .msg_iovlen = n };
	ssize_t sent = 0;

	if (c->dead)
		return;
	if (!buf_len(&c->out)) {
		sent = sendmsg(c->io.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno != EAGAIN && errno != EINTR) {
			conn_kill(c, false);
			return;
		}
		if (sent < 0)
			sent = 0;
	}
	for (unsigned i = 0; i < n; i++) {
		size_t skip = (size_t)sent < v[i].iov_len ? (size_t)sent : v[i].iov_len;

		sent -= (ssize_t)skip;
		buf_put(&c->out, (char *)v[i].iov_base + skip, v[i].iov_len - skip);
	}
	if (buf_len(&c->out))
		want(c);
}

void conn_send(struct conn *c, const void *p, size_t n)
{
	struct iovec v = { (void *)(uintptr_t)p, n };

	conn_sendv(c, &v, 1);
}

void conn_finish(struct conn *c)
{
	c->closing = true;
	c->busy = false;
	if (!c->dead && !buf_len(&c->out))
		conn_kill(c, false);
}

void conn_done(struct conn *c)
{
	struct loop *l = c->pod->sim->loop;

	if (c->dead)
		return;
	c->busy = false;
	if (c->close_after) {
		conn_finish(c);
		return;
	}
	if (buf_len(&c->in))
		loop_defer(l, &c->more);
	if (c->pod->o.keep_alive > 0)
		loop_timer_set(l, &c->idle, time_mono() + (uint64_t)c->pod->o.keep_alive);
}

void conn_kill(struct conn *c, bool reset)
{
	struct pod *p = c->pod;
	int fd = c->io.fd;

	if (c->dead)
		return;
	c->dead = true;
	loop_timer_del(p->sim->loop, &c->idle);
	loop_fd_del(&c->io);
	if (reset)
		net_reset(fd);
	else
		close(fd);
	list_del(&c->link);
	list_add_tail(&p->dead, &c->link);
	loop_defer(p->sim->loop, &p->reap);
}

void conn_free(struct conn *c)
{
	list_del(&c->link);
	list_del(&c->more.link);
	answer_free(c->answer);
	buf_free(&c->in);
	buf_free(&c->out);
	buf_free(&c->body);
	free(c);
}

int conn_accept(struct pod *p)
{
	int fd = net_accept(p->listener.fd, NULL), r;
	struct conn *c;

	if (fd < 0)
		return fd;
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	c->pod = p;
	c->io.ready = ready;
	loop_timer_init(&c->idle, idle_fire);
	loop_work_init(&c->more, more_run);
	r = loop_fd_add(p->sim->loop, &c->io, fd, EPOLLIN | EPOLLRDHUP);
	if (r) {
		close(fd);
		free(c);
		return r;
	}
	list_add_tail(&p->conns, &c->link);
	p->connections++;
	return 0;
}
