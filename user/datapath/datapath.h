/* SPDX-License-Identifier: Apache-2.0
 * The kernel's part of the gateway: loads the BPF programs, pins them with their maps, attaches them to the devices by
 * which pods and clients are reached, and lets workers hand a response over to them, after which the kernel carries it.
 *
 * Where there is no BPF (no privileges, a kernel without it, a build without clang) a datapath is still made: one that
 * does nothing and says why. All calls below are then harmless, and everything is relayed.
 *
 * Pins outlive the process: splices go on while no daemon runs, and the next one takes them over, as orphans.
 * Ownership: what carries our pins or our programs is ours; filters, qdiscs and pins of others are never changed.
 * Threads: datapath_* belong to the control thread and may wait for netlink. carrier_* belong to the worker whose
 * carrier_worker is given; they take no lock, allocate nothing and are a system call or a few each. A thread of the
 * datapath's own reads events and watches.
 * Errors: 0 or a negative errno; the text to show is datapath_why.
 *
 * What a worker does (C: a client's connection, U: a pod's; each embeds a struct carrier_conn, a request a
 * carrier_pair, all zeroed at first):
 *
 *	fd = net_accept(…);       carrier_accepted(w, &c->conn, fd);   before anything is written
 *	fd = net_socket(addr);    carrier_dialing(w, &u->conn, fd, &c->conn);
 *	net_connect(fd, addr);    and when it is up:
 *	                          carrier_connected(w, &u->conn, fd);  before the request is written
 *	a pooled U for this C:    prefer one that carrier_fits(&c->conn, &u->conn)
 *	the head was written to C, nothing waits in our buffer for C, and a read has emptied U's socket:
 *	                          carrier_bind(w, &r->pair, &c->conn, &u->conn, dispatched_at), once, and
 *	                          carrier_arm(w, &r->pair, &arming)
 *	    CARRIER_ARMED         write nothing to C until ENDED or a refusal
 *	    CARRIER_AGAIN         relay on, try again after the next read that empties U
 *	    CARRIER_NEVER         relay the rest
 *	armed, U is readable:     carrier_look(w, &r->pair, &v), then recv. v.state:
 *	    KVS_RELAY             refused: the bytes are in the socket. Read, relay, arm again
 *	    KVS_ARMED             nothing there: go on waiting. Bytes: our programs do not run any more;
 *	                          carrier_unbind(w, &r->pair, false, NULL) and relay the rest
 *	    KVS_ACTIVE and later  0: the pod's FIN; an event tells if that matters. Bytes belong to no answer: do
 *	                          not use U again
 *	armed, C has closed:      carrier_look: from KVS_ENDED on the answer was complete, and its events follow;
 *	                          before that it is an abort
 *	U's EPOLLHUP in ENDED is no failure: wait for DONE, then close U.
 *	the event callback:
 *	    CARRIER_ENDED         complete but for the client's acknowledgement. C may be written again; e->tail
 *	                          has the body's last bytes, framing included, unless tail_n is 0
 *	    CARRIER_DONE          carrier_unbind(w, &r->pair, false, &view); U may go back into the pool
 *	    others                enum carrier_event_type; "any other end" follows
 *	any other end:            carrier_closing(w, &r->pair); net_reset(U's fd); net_reset(C's fd);
 *	                          carrier_unbind(w, &r->pair, true, &view)
 *	relayed to its end:       carrier_unbind(w, &r->pair, false, NULL)
 *	after a socket's close(): carrier_closed(w, &c->conn); a pair of it is unbound before
 *
 * A pair is unbound before the memory of it or of its connections is freed. Every hook may be called on a
 * carrier_conn that is zeroed or not eligible, and on a pair that is not bound: nothing happens then.
 */
#ifndef KVS_DATAPATH_DATAPATH_H
#define KVS_DATAPATH_DATAPATH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/jw.h"
#include "http/http.h"
#include "kvsteer/abi_splice.h"
#include "loop/loop.h"
#include "net/net.h"

#define DATAPATH_WHY_MAX 512

struct datapath;

enum datapath_attach { DATAPATH_ATTACH_AUTO, DATAPATH_TCX, DATAPATH_CLSACT };

