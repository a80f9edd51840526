/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket. A connection reads a line, answers it, and only then looks at the next: while an answer waits to
 * be read nothing more is taken in, so what a connection holds is bounded by one line and one answer.
 *
 * A handler may keep its connection for a stream. From then on its input is thrown away, and lines that the reader is
 * too slow for are refused to the writer. ctl_conn_line may be called from anywhere on the loop, also while its owner
 * walks a list of connections; therefore a connection that breaks there is only marked, and dies in the loop's
 * deferred work.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/ctl_int.h"

#define READ_SIZE 16384

struct ctl {
	struct loop *loop;
	struct door door;
	char *path;
	dev_t dev;
	ino_t ino;
	const struct ctl_cmd *cmds;
	unsigned ncmds;
	void *arg;
	struct list conns; /* least recently active first */
	unsigned nconns;
};

struct ctl_conn {
	struct list link;
	struct loop_fd fd;
	struct loop_work reap;
	struct ctl *ctl;
	struct buf in, out;
	size_t scanned; /* of the unread input: no line feed there */
	bool kept, eof, closing, dead;
	void (*closed)(void *arg, struct ctl_conn *c);
	void *closed_arg;
};

static void conn_free(struct ctl_conn *c)
{
	int fd = c->fd.fd;

	if (c->kept && c->closed)
		c->closed(c->closed_arg, c);
	loop_fd_del(&c->fd);
	close(fd);
	list_del(&c->reap.link);
	list_del(&c->link);
	c->ctl->nconns--;
	buf_free(&c->in);
	buf_free(&c->out);
	free(c);
}

static void conn_reap(struct loop_work *w)
{
	conn_free(container_of(w, struct ctl_conn, reap));
}

static void conn_die(struct ctl_conn *c)
{
	c->dead = true;
	loop_defer(c->ctl->loop, &c->reap);
}

static void conn_flush(struct ctl_conn *c)
{
	while (buf_len(&c->out)) {
		ssize_t n = send(c->fd.fd, buf_data(&c->out), buf_len(&c->out), MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN)
				conn_die(c);
			return;
		}
		buf_consume(&c->out, (size_t)n);
	}
	buf_free(&c->out);
}

static void conn_want(struct ctl_conn *c)
{
	uint32_t want = 0;

	if (c->dead)
		return;
	if (!c->kept && !buf_len(&c->out) && (c->closing || c->eof)) {
		conn_die(c);
		return;
	}
	/* A peer that has gone altogether is told by EPOLLHUP, asked for or not. */
	if (!c->eof && !c->closing && (c->kept || !buf_len(&c->out)))
		want |= EPOLLIN;
	if (buf_len(&c->out))
		want |= EPOLLOUT;
	if (loop_fd_mod(&c->fd, want))
		conn_die(c);
}

static void put_line(struct ctl_conn *c, struct buf *line)
{
	if (buf_put(line, "\n", 1) || buf_put(&c->out, buf_data(line), buf_len(line)))
		conn_die(c);
}

static void put_error(struct ctl_conn *c, enum ctl_code code, const char *what)
{
	static const char *const names[] = { "ok", "failed", "usage", "not_found" };
	struct buf b = { 0 };
	struct jw w;

	jw_init(&w, &b);
	jw_obj(&w);
	jw_kbool(&w, "ok", false);
	jw_kstr(&w, "code", names[code]);
	jw_kstr(&w, "error", what);
	jw_end_obj(&w);
	if (jw_err(&w))
		conn_die(c);
	else
		put_line(c, &b);
	buf_free(&b);
}

static void run_cmd(struct ctl_conn *c, const struct ctl_cmd *cmd, json_t *args)
{
	struct buf answer = { 0 }, err = { 0 };
	enum ctl_code code;
	size_t empty;
	struct jw w;

	if (buf_puts(&answer, "{\"ok\":true,\"data\":")) {
		conn_die(c);
		return;
	}
	empty = buf_len(&answer);
	jw_init(&w, &answer);
	code = cmd->run(c->ctl->arg, args, &w, &err, c);
	if (code != CTL_OK) {
		put_error(c, code, buf_len(&err) && buf_put(&err, "", 1) == 0 ? buf_data(&err) : "no reason given");
	} else if (jw_err(&w)) {
		put_error(c, CTL_FAILED, "out of memory");
	} else if (buf_len(&answer) > CTL_ANSWER_MAX) {
		put_error(c, CTL_FAILED, "the answer is too large");
	} else if (buf_len(&answer) > empty || !c->kept) {
		if (buf_len(&answer) == empty)
			jw_null(&w);
		if (buf_puts(&answer, "}"))
			conn_die(c);
		else
			put_line(c, &answer);
	}
	buf_free(&answer);
	buf_free(&err);
}

