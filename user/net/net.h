/* SPDX-License-Identifier: Apache-2.0
 * Addresses, listeners and dialing. Sockets are plain non-blocking TCP (IPPROTO_TCP, never MPTCP).
 *
 * Errors: 0 or a descriptor, or a negative errno.
 */
#ifndef KVS_NET_NET_H
#define KVS_NET_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "base/str.h"

#define NET_NAME_MAX 64 /* "[ipv6%zone]:port" and its NUL */

struct net_addr {
	socklen_t len; /* 0: none */
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
};

/* "1.2.3.4:80", "[::1]:80", ":80" (all addresses, dual stack) or "*:80". -EINVAL. Names are not looked up. */
int net_addr_parse(struct str s, struct net_addr *ret);
void net_addr_format(const struct net_addr *a, char out[NET_NAME_MAX]);
void net_addr_format_ip(const struct net_addr *a, char out[NET_NAME_MAX]); /* without port and brackets */
bool net_addr_eq(const struct net_addr *a, const struct net_addr *b);
uint16_t net_addr_port(const struct net_addr *a);
void net_addr_set_port(struct net_addr *a, uint16_t port);

/* A listening socket with SO_REUSEADDR and SO_REUSEPORT, so that each worker has its own and a new daemon can start
 * beside an old one; who waits in one that closes goes to the others. */
int net_listen(const struct net_addr *a, int backlog);

/* Start a connection with TCP_NODELAY: it is up, or has failed, at EPOLLOUT (net_error tells). */
int net_dial(const struct net_addr *a);
/* Its two halves, for those who have something to do in between. net_connect: 0 (also when it is under way); the socket
 * stays the caller's. */
int net_socket(const struct net_addr *a);
int net_connect(int fd, const struct net_addr *a);
int net_accept(int listener, struct net_addr *ret_peer); /* non-blocking, TCP_NODELAY; -EAGAIN when none waits */
int net_error(int fd);					 /* SO_ERROR as a negative errno, 0 if none */

/* Bytes written that the peer's host has not acknowledged, and how often the first of them has been sent again in a row
 * (0 while the peer's window is closed: such a peer is slow, not gone). Or a negative errno. */
int net_unacked(int fd, unsigned *ret_retransmits);

/* Close so that the peer gets RST, whatever lies unread. */
void net_reset(int fd);

/* Has the peer closed, or sent what nobody asked for? For an idle pooled connection. */
bool net_idle_dead(int fd);

#endif
