/* SPDX-License-Identifier: Apache-2.0
 * Two rules of nf_tables, made in the caller's network namespace without nft(8): drop what conntrack calls invalid, and
 * redirect a TCP port to another one of this host.
 */
#ifndef KVS_SELFTESTS_NFT_H
#define KVS_SELFTESTS_NFT_H

#include "env.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#define NFT_TABLE "kvs_test"

static inline struct nl_msg *nft_msg(uint16_t type, uint16_t flags, uint16_t res_id)
{
	struct nfgenmsg g = { .nfgen_family = NFPROTO_INET, .version = NFNETLINK_V0, .res_id = htons(res_id) };
	struct nl_msg *m = nlmsg_alloc_simple(type, NLM_F_REQUEST | flags);

	assert_non_null(m);
	assert_int_equal(nlmsg_append(m, &g, sizeof(g), NLMSG_ALIGNTO), 0);
	return m;
}

static inline struct nl_msg *nft_new(uint16_t type, uint16_t flags)
{
	return nft_msg((uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), (uint16_t)(NLM_F_CREATE | flags), 0);
}

static inline void nft_u32(struct nl_msg *m, int attr, uint32_t v)
{
	nla_put_u32(m, attr, htonl(v));
}

/* An expression in a list; nft_end closes it. */
static inline struct nlattr *nft_expr(struct nl_msg *m, const char *name, struct nlattr **ret_data)
{
	struct nlattr *e = nla_nest_start(m, NFTA_LIST_ELEM);

	nla_put_string(m, NFTA_EXPR_NAME, name);
	*ret_data = nla_nest_start(m, NFTA_EXPR_DATA);
	return e;
}

static inline void nft_end(struct nl_msg *m, struct nlattr *e, struct nlattr *data)
{
	nla_nest_end(m, data);
	nla_nest_end(m, e);
}

static inline void nft_value(struct nl_msg *m, int attr, const void *v, int n)
{
	struct nlattr *d = nla_nest_start(m, attr);

	nla_put(m, NFTA_DATA_VALUE, n, v);
	nla_nest_end(m, d);
}

static inline void nft_cmp(struct nl_msg *m, enum nft_cmp_ops op, const void *v, int n)
{
	struct nlattr *data, *e = nft_expr(m, "cmp", &data);

	nft_u32(m, NFTA_CMP_SREG, NFT_REG_1);
	nft_u32(m, NFTA_CMP_OP, op);
	nft_value(m, NFTA_CMP_DATA, v, n);
	nft_end(m, e, data);
}

