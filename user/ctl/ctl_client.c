/* SPDX-License-Identifier: Apache-2.0
 *
 * The other end of the control socket, for programs that may block.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/ctl_int.h"

#define TIMEOUT_S 10

static int dial(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval tv = { .tv_sec = TIMEOUT_S };
	size_t n = strlen(path);
	int fd, r;

	if (n == 0 || n >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, path, n);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0 ||
	    connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		r = errno == EAGAIN ? -ETIMEDOUT : -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int send_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

static int send_request(int fd, const char *cmd, json_t *args)
{
	json_t *req = args ? json_pack("{s:s, s:O}", "cmd", cmd, "args", args) : json_pack("{s:s}", "cmd", cmd);
	char *text = req ? json_dumps(req, JSON_COMPACT) : NULL;
	int r = -ENOMEM;

	/* The server would hang up on it, and the reason would be lost. */
	if (text && strlen(text) > CTL_LINE_MAX)
		r = -E2BIG;
	else if (text)
		r = send_all(fd, text, strlen(text));
	if (r == 0)
		r = send_all(fd, "\n", 1);
	free(text);
	json_decref(req);
	return r;
}

/* The next line as JSON; what follows it stays in <in>. */
static int read_line(int fd, struct buf *in, size_t *scanned, json_t **ret)
{
	for (;;) {
		size_t len = buf_len(in);
		const char *lf = len ? memchr(buf_data(in) + *scanned, '\n', len - *scanned) : NULL;
		char *p;
		ssize_t n;

		if (lf) {
			size_t line = (size_t)(lf - buf_data(in));

			*ret = json_loadb(buf_data(in), line, JSON_ALLOW_NUL, NULL);
			buf_consume(in, line + 1);
			*scanned = 0;
			return json_is_object(*ret) ? 0 : (json_decref(*ret), *ret = NULL, -EBADMSG);
		}
		*scanned = len;
		if (len > CTL_ANSWER_MAX + 1024)
			return -EMSGSIZE;
		p = buf_room(in, 16384);
		if (!p)
			return -ENOMEM;
		n = recv(fd, p, 16384, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (n == 0)
			return -ECONNRESET;
		buf_commit(in, (size_t)n);
	}
}

int ctl_call(const char *path, const char *cmd, json_t *args, json_t **ret)
{
	struct buf in = { 0 };
	size_t scanned = 0;
	json_t *v = NULL;
	int fd = dial(path), r;

	if (fd < 0)
		return fd;
	r = send_request(fd, cmd, args);
	if (r == 0)
		r = read_line(fd, &in, &scanned, &v);
	close(fd);
	buf_free(&in);
	if (r == 0)
		*ret = v;
	return r;
}

int ctl_follow(const char *path, const char *cmd, json_t *args, bool (*line)(void *arg, json_t *v), void *arg)
{
	struct timeval never = { 0 };
	struct buf in = { 0 };
	size_t scanned = 0;
	bool more = true;
	int fd = dial(path), r;

	if (fd < 0)
		return fd;
	r = send_request(fd, cmd, args);
	/* A stream may be silent for as long as nothing happens. */
	if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof(never)) < 0)
		r = -errno;
	while (r == 0 && more) {
		json_t *v = NULL;

		r = read_line(fd, &in, &scanned, &v);
		if (r == 0) {
			more = line(arg, v);
			json_decref(v);
		}
	}
	close(fd);
	buf_free(&in);
	return r;
}
