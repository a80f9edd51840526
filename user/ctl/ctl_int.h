/* SPDX-License-Identifier: Apache-2.0
 * Between ctl.c and admin.c: a listening descriptor that does not spin when the process is out of descriptors.
 */
#ifndef KVS_CTL_CTL_INT_H
#define KVS_CTL_CTL_INT_H

#include "ctl/ctl.h"

#define CTL_CONNS_MAX  64
#define CTL_LINE_MAX   (1u << 20) /* a request */
#define CTL_STREAM_MAX (1u << 20) /* unread lines of a stream */
#define CTL_ANSWER_MAX (32u << 20)

struct door {
	struct loop *loop;
	struct loop_fd fd;
	struct loop_timer again;
	void (*accepted)(struct door *d, int fd); /* owns the descriptor */
};

/* <fd> is given away, also on failure. */
int door_open(struct door *d, struct loop *l, int fd, void (*accepted)(struct door *d, int fd));
void door_close(struct door *d);

#endif
