/* SPDX-License-Identifier: Apache-2.0
 * Which devices the routes to pods leave by: one RTM_GETROUTE for each address, the question that the kernel's own
 * connect() asks. Of several equal routes the kernel names one; the others' devices are found when it names them.
 * Clients may come from anywhere, so all default routes' devices are asked for as well.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <stdlib.h>
#include <string.h>

#include "datapath/datapath_int.h"

static int take_oif(struct nl_msg *msg, void *arg)
{
	struct nlattr *tb[RTA_MAX + 1];
	uint32_t *oif = arg;

	if (nlmsg_parse(nlmsg_hdr(msg), sizeof(struct rtmsg), tb, RTA_MAX, NULL) == 0 && tb[RTA_OIF])
		*oif = nla_get_u32(tb[RTA_OIF]);
	return NL_OK;
}

static int is_v4(const struct kvs_addr *a)
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	return memcmp(a->b, prefix, sizeof(prefix)) == 0;
}

static uint32_t route_oif(struct nl_sock *sk, const struct kvs_addr *a)
{
	bool v4 = is_v4(a);
	struct rtmsg rt = { .rtm_family = v4 ? AF_INET : AF_INET6, .rtm_dst_len = v4 ? 32 : 128 };
	struct nl_msg *msg = nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_REQUEST);
	uint32_t oif = 0;

	if (!msg)
		return 0;
	nl_socket_modify_cb(sk, NL_CB_VALID, NL_CB_CUSTOM, take_oif, &oif);
	if (nlmsg_append(msg, &rt, sizeof(rt), NLMSG_ALIGNTO) == 0 &&
	    nla_put(msg, RTA_DST, v4 ? 4 : 16, v4 ? a->b + 12 : a->b) == 0 && nl_send_auto(sk, msg) >= 0)
		nl_recvmsgs_default(sk); /* an error is a pod without a route */
	nlmsg_free(msg);
	return oif;
}

static int u32_cmp(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int route_devices(const struct kvs_pod_key *pods, unsigned n, uint32_t **ret, unsigned *ret_n)
{
	uint32_t *v = calloc(n ? n : 1, sizeof(*v));
	struct nl_sock *sk = nl_socket_alloc();
	unsigned found = 0, unique = 0;

	if (!v || !sk || nl_connect(sk, NETLINK_ROUTE) < 0) {
		free(v);
		nl_socket_free(sk);
		return -ENOMEM;
	}
	nl_socket_disable_auto_ack(sk);
	for (unsigned i = 0; i < n; i++) {
		uint32_t oif;

		/* Pods are sorted: those that differ only by port share a look-up. */
		if (i && memcmp(&pods[i].addr, &pods[i - 1].addr, sizeof(pods[i].addr)) == 0)
			continue;
		oif = route_oif(sk, &pods[i].addr);
		if (oif)
			v[found++] = oif;
	}
	nl_socket_free(sk);
	if (found)
		qsort(v, found, sizeof(*v), u32_cmp);
	for (unsigned i = 0; i < found; i++)
		if (!i || v[i] != v[i - 1])
			v[unique++] = v[i];
	*ret = v;
	*ret_n = unique;
	return 0;
}

int link_read(uint32_t ifindex, struct link_state *ret)
{
	struct nl_sock *sk = nl_socket_alloc();
	struct rtnl_link *link = NULL;
	int r = -ENODEV;

	if (!sk || nl_connect(sk, NETLINK_ROUTE) < 0)
		r = -ENOMEM;
	else if (rtnl_link_get_kernel(sk, (int)ifindex, NULL, &link) == 0 && link) {
		ret->type = rtnl_link_get_arptype(link);
		ret->packets[HOOK_INGRESS] = rtnl_link_get_stat(link, RTNL_LINK_RX_PACKETS);
		ret->packets[HOOK_EGRESS] = rtnl_link_get_stat(link, RTNL_LINK_TX_PACKETS);
		rtnl_link_put(link);
		r = 0;
	}
	nl_socket_free(sk);
	return r;
}
