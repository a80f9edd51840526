/* SPDX-License-Identifier: Apache-2.0
 * kvbench: the parts of the gateway benchmark that must be fast or exact; run.py puts them together.
 *
 *   pods    the upstream: OpenAI-like answers and streams, each event stamped when it is sent
 *   load    the client: open loop, windows, latencies; reads the CPU time of the gateway at the window's edges
 *   loss    a program on a device that loses packets
 *   soak    one idle-class spinner per CPU that counts what everything else takes
 *   wire    a link that loses, doubles, delays and reorders; for selftests/e2e/chaos.py
 *   get     one GET, the body to stdout
 *
 * All stamps are CLOCK_MONOTONIC of one machine, in ns.
 */
#ifndef KVBENCH_H
#define KVBENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define BENCH_CPUS 256
#define BENCH_PIDS 512

int pods_main(int argc, char **argv);
int load_main(int argc, char **argv);
int soak_main(int argc, char **argv);
int loss_main(int argc, char **argv);
int wire_main(int argc, char **argv);

/* "A.B.C.D:PORT" to an address. 0, or -EINVAL. */
int addr_parse(const char *s, struct sockaddr_storage *ret, socklen_t *ret_len);

/* --- what the machine did (window.c) --- */

/* A line of the soaker's file: one CPU. <last> is its latest look at the clock: at a reader's time the gap since then
 * is not yet in <taken>.
 */
struct soak_cpu {
	uint64_t taken, last;
	uint64_t pad[6];
};

struct watch {
	int gw[BENCH_PIDS], own[BENCH_PIDS];
	int n_gw, n_own;
	const struct soak_cpu *soak; /* NULL: no soaker runs */
};

struct snap {
	uint64_t t;
	uint64_t gw;	/* run time of the gateway's threads */
	uint64_t wakes; /* how often one of them slept and was woken */
	uint64_t own;	/* of the client, the pods, the soaker and the gateway */
	uint64_t busy;	/* of all threads of the machine */
	uint64_t taken; /* from the soaker, all CPUs */
	bool busy_exact;
	uint64_t rss; /* bytes; of several processes the sum of their proportional shares */
};

int watch_pids(const char *list, int *pids, int *n); /* "12,34". 0, or -EINVAL */
int watch_soak(struct watch *w, const char *path);   /* 0, or -errno */
void watch_snap(const struct watch *w, struct snap *ret);

/* --- an answer as it arrives (reply.c): framing taken apart, body cut into lines --- */

struct reply {
	int state;
	int status;
	bool chunked, close;
	uint64_t left; /* of the body or of the chunk */
	uint64_t body; /* bytes of body seen */
	uint32_t n;
	char line[1016]; /* what of a line has come so far; longer lines are cut */
};

typedef void reply_line_fn(void *arg, const char *line, size_t n);

void reply_init(struct reply *r);
bool reply_done(const struct reply *r);
bool reply_begun(const struct reply *r);
/* Feeds <n> bytes; <fn> is called for each line of the body, and at its end for a last line without newline.
 * 0, or -EPROTO (bad framing, or bytes after the end).
 */
int reply_feed(struct reply *r, const char *p, size_t n, reply_line_fn *fn, void *arg);

/* --- text (prompt.c) --- */

/* A server-sent event of <size> bytes with a stamp of its sending; the rest is always the same. */
#define EVENT_MAX      4000
#define EVENT_STAMP_AT 12
#define EVENT_STAMP    20 /* digits */

/* To <to>, which has room for EVENT_MAX; the stamp is zeros. Its length: <size>, or what it needs at least. */
size_t event_build(char *to, size_t size);

/* <size> bytes of text as it stands inside a JSON string: words, escapes, UTF-8; never cut inside of one. The text is
 * a function of <seed>. Free with free().
 */
char *prompt_text(uint64_t seed, size_t size);

#endif