struct datapath_opts {
	const char *mode; /* "auto" (NULL), "tc"; "relay": only count; "off": nothing. "skmsg" is as "relay" for now */
	const char *devices; /* "auto" (NULL): those that routes to pods and clients use; or names, with commas */
	enum datapath_attach attach; /* auto: tcx where the kernel has it, else clsact */
	uint64_t stall_ns;  /* a client that acknowledges nothing for so long while bytes wait is STALLED; 0: 60 s */
	uint64_t retain_ns; /* a closed connection's entry is kept so long; 0: KVS_RETAIN_SEC */
	uint64_t orphan_ns; /* orphans, and an older version's programs, without progress for so long are given up; 0:
			       15 min */
	uint32_t splices;   /* at a time, where the maps are made anew; 0: KVS_MAX_SPLICES */
};

struct datapath_pod {
	struct net_addr addr;
};

struct datapath_flow {
	uint64_t bytes, packets, connections;
};

struct datapath_counts {
	struct datapath_flow to_pod, from_pod;
};

/* NULL (ENOMEM) or a datapath; <why> is "" if the kernel takes part as <mode> says, else the reason. */
struct datapath *datapath_open(const struct datapath_opts *o, char why[DATAPATH_WHY_MAX]);

/* After the workers' carriers are freed. <unpin>: nothing of it stays behind in the kernel (but a clsact qdisc, which
 * others may use by now); splices under way break. */
void datapath_close(struct datapath *dp, bool unpin);

bool datapath_kernel(const struct datapath *dp);
const char *datapath_carrier(const struct datapath *dp); /* "tc" or "relay": what new responses may get */

/* The last reason, from opening or a later call: "" when all is well. */
const char *datapath_why(const struct datapath *dp);

/* As datapath_opts.mode, at run time. From tc to relay or off: no new splices, those under way end as they would; the
 * programs stay until the next start, since connections that carried a splice need them. The other way: loads. */
int datapath_set_mode(struct datapath *dp, const char *mode);

/* No new splices, and another daemon may have the ring buffer: events of ours are found by looking from now on. */
void datapath_drain(struct datapath *dp);

/* Where clients connect in plain HTTP: TC prepares connections to these. Addresses as listened to; duplicates are fine.
 */
int datapath_set_listeners(struct datapath *dp, const struct net_addr *addrs, unsigned n);

/* Make the kernel's set equal to <pods> and attach to the devices that they need (duplicates are fine; the counts of a
 * pod that stays go on, those of one that left are gone). What can be done is done; the first error is returned. A
 * configured device that does not exist (yet) is no error, but datapath_why tells of it. */
int datapath_set_pods(struct datapath *dp, const struct datapath_pod *pods, unsigned n);

/* The same sets again: follows routes that moved, devices that came or went, devices by which clients came, and sees
 * whether our programs run on each. Call it every second. */
int datapath_refresh(struct datapath *dp);

/* -ENOENT: not in the set, or no kernel part. */
int datapath_counts(struct datapath *dp, const struct net_addr *pod, struct datapath_counts *ret);
/* As kvs_pod_times, all CPUs. -ENOENT: not in the set, or no splices here. For the scheduler: how fast a pod answers,
 * as the kernel saw it; take differences of two calls. */
int datapath_times(struct datapath *dp, const struct net_addr *pod, struct kvs_pod_times *ret);

/* One JSON object: carrier, kernel, why, devices with what their programs saw, pods with counts. */
void datapath_describe(struct datapath *dp, struct jw *w);
/* The splice's metrics, but those per pod. */
void datapath_metrics(struct datapath *dp, struct buf *b);

/* --- workers --- */

/* Why a connection or a pair is relayed: counted for each bind, kvsteer_splice_pairs_total{result=…}. The last ones are
 * the proxy's own, told by carrier_count. */