/* ct state invalid drop */
static inline void nft_drop_invalid(struct nl_msg *m)
{
	uint32_t invalid = NF_CT_STATE_INVALID_BIT, zero = 0;
	struct nlattr *data, *e = nft_expr(m, "ct", &data), *v, *d;

	nft_u32(m, NFTA_CT_KEY, NFT_CT_STATE);
	nft_u32(m, NFTA_CT_DREG, NFT_REG_1);
	nft_end(m, e, data);
	e = nft_expr(m, "bitwise", &data);
	nft_u32(m, NFTA_BITWISE_SREG, NFT_REG_1);
	nft_u32(m, NFTA_BITWISE_DREG, NFT_REG_1);
	nft_u32(m, NFTA_BITWISE_LEN, 4);
	nft_value(m, NFTA_BITWISE_MASK, &invalid, 4);
	nft_value(m, NFTA_BITWISE_XOR, &zero, 4);
	nft_end(m, e, data);
	nft_cmp(m, NFT_CMP_NEQ, &zero, 4);
	e = nft_expr(m, "immediate", &data);
	nft_u32(m, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	d = nla_nest_start(m, NFTA_IMMEDIATE_DATA);
	v = nla_nest_start(m, NFTA_DATA_VERDICT);
	nft_u32(m, NFTA_VERDICT_CODE, NF_DROP);
	nla_nest_end(m, v);
	nla_nest_end(m, d);
	nft_end(m, e, data);
}

/* tcp dport FROM redirect to :TO */
static inline void nft_redirect(struct nl_msg *m, uint16_t from, uint16_t to)
{
	struct nlattr *data, *e = nft_expr(m, "payload", &data);

	from = htons(from);
	to = htons(to);
	nft_u32(m, NFTA_PAYLOAD_DREG, NFT_REG_1);
	nft_u32(m, NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
	nft_u32(m, NFTA_PAYLOAD_OFFSET, 2);
	nft_u32(m, NFTA_PAYLOAD_LEN, 2);
	nft_end(m, e, data);
	nft_cmp(m, NFT_CMP_EQ, &from, 2);
	e = nft_expr(m, "immediate", &data);
	nft_u32(m, NFTA_IMMEDIATE_DREG, NFT_REG_1);
	nft_value(m, NFTA_IMMEDIATE_DATA, &to, 2);
	nft_end(m, e, data);
	e = nft_expr(m, "redir", &data);
	nft_u32(m, NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1);
	nft_end(m, e, data);
}

/* The kernel wants all of it in one datagram. */
struct nft_batch {
	char b[4096];
	size_t n;
};

static inline void nft_put(struct nft_batch *b, struct nl_msg *m)
{
	struct nlmsghdr *h = nlmsg_hdr(m);
	size_t n = NLMSG_ALIGN(h->nlmsg_len);

	assert_true(b->n + n <= sizeof(b->b));
	memcpy(b->b + b->n, h, n);
	b->n += n;
	nlmsg_free(m);
}

/* A chain with one rule. <from>: redirect that port; 0: drop what is invalid. */
static inline void nft_chain(struct nft_batch *b, const char *name, const char *type, uint32_t hook, int priority,
			     uint16_t from, uint16_t to)
{
	struct nl_msg *m = nft_new(NFT_MSG_NEWCHAIN, 0);
	struct nlattr *list;

	nla_put_string(m, NFTA_CHAIN_TABLE, NFT_TABLE);
	nla_put_string(m, NFTA_CHAIN_NAME, name);
	list = nla_nest_start(m, NFTA_CHAIN_HOOK);
	nft_u32(m, NFTA_HOOK_HOOKNUM, hook);
	nft_u32(m, NFTA_HOOK_PRIORITY, (uint32_t)priority);
	nla_nest_end(m, list);
	nla_put_string(m, NFTA_CHAIN_TYPE, type);
	nft_put(b, m);
	m = nft_new(NFT_MSG_NEWRULE, NLM_F_APPEND | NLM_F_ACK);
	nla_put_string(m, NFTA_RULE_TABLE, NFT_TABLE);
	nla_put_string(m, NFTA_RULE_CHAIN, name);
	list = nla_nest_start(m, NFTA_RULE_EXPRESSIONS);
	if (from)
		nft_redirect(m, from, to);
	else
		nft_drop_invalid(m);
	nla_nest_end(m, list);
	nft_put(b, m);
}

/* 0, or why this kernel does not take the rules. <from>: redirect that port to another; 0: drop what is invalid. */
static inline int nft_apply(uint16_t from, uint16_t to)
{
	struct nl_sock *sk = nl_socket_alloc();
	struct nft_batch b = { .n = 0 };
	struct nl_msg *m;
	int r;

	assert_non_null(sk);
	nft_put(&b, nft_msg(NFNL_MSG_BATCH_BEGIN, 0, NFNL_SUBSYS_NFTABLES));
	m = nft_new(NFT_MSG_NEWTABLE, 0);
	nla_put_string(m, NFTA_TABLE_NAME, NFT_TABLE);
	nft_put(&b, m);
	nl_socket_disable_seq_check(sk);
	if (from) {
		nft_chain(&b, "nat", "nat", NF_INET_PRE_ROUTING, -100, from, to);
	} else {
		nft_chain(&b, "in", "filter", NF_INET_LOCAL_IN, 0, 0, 0);
		nft_chain(&b, "out", "filter", NF_INET_LOCAL_OUT, 0, 0, 0);
	}
	nft_put(&b, nft_msg(NFNL_MSG_BATCH_END, 0, NFNL_SUBSYS_NFTABLES));
	r = nl_connect(sk, NETLINK_NETFILTER);
	if (!r)
		r = nl_sendto(sk, b.b, b.n);
	if (r >= 0)
		r = nl_wait_for_ack(sk);
	if (r < 0)
		print_message("nf_tables: %s\n", nl_geterror(r));
	nl_socket_free(sk);
	return r;
}

/* All rules of the namespace are gone. */
static inline void nft_remove(void)
{
	struct nl_sock *sk = nl_socket_alloc();
	struct nft_batch b = { .n = 0 };
	struct nl_msg *m = nft_msg(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE, NLM_F_ACK, 0);

	nl_socket_disable_seq_check(sk);
	nla_put_string(m, NFTA_TABLE_NAME, NFT_TABLE);
	nft_put(&b, nft_msg(NFNL_MSG_BATCH_BEGIN, 0, NFNL_SUBSYS_NFTABLES));
	nft_put(&b, m);
	nft_put(&b, nft_msg(NFNL_MSG_BATCH_END, 0, NFNL_SUBSYS_NFTABLES));
	assert_true(nl_connect(sk, NETLINK_NETFILTER) >= 0 && nl_sendto(sk, b.b, b.n) >= 0);
	assert_true(nl_wait_for_ack(sk) >= 0);
	nl_socket_free(sk);
}

#endif