static void run_line(struct ctl_conn *c, struct str line)
{
	struct ctl *ctl = c->ctl;
	json_error_t why;
	json_t *req = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, &why), *args;
	const char *name;

	if (!req) {
		put_error(c, CTL_USAGE, why.text);
		return;
	}
	name = json_string_value(json_object_get(req, "cmd"));
	args = json_object_get(req, "args");
	if (args && !json_is_object(args)) {
		put_error(c, CTL_USAGE, "args is not an object");
	} else if (!name) {
		put_error(c, CTL_USAGE, "a request is {\"cmd\":NAME,\"args\":{…}}");
	} else {
		json_t *none = args ? NULL : json_object();
		unsigned i = 0;

		while (i < ctl->ncmds && strcmp(ctl->cmds[i].name, name) != 0)
			i++;
		if (i == ctl->ncmds)
			put_error(c, CTL_USAGE, "this daemon knows no such command");
		else
			run_cmd(c, &ctl->cmds[i], args ? args : none);
		json_decref(none);
	}
	json_decref(req);
}

/* Lines that have come, one after the other, while none waits for its answer to be read. */
static void run_lines(struct ctl_conn *c)
{
	while (!c->kept && !c->dead && !c->closing && !buf_len(&c->out) && buf_len(&c->in)) {
		size_t len = buf_len(&c->in);
		const char *p = buf_data(&c->in);
		const char *lf = memchr(p + c->scanned, '\n', len - c->scanned);
		struct str line = { p, lf ? (size_t)(lf - p) : len };

		if (!lf && len <= CTL_LINE_MAX && !c->eof) {
			c->scanned = len;
			return;
		}
		if (line.n > CTL_LINE_MAX) {
			put_error(c, CTL_USAGE, "a line is longer than 1 MiB");
			c->closing = true;
			return;
		}
		if (str_trim(line).n)
			run_line(c, line);
		buf_consume(&c->in, line.n + (lf ? 1 : 0));
		c->scanned = 0;
		if (!c->dead)
			conn_flush(c);
	}
	if (c->kept || !buf_len(&c->in))
		buf_free(&c->in);
}

static void conn_read(struct ctl_conn *c)
{
	char *p = buf_room(&c->in, READ_SIZE);
	ssize_t n;

	if (!p) {
		conn_die(c);
		return;
	}
	n = recv(c->fd.fd, p, READ_SIZE, 0);
	if (n > 0)
		buf_commit(&c->in, (size_t)n);
	else if (n == 0)
		c->eof = true;
	else if (errno != EAGAIN && errno != EINTR)
		conn_die(c);
}

static void conn_ready(struct loop_fd *f, uint32_t events)
{
	struct ctl_conn *c = container_of(f, struct ctl_conn, fd);

	if (c->dead)
		return;
	list_del(&c->link);
	list_add_tail(&c->ctl->conns, &c->link);
	if (events & (EPOLLHUP | EPOLLERR)) {
		conn_die(c);
		return;
	}
	if (events & EPOLLIN)
		conn_read(c);
	if (!c->dead && buf_len(&c->out))
		conn_flush(c);
	run_lines(c);
	conn_want(c);
}

static void ctl_accepted(struct door *d, int fd)
{
	struct ctl *ctl = container_of(d, struct ctl, door);
	struct ctl_conn *c;

	if (ctl->nconns >= CTL_CONNS_MAX) {
		/* Whoever has been silent the longest makes room, so that forgotten clients lock nobody out. */
		list_for_each (it, &ctl->conns) {
			struct ctl_conn *old = container_of(it, struct ctl_conn, link);

			if (!old->kept) {
				conn_free(old);
				break;
			}
		}
	}
	c = ctl->nconns < CTL_CONNS_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	c->ctl = ctl;
	c->fd.ready = conn_ready;
	loop_work_init(&c->reap, conn_reap);
	if (loop_fd_add(ctl->loop, &c->fd, fd, EPOLLIN)) {
		close(fd);
		free(c);
		return;
	}
	list_add_tail(&ctl->conns, &c->link);
	ctl->nconns++;
}

