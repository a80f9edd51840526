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

/* Write the answer's data into <w> (exactly one JSON value) and return CTL_OK; or an error code with one line in <err>.
 * <args> is an object, maybe empty. */
typedef enum ctl_code ctl_run(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c);

struct ctl_cmd {
	const char *name; /* "pod.list" */
	ctl_run *run;
};

/* <path> is a Unix socket, made with mode 0660; a stale one is replaced, a live one is -EADDRINUSE. NULL and errno. */
struct ctl *ctl_start(struct loop *l, const char *path, const struct ctl_cmd *cmds, unsigned n, void *arg);
void ctl_stop(struct ctl *c);

/* For streams: call from a handler to keep the connection; <closed> tells, once, when it is gone (also in ctl_stop),
 * and is the last that is heard of <c>. A handler that keeps and writes nothing into <w> gives no answer of its own. */
void ctl_conn_keep(struct ctl_conn *c, void (*closed)(void *arg, struct ctl_conn *c), void *arg);
/* One more line of a kept connection: <data> is one JSON value without line feeds, sent as {"ok":true,"data":<data>}.
 * May be called in the handler too, and never calls <closed> itself. -EAGAIN: the reader is too slow, the line is
 * dropped; -EPIPE: it has gone, <closed> follows. */
int ctl_conn_line(struct ctl_conn *c, struct str data);

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

/* One request; <ret> is the whole answer, {"ok":…}. <args> stays the caller's, NULL: none. 0, or a negative errno:
 * -ECONNREFUSED, -ENOENT: no daemon; -ETIMEDOUT after 10 s of silence; -EBADMSG: not our protocol; -ECONNRESET. */
int ctl_call(const char *path, const char *cmd, json_t *args, json_t **ret);
/* A request whose answer streams; <line> gets each whole answer and returns false to stop. */
int ctl_follow(const char *path, const char *cmd, json_t *args, bool (*line)(void *arg, json_t *v), void *arg);

#endif