#define CARRIER_WHYS(X)                                                                               \
	X(OK, ok)                                                                                     \
	X(OFF, off)		      /* mode, or the kernel takes no part */                         \
	X(LOOPBACK, loopback)	      /* the peer is on this host */                                  \
	X(DNAT, dnat)		      /* this host has rewritten the address that was dialled */      \
	X(NO_HANDSHAKE, no_handshake) /* TC did not see it: its programs came later, or do not run */ \
	X(TIMESTAMPS, timestamps)                                                                     \
	X(NO_DEVICE, no_device)		 /* it leaves by a device that has no programs of ours */     \
	X(NOT_SERVED, device_not_served) /* they are attached there, but do not run */                \
	X(NO_ETHERNET, no_ethernet)	 /* tun, wireguard … */                                       \
	X(TUPLE, tuple_busy)		 /* the kernel still has an entry of these addresses */       \
	X(MAP_FULL, map_full)                                                                         \
	X(FAMILY, family)     /* one is IPv4, the other IPv6 */                                       \
	X(MSS, mss)	      /* the pod's segments may be too long for the client */                 \
	X(FULL, splices_full) /* as many splices as there can be */                                   \
	X(BOUND, bound)	      /* a connection's former splice is not unbound */                       \
	X(KERNEL, kernel_error)                                                                       \
	X(SHORT, short)	    /* smaller than datapath.min-bytes */                                     \
	X(DECHUNK, dechunk) /* the client is HTTP/1.0 */                                              \
	X(USAGE, usage)	    /* usage would not be in the tail */                                      \
	X(FAR, far)	    /* a long body that is no event stream, for a client far away */

enum carrier_why {
#define X(NAME, name) CARRIER_WHY_##NAME,
	CARRIER_WHYS(X)
#undef X
		CARRIER_WHYS_N
};
const char *carrier_why_name(enum carrier_why why);

/* One end of a splice; part of a client, or of a pod's connection. Read <why>, leave the rest alone. */
struct carrier_conn {
	struct kvs_tuple tuple;
	uint32_t ifindex;
	uint64_t born;	 /* of the kernel's entry; while dialing: the socket's cookie */
	uint16_t mss;	 /* C: that we may send, U: that the pod may send */
	uint8_t why;	 /* enum carrier_why */
	uint8_t carrier; /* of carriers[]; 0: the kernel has no entry */
	uint8_t dialing;
};

/* A response's binding; part of a request. */
struct carrier_pair {
	struct carrier_conn *c, *u;
	uint32_t id, gen; /* id 0: not bound */
	uint8_t carrier;
	uint8_t armed; /* carrier_arm said so, and no refusal or end is known */
	uint16_t told; /* events that were delivered */
};

/* ENDED and DONE are as in the table above, and come in this order, each at most once. After any other the response
 * cannot be completed: end it as "any other end" above says, the client must see RST. */
#define CARRIER_EVENTS(X)                                                                         \
	X(ENDED, ended)                                                                           \
	X(DONE, done)                                                                             \
	X(BROKEN, broken)   /* the pod's framing is bad, or it sent bytes across the end */       \
	X(POD_FIN, pod_fin) /* before the end (never with until-close: that FIN is the end) */    \
	X(POD_RST, pod_rst)                                                                       \
	X(ORPHAN, orphan)	  /* a socket of ours sent FIN or RST by itself: it timed out */  \
	X(STALLED, stalled)	  /* watchdog: the client acknowledges nothing for stall_ns */    \
	X(NOT_SERVED, not_served) /* watchdog: our programs do not run on its devices any more */ \
	X(GONE, gone)		  /* watchdog: the splice is not ours any more */                 \
	X(KILLED, killed)	  /* kvsteer flow kill */

enum carrier_event_type {
#define X(NAME, name) CARRIER_##NAME,
	CARRIER_EVENTS(X)
#undef X
		CARRIER_EVENTS_N
};

struct carrier_event {
	enum carrier_event_type type;
	uint32_t flags; /* KVS_F_* */
	uint64_t bytes; /* diverted so far */
	/* The body's last bytes, good during the call. Mostly with ENDED, with DONE after reordering; 0: not known. */
	const char *tail;
	size_t tail_n; /* at most KVS_TAIL_BYTES */
};

struct carrier_worker;
/* The callback runs in <l>'s thread, out of its turn; it may unbind. NULL: ENOMEM. Freed when the loop's thread has
 * ended (or before it has started), with no pair bound and before <dp>. */
struct carrier_worker *
carrier_worker_new(struct datapath *dp, struct loop *l,
		   void (*event)(void *arg, struct carrier_pair *p, const struct carrier_event *e), void *arg);
void carrier_worker_free(struct carrier_worker *w);

void carrier_count(struct carrier_worker *w, enum carrier_why why);

