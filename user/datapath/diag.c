/* SPDX-License-Identifier: Apache-2.0
 * Questions to the kernel about one TCP socket, by its tuple: sock_diag(7).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "datapath/splice_int.h"

#ifndef SOCK_DESTROY
#define SOCK_DESTROY 21
#endif

struct request {
	struct nlmsghdr h;
	struct inet_diag_req_v2 r;
};

int diag_open(void)
{
	struct timeval second = { .tv_sec = 1 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	return fd;
}

static int ask(int fd, const struct kvs_tuple *t, uint16_t type, uint16_t flags)
{
	struct request q = {
		.h = { .nlmsg_len = sizeof(q), .nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags) },
		.r = { .sdiag_protocol = IPPROTO_TCP,
		       .idiag_ext = 1 << (INET_DIAG_INFO - 1),
		       .idiag_states = 0xffffffff,
		       .id = { .idiag_sport = htons(t->lport),
			       .idiag_dport = htons(t->rport),
			       .idiag_cookie = { INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE } } },
	};

	if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)t->raddr.b)) {
		q.r.sdiag_family = AF_INET;
		memcpy(q.r.id.idiag_src, t->laddr.b + 12, 4);
		memcpy(q.r.id.idiag_dst, t->raddr.b + 12, 4);
	} else {
		q.r.sdiag_family = AF_INET6;
		memcpy(q.r.id.idiag_src, t->laddr.b, 16);
		memcpy(q.r.id.idiag_dst, t->raddr.b, 16);
	}
	return send(fd, &q, sizeof(q), 0) < 0 ? -errno : 0;
}

static void take_info(const struct nlmsghdr *h, struct diag *ret)
{
	const struct inet_diag_msg *m = NLMSG_DATA(h);
	int left = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)));

	*ret = (struct diag){ .state = m->idiag_state };
	for (const struct rtattr *a = (const struct rtattr *)(m + 1); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		struct tcp_info ti = { 0 };
		size_t n = RTA_PAYLOAD(a);

		if (a->rta_type != INET_DIAG_INFO)
			continue;
		memcpy(&ti, RTA_DATA(a), n < sizeof(ti) ? n : sizeof(ti));
		ret->data_in = ti.tcpi_data_segs_in;
	}
}

static int answer(int fd, struct diag *ret)
{
	_Alignas(8) char b[4096];
	const struct nlmsghdr *h = (const struct nlmsghdr *)b;
	ssize_t n = recv(fd, b, sizeof(b), 0);

	if (n < (ssize_t)sizeof(*h) || h->nlmsg_len > (size_t)n)
		return n < 0 ? -errno : -EBADMSG;
	if (h->nlmsg_type == NLMSG_ERROR && h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct nlmsgerr)))
		return ((const struct nlmsgerr *)NLMSG_DATA(h))->error;
	if (!ret || h->nlmsg_type != SOCK_DIAG_BY_FAMILY || h->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
		return -EBADMSG;
	take_info(h, ret);
	return 0;
}

int diag_ask(int fd, const struct kvs_tuple *t, struct diag *ret)
{
	int r = ask(fd, t, SOCK_DIAG_BY_FAMILY, 0);

	r = r ? r : answer(fd, ret);
	/* Without an own socket the kernel names the listener. */
	if (!r && (ret->state == 10 /* TCP_LISTEN */ || ret->state == 7 /* TCP_CLOSE */))
		r = -ENOENT;
	return r;
}

int diag_destroy(int fd, const struct kvs_tuple *t)
{
	int r = ask(fd, t, SOCK_DESTROY, NLM_F_ACK);

	return r ? r : answer(fd, NULL);
}
