/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int net_addr_parse(struct str s, struct net_addr *ret)
{
	struct net_addr a = { 0 };
	char host[NET_NAME_MAX];
	struct str h, port;
	const char *colon = memrchr(s.p, ':', s.n);
	char *zone;
	uint64_t n;

	if (!colon)
		return -EINVAL;
	h = (struct str){ s.p, (size_t)(colon - s.p) };
	port = (struct str){ colon + 1, s.n - h.n - 1 };
	if (str_u64(port, &n) || n > 65535)
		return -EINVAL;
	if (h.n == 0 || str_eq(h, STR("*"))) {
		a.v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT };
		a.len = sizeof(a.v6);
	} else if (h.p[0] == '[') {
		if (h.n < 3 || h.p[h.n - 1] != ']' || h.n - 2 >= sizeof(host))
			return -EINVAL;
		memcpy(host, h.p + 1, h.n - 2);
		host[h.n - 2] = '\0';
		a.v6.sin6_family = AF_INET6;
		a.len = sizeof(a.v6);
		zone = strchr(host, '%');
		if (zone) {
			*zone++ = '\0';
			a.v6.sin6_scope_id = if_nametoindex(zone);
			if (!a.v6.sin6_scope_id)
				return -EINVAL;
		}
		if (inet_pton(AF_INET6, host, &a.v6.sin6_addr) != 1)
			return -EINVAL;
	} else {
		if (h.n >= sizeof(host))
			return -EINVAL;
		memcpy(host, h.p, h.n);
		host[h.n] = '\0';
		a.v4.sin_family = AF_INET;
		a.len = sizeof(a.v4);
		if (inet_pton(AF_INET, host, &a.v4.sin_addr) != 1)
			return -EINVAL;
	}
	net_addr_set_port(&a, (uint16_t)n);
	*ret = a;
	return 0;
}

void net_addr_format_ip(const struct net_addr *a, char out[NET_NAME_MAX])
{
	out[0] = '\0';
	if (a->sa.sa_family == AF_INET)
		inet_ntop(AF_INET, &a->v4.sin_addr, out, NET_NAME_MAX);
	else if (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr))
		inet_ntop(AF_INET, &a->v6.sin6_addr.s6_addr[12], out, NET_NAME_MAX);
	else if (a->sa.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &a->v6.sin6_addr, out, NET_NAME_MAX);
}

void net_addr_format(const struct net_addr *a, char out[NET_NAME_MAX])
{
	char ip[NET_NAME_MAX];

	net_addr_format_ip(a, ip);
	snprintf(out, NET_NAME_MAX, strchr(ip, ':') ? "[%.50s]:%u" : "%.50s:%u", ip, net_addr_port(a));
}

bool net_addr_eq(const struct net_addr *a, const struct net_addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family || net_addr_port(a) != net_addr_port(b))
		return false;
	if (a->sa.sa_family == AF_INET)
		return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
	return a->v6.sin6_scope_id == b->v6.sin6_scope_id &&
	       memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof(a->v6.sin6_addr)) == 0;
}

uint16_t net_addr_port(const struct net_addr *a)
{
	return ntohs(a->sa.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);
}

void net_addr_set_port(struct net_addr *a, uint16_t port)
{
	if (a->sa.sa_family == AF_INET)
		a->v4.sin_port = htons(port);
	else
		a->v6.sin6_port = htons(port);
}

static void set_int(int fd, int level, int opt, int v)
{
	setsockopt(fd, level, opt, &v, sizeof(v));
}

/* A host that is gone without a word is noticed within half a minute, also while nothing is to be sent. */
static void keep_alive(int fd)
{
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 15);
	set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
	set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

/* What waits in a listener, or shakes hands with it, goes to another of its port when it closes: to the daemon that
 * comes after this one. The kernel does that with net.ipv4.tcp_migrate_req for a whole host; for these sockets alone it
 * asks a program, which leaves the choice to the kernel. Without the right to load one such connections are reset. */
static void let_migrate(int fd)
{
	const struct bpf_insn pass[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = SK_PASS },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_SK_REUSEPORT,
				.expected_attach_type = BPF_SK_REUSEPORT_SELECT_OR_MIGRATE,
				.insn_cnt = sizeof(pass) / sizeof(*pass),
				.insns = (uintptr_t)pass,
				.license = (uintptr_t)"" };
	int prog = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));

	if (prog < 0)
		return;
	set_int(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, prog);
	close(prog);
}

int net_listen(const struct net_addr *a, int backlog)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	int r;

	if (fd < 0)
		return -errno;
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (a->sa.sa_family == AF_INET6)
		set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	if (bind(fd, &a->sa, a->len) < 0 || listen(fd, backlog) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	let_migrate(fd);
	return fd;
}

int net_socket(const struct net_addr *a)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);

	if (fd < 0)
		return -errno;
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	keep_alive(fd);
	return fd;
}

int net_connect(int fd, const struct net_addr *a)
{
	return connect(fd, &a->sa, a->len) < 0 && errno != EINPROGRESS ? -errno : 0;
}

int net_dial(const struct net_addr *a)
{
	int fd = net_socket(a), r;

	if (fd < 0)
		return fd;
	r = net_connect(fd, a);
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

int net_accept(int listener, struct net_addr *ret_peer)
{
	struct net_addr peer = { .len = sizeof(peer.v6) };
	int fd = accept4(listener, &peer.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return -errno;
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	keep_alive(fd);
	if (ret_peer)
		*ret_peer = peer;
	return fd;
}

int net_error(int fd)
{
	int e = 0;
	socklen_t n = sizeof(e);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0)
		return -errno;
	return -e;
}

int net_unacked(int fd, unsigned *ret_retransmits)
{
	struct tcp_info ti = { 0 };
	socklen_t n = sizeof(ti);
	int bytes = 0;

	*ret_retransmits = 0;
	if (ioctl(fd, SIOCOUTQ, &bytes) < 0)
		return -errno;
	if (bytes && getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &n) < 0)
		return -errno;
	*ret_retransmits = ti.tcpi_retransmits;
	return bytes;
}

void net_reset(int fd)
{
	struct linger l = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
}

bool net_idle_dead(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);

	return n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}
