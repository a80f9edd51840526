/* SPDX-License-Identifier: Apache-2.0
 * Private to discovery/: sources (discovery.c, file.c) on the loop, look-ups (resolver.c, dns.c) in a thread.
 */
#ifndef KVS_DISCOVERY_DISCOVERY_INT_H
#define KVS_DISCOVERY_DISCOVERY_INT_H

#include <resolv.h>

#include "discovery/discovery.h"

#define PODS_MAX 256 /* of one source */

struct resolver;
struct watch;

struct source {
	struct discovery *d;
	unsigned pool;
	const char *name; /* static, file, dns */
	char *problem;	  /* as last said; NULL: none */
	uint32_t gen;	  /* of what it wants looked up; older answers are dropped */
	struct watch *watch;
};

struct discovery {
	struct loop *loop;
	const struct config *cfg;
	struct discovery_sink sink;
	struct resolver *resolver;
	unsigned n;
	struct source sources[];
};

/* Loop's thread: say it if it is new. <why> NULL: all is well. */
void source_problem(struct source *s, const char *why);
/* Loop's thread: the wish for pods <p>; takes them. Delivered now if no name has to be looked up, else as the resolver
 * finds them, those that do not resolve each 5 s. */
void source_pods(struct source *s, struct config_pod *p, unsigned n);

/* As discovery_spec, with the address known; that of <p> is not looked at. */
int spec_at(const struct config_pod *p, const struct net_addr *a, struct pod_spec *ret, char *err, size_t err_len);

/* --- file.c --- */
struct watch *watch_start(struct source *s, const char *file); /* NULL and errno */
void watch_stop(struct watch *w);

/* --- resolver.c: a thread for what may block --- */
struct resolver *resolver_start(struct discovery *d, unsigned nsources); /* NULL and errno */
/* Returns at once; the thread ends by itself when its look-up does. Nothing is delivered any more. */
void resolver_stop(struct resolver *r);
/* What source <i> wants: pods by name (taken), or a DNS name. Replaces what it wanted before. 0 or -ENOMEM. */
void resolver_pods(struct resolver *r, unsigned i, uint32_t gen, struct config_pod *p, unsigned n);
int resolver_dns(struct resolver *r, unsigned i, uint32_t gen, const struct config_pool *c);

struct config_pod *pods_copy(const struct config_pod *p, unsigned n); /* NULL and errno */

/* --- dns.c --- */
/* Addresses of <name> with <port>. Returns how many, or a negative errno and one line in <err>. */
int dns_hosts(const char *name, uint16_t port, struct net_addr *ret, unsigned cap, char *err, size_t err_len);
/* Targets of the SRV records of <service>.<name>, asked with <st>. <ret_ttl_s> is the records' least time to live. */
int dns_srv(res_state st, const char *service, const char *name, struct net_addr *ret, unsigned cap,
	    uint32_t *ret_ttl_s, char *err, size_t err_len);

#endif
