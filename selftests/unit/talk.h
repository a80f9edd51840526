/* SPDX-License-Identifier: Apache-2.0
 * A client's side of a conversation over a socket, for tests of what listens.
 */
#ifndef SELFTESTS_TALK_H
#define SELFTESTS_TALK_H

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"

static inline void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* All that comes until the other side closes, which ends the conversation; a reset fails. A NUL stands behind it. */
static inline void hear(int fd, struct buf *ret)
{
	ssize_t n;

	while ((n = recv(fd, buf_room(ret, 65536), 65536, 0)) > 0)
		buf_commit(ret, (size_t)n);
	assert_int_equal(n, 0);
	buf_put(ret, "", 1);
	ret->len--;
	close(fd);
}

#endif
