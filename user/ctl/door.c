/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/time.h"
#include "ctl/ctl_int.h"

#define ACCEPTS_PER_TURN 16

static void listen_again(struct loop_timer *t)
{
	struct door *d = container_of(t, struct door, again);

	loop_fd_mod(&d->fd, EPOLLIN);
}

static void door_ready(struct loop_fd *f, uint32_t events)
{
	struct door *d = container_of(f, struct door, fd);

	for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(f->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			d->accepted(d, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			/* The connection stays in the backlog and would wake us at once. */
			loop_fd_mod(f, 0);
			loop_timer_set(d->loop, &d->again, loop_now(d->loop) + NS_PER_S);
		}
		if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

int door_open(struct door *d, struct loop *l, int fd, void (*accepted)(struct door *d, int fd))
{
	int r;

	d->loop = l;
	d->accepted = accepted;
	d->fd.ready = door_ready;
	loop_timer_init(&d->again, listen_again);
	r = loop_fd_add(l, &d->fd, fd, EPOLLIN);
	if (r) {
		d->fd.fd = -1;
		close(fd);
	}
	return r;
}

void door_close(struct door *d)
{
	int fd = d->fd.fd;

	if (!d->loop || fd < 0)
		return;
	loop_timer_del(d->loop, &d->again);
	loop_fd_del(&d->fd);
	close(fd);
}
