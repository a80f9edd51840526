/* SPDX-License-Identifier: Apache-2.0
 * The gateway's own HTTP questions, on a loop. A question is asked again and again, on a connection that is kept; its
 * answer is gathered up to a limit and handed over whole.
 *
 * What it never does: follow redirects, use the environment's proxies, speak anything but plain HTTP/1.1.
 *
 * Threads: the loop's; several of these may exist, each on its own loop.
 */
#ifndef KVS_FETCH_FETCH_H
#define KVS_FETCH_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "http/http.h"
#include "loop/loop.h"
#include "net/net.h"

struct fetch;
struct lookup;

struct fetch *fetch_new(struct loop *l); /* NULL and errno */
void fetch_free(struct fetch *f);	 /* after the last question's fetch_fini */

/* Embedded in what asks. */
struct fetch_ask {
	struct fetch *f;
	/* The answer, or why there is none, once for each fetch_go; not from inside of it. It may ask again, and it may
	 * end with fetch_fini of another question, not of this one. */
	void (*done)(struct fetch_ask *a);
	size_t body_max;
	bool running;
	/* valid in <done>: */
	char error[256]; /* "": an answer has come whole */
	unsigned status; /* of HTTP; 0 with an error */
	struct buf body; /* emptied behind <done> */

	/* private */
	struct loop_fd io; /* fd -1: not connected */
	struct loop_timer timer;
	struct loop_work over;
	struct lookup *lookup;
	struct buf request; /* of <url>, <method> and <key> */
	size_t sent;
	char url[256], peer[160]; /* peer: HOST:PORT of the connection there is */
	struct net_addr addr[8];  /* to try, <at> is the next */
	unsigned naddrs, at;
	bool connecting, hup;
	bool reused;	       /* the connection has brought an answer before, and nothing of this one */
	struct loop_work more; /* to receive, in the next turn */
	struct buf head;
	size_t scanned;
	unsigned interim; /* heads of 1xx so far */
	bool headed, keep;
	enum http_framing framing;
	uint64_t left;
	struct http_chunks chunks;
	uint64_t timeout_ns;
};

void fetch_init(struct fetch_ask *a, struct fetch *f, size_t body_max, void (*done)(struct fetch_ask *a));
/* http://HOST[:PORT][/PATH]. <key> NULL: none, else sent as Bearer. 0; -EBUSY: the last one has no answer yet; -ENOMEM.
 */
int fetch_go(struct fetch_ask *a, const char *method, const char *url, const char *key, uint64_t timeout_ns);
void fetch_fini(struct fetch_ask *a); /* also one that was only zeroed */

/* A key in a file, read again now and then, so that it can be rotated. */
struct fetch_key {
	const char *file; /* NULL: no key */
	char text[512];
	uint64_t read_ns; /* 0: never */
};
const char *fetch_key(struct fetch_key *k, uint64_t now_ns); /* NULL: there is none */

#endif
