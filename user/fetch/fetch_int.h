/* SPDX-License-Identifier: Apache-2.0
 * What the files of fetch/ share.
 */
#ifndef KVS_FETCH_INT_H
#define KVS_FETCH_INT_H

#include "fetch/fetch.h"
#include "http/http.h"
#include "net/net.h"

#define LOOKUP_ADDRS 8

/* lookup.c: a host's addresses, found by a thread, since name servers take their time. */
struct lookup {
	struct loop_post post;
	struct loop *loop;
	struct fetch_ask *ask; /* NULL: nobody waits any more; under the lock of lookup.c */
	void (*done)(struct fetch_ask *a, struct lookup *l);
	char host[256];
	int err; /* of getaddrinfo */
	unsigned n;
	struct net_addr addr[LOOKUP_ADDRS]; /* without ports */
};

/* <done> on the loop, once, unless it is given up before. NULL and errno. */
struct lookup *lookup_start(struct loop *loop, struct str host, struct fetch_ask *a,
			    void (*done)(struct fetch_ask *a, struct lookup *l));
void lookup_give_up(struct lookup *l); /* takes NULL; not from inside <done> */

#endif