/* An accepted connection, before anything is written to it. Fills conn->why. */
void carrier_accepted(struct carrier_worker *w, struct carrier_conn *conn, int fd);
/* A socket that will be connected to a pod. <c>: for whom (its MSS bounds the pod's), may be NULL. */
void carrier_dialing(struct carrier_worker *w, struct carrier_conn *conn, int fd, const struct carrier_conn *c);
/* It is established; before anything is written. */
void carrier_connected(struct carrier_worker *w, struct carrier_conn *conn, int fd);
/* The socket is closed, also one whose connect failed. */
void carrier_closed(struct carrier_worker *w, struct carrier_conn *conn);

/* CARRIER_WHY_OK: they can be bound. Not counted. */
enum carrier_why carrier_fits(const struct carrier_conn *c, const struct carrier_conn *u);

/* It was made while nothing could be spliced, and by now something could: another one is worth its handshake. */
bool carrier_outdated(const struct carrier_worker *w, const struct carrier_conn *conn);

/* Counts. OK: bound. <dispatched_at>: monotonic ns, where TTFT begins. */
enum carrier_why carrier_bind(struct carrier_worker *w, struct carrier_pair *p, struct carrier_conn *c,
			      struct carrier_conn *u, uint64_t dispatched_at);

enum carrier_arm { CARRIER_ARMED, CARRIER_AGAIN, CARRIER_NEVER };

struct carrier_arming {
	int c_fd, u_fd;
	uint64_t u_read;    /* bytes read from U since it was connected */
	uint64_t c_written; /* bytes written to C since it was accepted */
	uint64_t first_at;  /* when the body's first byte was read; 0: it is still to come */
	uint64_t last_at;   /* when the last one so far was read */
	enum http_framing framing;
	uint64_t left;			  /* HTTP_LENGTH: of the body */
	const struct http_chunks *chunks; /* HTTP_CHUNKED: as walked by http_chunks_walk */
};
enum carrier_arm carrier_arm(struct carrier_worker *w, struct carrier_pair *p, const struct carrier_arming *a);

/* How a splice stands. -ENOENT: not bound. */
struct carrier_view {
	enum kvs_state state;
	uint32_t flags;
	uint64_t bytes, segments, chunks, gap_max;
	uint64_t first_at, last_at; /* monotonic; 0: nothing yet. Timeouts of a silent pod count from last_at */
	uint32_t unacked;	    /* diverted, and not acknowledged by the client */
	bool client_owes;	    /* that, or it has no room for more: the pod waits for it */
};
int carrier_look(struct carrier_worker *w, struct carrier_pair *p, struct carrier_view *ret);

/* After ENDED: as carrier_unbind, if it is done. -EAGAIN: not yet, nothing has changed. -ENOENT: not bound. */
int carrier_finish(struct carrier_worker *w, struct carrier_pair *p, struct carrier_view *ret);

/* We are about to close both sockets, FIN or RST: they may leave. */
void carrier_closing(struct carrier_worker *w, struct carrier_pair *p);

/* The pair is free again, whatever is returned. <ret>: as it was, may be NULL. -EBUSY: it was under way and <force> was
 * not set: a mistake of the caller's, both connections are lost then as with <force>. -ENOENT: it was not bound. */
int carrier_unbind(struct carrier_worker *w, struct carrier_pair *p, bool force, struct carrier_view *ret);

/* Any thread: the pair of splice <id> gets KILLED. -ENOENT. For splices of other owners: flow_cmd_kill. */
int carrier_kill(struct datapath *dp, uint32_t id);

/* --- for the CLI: straight from the pins, no daemon needed. Text or JSON goes to <out>, a line to <err>. ---
 * 0; -ENOENT: nothing is pinned, or no such map; -EPERM, … */
int bpf_cmd_show(bool json, struct buf *out, struct buf *err);
int bpf_cmd_dump(const char *map, bool json, struct buf *out, struct buf *err);
int bpf_cmd_unload(struct buf *out, struct buf *err); /* detach and unpin all versions */

/* All splices as a JSON array, or one (-ENOENT) as an object; by the daemon as well. <dp> may be NULL. */
int flow_list(struct datapath *dp, struct jw *w, struct buf *err);
int flow_show(struct datapath *dp, uint32_t id, struct jw *w, struct buf *err);
/* Resets both peers of a splice that no worker of ours owns. */
int flow_kill(struct datapath *dp, uint32_t id, struct buf *err);

#endif
