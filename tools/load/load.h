/* SPDX-License-Identifier: Apache-2.0
 * kvload inside: workers that start requests when they are due, whatever became of those before, and look at every
 * byte that comes back.
 *
 *   main.c    options, threads, the end
 *   arrive.c  when the next request is due, and what it asks
 *   client.c  one connection, one request: HTTP/1.1, chunks, events, checks
 *   report.c  the sum of the workers, as a table or JSON
 *
 * Threads: a worker is one thread with its own loop, connections and counts; they are added up after it has ended.
 */
#ifndef LOAD_LOAD_H
#define LOAD_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/rand.h"
#include "hist.h"
#include "http/http.h"
#include "loop/loop.h"
#include "net/net.h"

#define TARGETS_MAX 64
#define HEADERS_MAX 16

/* How a request ended; all but OK and CUT are errors. */
#define ENDS(X)                                                             \
	X(OK, "ok")                                                         \
	X(CUT, "cut at the end") /* closed streams when the time is over */ \
	X(CONNECT, "connect")                                               \
	X(RESET_BEFORE, "reset before head")                                \
	X(CLOSED_BEFORE, "closed before head")                              \
	X(RESET_MID, "reset in the answer")                                 \
	X(CLOSED_MID, "closed in the answer")                               \
	X(BAD_HEAD, "bad head")                                             \
	X(BAD_FRAMING, "bad framing")                                       \
	X(STATUS_4XX, "status 4xx")                                         \
	X(STATUS_429, "status 429")                                         \
	X(STATUS_5XX, "status 5xx")                                         \
	X(NO_DONE, "no [DONE]")                                             \
	X(STREAM_ERROR, "error in the stream")                              \
	X(WRONG_COUNT, "wrong number of events or tokens")                  \
	X(TIMEOUT, "timeout")                                               \
	X(UNFINISHED, "unfinished")

enum end {
#define X(id, text) END_##id,
	ENDS(X)
#undef X
		END_N
};

/* One line of a trace. */
struct trace_req {
	uint64_t at_ns;
	uint32_t input, output;	 /* tokens */
	uint32_t first_id, nids; /* into trace.ids */
};

struct trace {
	struct trace_req *v;
	uint32_t n;
	uint32_t *ids;
	uint32_t nids;
};

struct load_opts {
	const char *url[TARGETS_MAX];
	unsigned nurls;
	struct net_addr addr[TARGETS_MAX];
	char host[TARGETS_MAX][256];
	const char *header[HEADERS_MAX];
	unsigned nheaders;
	const char *model, *endpoint, *trace_file, *salt;
	double rate, duration, grace, timeout, ramp, warmup; /* 1/s, seconds */
	double trace_speed;
	uint32_t streams, threads, output_tokens, max_open, requests;
	uint32_t prompt_bytes, shared_prefix, prefixes, bytes_per_token, trace_block;
	uint64_t seed;
	bool chat, stream, exact, json, no_keep_alive;
};

struct due {
	struct due *next; /* pending */
	uint64_t at;	  /* when it should have started */
	uint64_t unique;  /* seed of what nobody shares */
	uint32_t prefix, output;
	const struct trace_req *trace; /* NULL: made up from the options */
	bool counted;		       /* not warm-up */
};

struct counts {
	uint64_t due, end[END_N];
	uint64_t bytes_in, bytes_out, events, dials, reuses;
	uint64_t prompt_tokens, cached_tokens, completion_tokens, cached_known;
	struct lhist ttft, itl, e2e, chunk; /* chunk: the pod's send stamp to our read */
};

struct client;

struct worker {
	const struct load_opts *o;
	const struct trace *trace;
	unsigned index;
	struct loop *loop;
	struct loop_fd clock;
	struct loop_timer sweep;
	struct rng rng;
	uint64_t start, stop; /* of arrivals */
	uint64_t end;	      /* nothing is waited for after it */
	uint64_t next_due;
	uint32_t next_trace;
	uint64_t made;
	struct due *pending, **pending_end; /* due, but no connection may be opened */
	struct list active, idle[TARGETS_MAX];
	uint32_t nactive;
	unsigned turn; /* which target is next */
	uint32_t lost; /* closed streams that failed and start again at the next sweep */
	struct counts c;
	int err;
};

/* --- arrive.c --- */
int trace_load(const char *path, struct trace *ret, char *err, size_t err_len);
void trace_free(struct trace *t);
int arrive_start(struct worker *w);
void arrive_stop(struct worker *w);
void arrive_next_stream(struct worker *w); /* one of the closed streams has ended */
/* The request's bytes, head and body. */
int arrive_write(const struct worker *w, const struct due *d, unsigned target, struct buf *out);

/* --- client.c --- */
void client_start(struct worker *w, struct due *d); /* takes <d> */
void client_sweep(struct worker *w, uint64_t now);  /* timeouts */
void client_close_all(struct worker *w, uint64_t now);
unsigned client_head_events(const struct load_opts *o); /* events of a stream besides its tokens */

/* --- report.c --- */
const char *end_name(enum end e);
void report_text(const struct load_opts *o, const struct counts *c, double wall, double cpu);
int report_json(const struct load_opts *o, const struct counts *c, double wall, double cpu);

#endif
