/* SPDX-License-Identifier: Apache-2.0
 * Look-ups; all of them may block.
 *
 * Formats: RFC 1035, RFC 2782 (SRV: priority, weight, port, target). Priority and weight are not used: which pod takes
 * a request is decided by what it holds and how loaded it is.
 */
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>

#include "discovery/discovery_int.h"

static bool known(const struct net_addr *a, unsigned n, const struct net_addr *b)
{
	for (unsigned i = 0; i < n; i++)
		if (net_addr_eq(&a[i], b))
			return true;
	return false;
}

int dns_hosts(const char *name, uint16_t port, struct net_addr *ret, unsigned cap, char *err, size_t err_len)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *list;
	int r = getaddrinfo(name, NULL, &hints, &list);
	unsigned n = 0;

	if (r) {
		snprintf(err, err_len, "%s: %s", name, r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
		return r == EAI_MEMORY ? -ENOMEM : r == EAI_NONAME ? -ENOENT : -EAGAIN;
	}
	/* A dual-stack pod has an address of each family; one of them is enough. */
	for (int family = AF_INET; !n; family = AF_INET6) {
		for (struct addrinfo *i = list; i && n < cap; i = i->ai_next) {
			struct net_addr a = { .len = i->ai_addrlen };

			if (i->ai_family != family || i->ai_addrlen > sizeof(a.v6))
				continue;
			memcpy(&a.sa, i->ai_addr, i->ai_addrlen);
			net_addr_set_port(&a, port);
			if (!known(ret, n, &a))
				ret[n++] = a;
		}
		if (family == AF_INET6)
			break;
	}
	freeaddrinfo(list);
	if (n)
		return (int)n;
	snprintf(err, err_len, "%s: has no address", name);
	return -ENOENT;
}

static const char *res_error(int e)
{
	switch (e) {
	case HOST_NOT_FOUND:
		return "no such name";
	case NO_DATA:
		return "has no SRV records";
	case TRY_AGAIN:
		return "no answer from the name server";
	default:
		return "the name server refuses";
	}
}

int dns_srv(res_state st, const char *service, const char *name, struct net_addr *ret, unsigned cap,
	    uint32_t *ret_ttl_s, char *err, size_t err_len)
{
	unsigned char answer[65536];
	char query[NS_MAXDNAME], target[NS_MAXDNAME], why[160] = "";
	uint32_t ttl = UINT32_MAX;
	unsigned n = 0;
	ns_msg m;
	int len;

	snprintf(query, sizeof(query), "%s.%s", service, name);
	len = res_nsearch(st, query, ns_c_in, ns_t_srv, answer, sizeof(answer));
	if (len < 0) {
		snprintf(err, err_len, "%.200s: %s", query, res_error(st->res_h_errno));
		return st->res_h_errno == HOST_NOT_FOUND || st->res_h_errno == NO_DATA ? -ENOENT : -EAGAIN;
	}
	if (len > (int)sizeof(answer) || ns_initparse(answer, len, &m)) {
		snprintf(err, err_len, "%.200s: the answer is malformed", query);
		return -EBADMSG;
	}
	for (int i = 0; i < ns_msg_count(m, ns_s_an) && n < cap; i++) {
		const unsigned char *d;
		int found;
		ns_rr rr;

		if (ns_parserr(&m, ns_s_an, i, &rr) || ns_rr_type(rr) != ns_t_srv || ns_rr_rdlen(rr) < 7)
			continue;
		d = ns_rr_rdata(rr);
		if (ns_name_uncompress(ns_msg_base(m), ns_msg_end(m), d + 6, target, sizeof(target)) < 0)
			continue;
		if (ns_rr_ttl(rr) < ttl)
			ttl = ns_rr_ttl(rr);
		/* One target that is not known yet (a pod that comes up) must not hide the others. */
		found = dns_hosts(target, (uint16_t)(d[4] << 8 | d[5]), ret + n, cap - n, why, sizeof(why));
		if (found > 0)
			n += (unsigned)found;
	}
	*ret_ttl_s = ttl;
	if (n)
		return (int)n;
	snprintf(err, err_len, "%.200s: %s", query, why[0] ? why : "has no SRV records");
	return -ENOENT;
}
