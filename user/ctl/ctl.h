/* SPDX-License-Identifier: Apache-2.0
 * Two doors for operators: the control socket (one JSON request a line, one JSON answer a line) and the admin address
 * (HTTP: /metrics, /healthz, /readyz, /debug/…). What they can say is a table of handlers that agent/ fills.
 *
 *   → {"cmd":"pod.list","args":{…}}        ← {"ok":true,"data":…} or {"ok":false,"code":"not_found","error":"…"}
 *
 * A handler that streams (decision.tail) keeps the connection and writes more lines.
 * Threads: the loop's.
 */
#ifndef KVS_CTL_CTL_H
#define KVS_CTL_CTL_H

#include <jansson.h>

#include "base/buf.h"
#include "base/jw.h"
#include "loop/loop.h"
#include "net/net.h"

struct ctl;
struct ctl_conn;

enum ctl_code { CTL_OK, CTL_FAILED, CTL_USAGE, CTL_NOT_FOUND };

struct ctl_cmd {
	const char *name; /* "pod.list" */
	/* Write the answer's data into <w> (exactly one JSON value) and return CTL_OK; or an error code with one line
	 * in <err>. <args> is an object, maybe empty. */
	enum ctl_code (*run)(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c);
};

/* <path> is a Unix socket, made with mode 0660; a stale one is replaced, a live one is -EADDRINUSE. NULL and errno. */
struct ctl *ctl_start(struct loop *l, const char *path, const struct ctl_cmd *cmds, unsigned n, void *arg);
void ctl_stop(struct ctl *c);

/* For streams: call from a handler to keep the connection; <closed> tells when it is gone. */
void ctl_conn_keep(struct ctl_conn *c, void (*closed)(void *arg, struct ctl_conn *c), void *arg);
int ctl_conn_line(struct ctl_conn *c, struct str line); /* -EAGAIN: the reader is too slow, the line is dropped */

/* The admin HTTP server. */
struct admin;
struct admin_page {
	const char *path; /* "/metrics"; a trailing '*' matches any rest */
	/* Returns the status; fills the body. */
	int (*get)(void *arg, struct str path, struct buf *body, const char **ret_type);
};
struct admin *admin_start(struct loop *l, const struct net_addr *a, const struct admin_page *pages, unsigned n,
			  void *arg);
void admin_stop(struct admin *a);

/* --- client side, for cli/ --- */

/* One request; the answer's line goes to <out>. 0, or a negative errno (-ECONNREFUSED, -ENOENT: no daemon). */
int ctl_call(const char *path, const char *cmd, json_t *args, json_t **ret);
/* A request whose answer streams; <line> returns false to stop. */
int ctl_follow(const char *path, const char *cmd, json_t *args, bool (*line)(void *arg, json_t *v), void *arg);

#endif