void ctl_conn_keep(struct ctl_conn *c, void (*closed)(void *arg, struct ctl_conn *c), void *arg)
{
	c->kept = true;
	c->closed = closed;
	c->closed_arg = arg;
}

int ctl_conn_line(struct ctl_conn *c, struct str data)
{
	struct buf b = { 0 };
	int r = 0;

	if (c->dead)
		return -EPIPE;
	if (buf_len(&c->out) + data.n > CTL_STREAM_MAX)
		return -EAGAIN;
	if (buf_puts(&b, "{\"ok\":true,\"data\":") || buf_put(&b, data.p, data.n) || buf_puts(&b, "}\n") ||
	    buf_put(&c->out, buf_data(&b), buf_len(&b)))
		r = -ENOMEM;
	buf_free(&b);
	if (r)
		return r;
	conn_flush(c);
	conn_want(c);
	return c->dead ? -EPIPE : 0;
}

static int unix_addr(const char *path, struct sockaddr_un *ret)
{
	size_t n = strlen(path);

	if (n == 0 || n >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path, path, n + 1);
	return 0;
}

/* Does somebody listen there? What nobody listens to is taken away. */
static int clear_stale(const struct sockaddr_un *a)
{
	struct stat st;
	int fd, r;

	if (lstat(a->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 ? -errno : 0;
	close(fd);
	if (r != -ECONNREFUSED)
		return r == 0 || r == -EAGAIN ? -EADDRINUSE : r;
	return unlink(a->sun_path) < 0 ? -errno : 0;
}

static void make_parent(const char *path)
{
	char *dir = str_dup(str_of(path)), *slash = dir ? strrchr(dir, '/') : NULL;

	if (slash && slash != dir) {
		*slash = '\0';
		mkdir(dir, 0755); /* if it cannot be made, bind says so */
	}
	free(dir);
}

static int listen_at(const char *path, struct stat *ret_st)
{
	struct sockaddr_un a;
	int fd, r = unix_addr(path, &a);

	if (r)
		return r;
	make_parent(path);
	r = clear_stale(&a);
	if (r)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* The socket's own mode is what bind gives to the file: it is never open to others, not even for a moment. */
	if (fchmod(fd, 0660) < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	if (chmod(path, 0660) < 0 || stat(path, ret_st) < 0 || listen(fd, CTL_CONNS_MAX) < 0) {
		r = -errno;
		unlink(path);
		close(fd);
		return r;
	}
	return fd;
}

struct ctl *ctl_start(struct loop *l, const char *path, const struct ctl_cmd *cmds, unsigned n, void *arg)
{
	struct ctl *c = calloc(1, sizeof(*c));
	struct stat st = { 0 };
	int fd, r;

	if (!c)
		return NULL;
	*c = (struct ctl){ .loop = l, .cmds = cmds, .ncmds = n, .arg = arg, .door.fd.fd = -1 };
	list_init(&c->conns);
	c->path = str_dup(str_of(path));
	if (!c->path) {
		free(c);
		return NULL;
	}
	fd = listen_at(path, &st);
	r = fd < 0 ? fd : door_open(&c->door, l, fd, ctl_accepted);
	c->dev = st.st_dev;
	c->ino = st.st_ino;
	if (r) {
		ctl_stop(c);
		errno = -r;
		return NULL;
	}
	return c;
}

void ctl_stop(struct ctl *c)
{
	struct stat st;

	if (!c)
		return;
	list_for_each_safe (it, tmp, &c->conns)
		conn_free(container_of(it, struct ctl_conn, link));
	door_close(&c->door);
	/* Somebody may have put another in its place. */
	if (c->ino && stat(c->path, &st) == 0 && st.st_dev == c->dev && st.st_ino == c->ino)
		unlink(c->path);
	free(c->path);
	free(c);
}
