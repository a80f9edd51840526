/* SPDX-License-Identifier: Apache-2.0
 * HTTP questions of the command line, one after another on a connection that is kept. No redirects,
 * no proxy of the environment.
 */
#ifndef KVS_CLI_WEB_H
#define KVS_CLI_WEB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct web;

struct web *web_new(const char *key); /* <key> NULL: none, else sent as Bearer. NULL: no memory */
void web_free(struct web *w);	      /* NULL is fine */

struct web_answer {
	long status;	 /* of HTTP; 0: none has come, and <error> says why */
	struct buf body; /* at most WEB_BODY_MAX bytes; the caller's to free */
	char error[256];
	int64_t date;	 /* the server's clock, Unix seconds; 0: not told */
	unsigned dialed; /* connections that were made for it */
	double seconds;
};
#define WEB_BODY_MAX (256u << 20)

/* <json> NULL: GET, else it is POSTed. <ret> is set in any case; its body is emptied first. True: a 200. */
bool web_ask(struct web *w, const char *url, const char *json, struct web_answer *ret);

/* The first line of a key's file, from malloc; NULL: there is none, or it cannot be read. */
char *web_key(const char *file);

#endif
