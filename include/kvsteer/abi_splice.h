/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * The splice: what the TC programs of bpf/splice_tc.bpf.c and user space share. docs/datapath.md tells how it works.
 *
 * C is the client's connection, U the pod's; both end in sockets of this host. "Wire" numbers are those the remote peer
 * sees, "socket" numbers those of the local stack; they differ by the bytes that were spliced past the socket before.
 * Times are CLOCK_MONOTONIC in ns, 0: not yet. Ports are in host order, lengths in bytes.
 *
 * What user space does, per connection:
 *   once                 kvs_listeners: the addresses that clients dial (plain HTTP only)
 *   before connect       kvs_dials[SO_COOKIE of U] = 1: TC strips timestamps from that SYN and notes the handshake
 *   accept / connected   kvs_conn_add, before anything is written. No TCP_REPAIR: TC saw the SYNs
 *   closed               kvs_conn_close, after close(); the entry may have to outlive the socket, see there
 * and per response:
 *   worth it             kvs_bind, at the latest before kvs_arm
 *   head written to C    kvs_arm, whenever a read has left U's socket empty; -EAGAIN: relay on and try again
 *   events               KVS_EV_ENDED: C may be written again, usage is in the tail. KVS_EV_DONE: kvs_unbind, U is free
 *   until close          at KVS_EV_ENDED kvs_closing, close C; U at KVS_EV_DONE, since the pod may have to repeat
 *   any other end        kvs_closing, reset U, reset C, kvs_unbind with KVS_UNBIND_FORCE
 * Events are hints, since a ring can be full: kvs_splices tells the truth, and a watchdog has to look there.
 *
 * The kvs_* programs are SEC("syscall"): bpf_prog_test_run_opts with one of the *_args as ctx_in; it is written back in
 * place. They return 0 or a negative errno as retval. Any thread may call them.
 */
#ifndef KVSTEER_ABI_SPLICE_H
#define KVSTEER_ABI_SPLICE_H

#include "kvsteer/abi.h"

#ifndef __VMLINUX_H__
#include <linux/bpf.h>
#endif

/* Sizes that libbpf takes from the object; bpf_map__set_max_entries before load changes them. Splice 0 does not exist,
 * so kvs_splices has one entry more than there can be splices. kvs_store_free has as many entries as kvs_stores. */
#define KVS_MAX_SPLICES	  16384
#define KVS_MAX_CONNS	  65536
#define KVS_MAX_SYNS	  16384
#define KVS_MAX_DIALS	  4096
#define KVS_MAX_LISTENERS 64
#define KVS_STORES	  128  /* responses that may have a gap at one time */
#define KVS_TAILS	  4096 /* ids below this keep a response's last bytes; others have its last segment alone */
#define KVS_RING_BYTES	  (4 << 20)

#define KVS_STORE_BYTES	 65536 /* how far beyond a gap a chunked response can be followed */
#define KVS_STORE_SLACK	 1024
#define KVS_STORE_RANGES 8
#define KVS_TAIL_BYTES	 4096
#define KVS_TAIL_SLACK	 256
#define KVS_TIME_BUCKETS 32
#define KVS_RETAIN_SEC	 120 /* a closed connection's entry is kept so long, kvs_conn_close */

/* One connection, from this host's side. */
struct kvs_tuple {
	struct kvs_addr raddr, laddr;
	__u16 rport, lport;
};

enum kvs_side { KVS_SIDE_C, KVS_SIDE_U };

/* What TC knows of one connection. Written by TC alone, wire numbers. */
struct kvs_half {
	__u32 base;    /* C: number of the first byte that we send; U: of the first byte that the pod sends (socket) */
	__u32 off;     /* C: wire − socket of what we send; U: of what the pod sends */
	__u32 snd_end; /* end of what we have sent */
	__u32 snd_una; /* highest acknowledgement by the peer */
	__u32 rcv_nxt; /* acknowledgement that we sent last */
	__u32 del;     /* end of the peer's data that was let through to the socket */
	__u32 ifindex; /* device by which we send */
	__u16 win;     /* window field that we sent last */
	__u16 mss;     /* of the peer's SYN, 0: none */
	__u8 ws_rem;   /* window scale of the peer's windows, of ours */
	__u8 ws_loc;
	__u8 seen; /* we have sent something since kvs_conn_add: rcv_nxt and win are real */
	__u8 owe;  /* C: the socket waits for an acknowledgement, so it gets a copy of each */
};

/* kvs_conns: hash by kvs_tuple. Entries are made by kvs_conn_add, removed by kvs_conn_close, by user space when they
 * have been closed for KVS_RETAIN_SEC, and by TC when a SYN shows that a closed tuple is used again. */
struct kvs_conn {
	struct bpf_spin_lock lock; /* of half, splice and gen while it is not bound */
	struct kvs_half half;	   /* while bound, the copy in the splice is the one that counts */
	__u32 splice;		   /* 0: unbound */
	__u32 gen;		   /* of the binding; unbound as well if kvs_splices[splice].gen differs */
	__u8 side;
	__u8 pad[7];
	__u64 born;	 /* tells this entry from a later one of the same tuple */
	__u64 closed_at; /* kvs_conn_close was called */
};

/* kvs_syns: LRU hash by kvs_tuple, handshakes of listeners' and announced connections. TC alone writes. */
enum kvs_syn_odd {
	KVS_SYN_FINE,
	KVS_SYN_TIMESTAMPS,  /* they are on in spite of all */
	KVS_SYN_NO_ETHERNET, /* by a device without such a header: the rest is not known */
};

struct kvs_syn {
	__u32 iss, irs; /* our first number, the peer's */
	__u32 ifindex;	/* device of our SYN or SYN-ACK */
	__u16 mss;	/* of the peer */
	__u8 ws_rem, ws_loc;
	__u8 local, peer; /* our segment was seen; the peer's was seen */
	__u8 odd;	  /* enum kvs_syn_odd: not eligible */
	__u8 side;
};

/* kvs_listeners: hash by kvs_pod_key (address and port; :: is any address), value 1. User space writes.
 * kvs_dials: LRU hash by socket cookie, value 1. User space adds before connect() and removes after it. */

/*
 * FREE ─bind→ RELAY ⇄ ARMED ─first byte at y0→ ACTIVE ─last byte diverted→ ENDED ─client has it all→ DONE ─unbind→ FREE
 */
#define KVS_STATES(X)     \
	X(FREE, free)     \
	X(RELAY, relay)   \
	X(ARMED, armed)   \
	X(ACTIVE, active) \
	X(ENDED, ended)   \
	X(DONE, done)

enum kvs_state {
#define X(NAME, name) KVS_##NAME,
	KVS_STATES(X)
#undef X
		KVS_STATES_N
};

/* Flags of a splice. */
#define KVS_F_CLOSING 0x01 /* user space closes both: FIN and RST of our sockets may leave */
#define KVS_F_ORPHAN  0x02 /* a socket was closed without CLOSING: its owner died */
#define KVS_F_POD_FIN 0x04 /* the pod has sent FIN; with state ACTIVE: the response is truncated */
#define KVS_F_POD_RST 0x08
#define KVS_F_BROKEN  0x10  /* bad framing, or bytes behind the end: reset both */
#define KVS_F_END     0x20  /* u_end is known */
#define KVS_F_CLIENT  0x40  /* client has sent FIN, or RST with its exact number */
#define KVS_F_FIRST   0x80  /* the first byte of the body is still to come */
#define KVS_F_C_FIN   0x100 /* orphan: TC has put FIN on the client's last segment */
#define KVS_F_U_FIN   0x200 /* orphan: TC has put FIN on the pod's last acknowledgement */
#define KVS_F_HOLE    0x400 /* a segment came before one that precedes it (not chunked): the tail comes with DONE */

enum kvs_framing { KVS_UNTIL_CLOSE, KVS_LENGTH, KVS_CHUNKED };

/* Where in chunked framing the next byte stands. <left> belongs to SIZE (value of the digits so far) and DATA (bytes of
 * the chunk still to come, at least 1). CRLF only. */
#define KVS_WALK_STATES(X)                                          \
	X(SIZE_FIRST) /* first digit */                             \
	X(SIZE)	      /* more digits */                             \
	X(EXT)	      /* extension */                               \
	X(SIZE_LF)                                                  \
	X(DATA)                                                     \
	X(DATA_CR)                                                  \
	X(DATA_LF)                                                  \
	X(LINE) /* start of a trailer line, or the CR of the end */ \
	X(TRAILER)                                                  \
	X(TRAILER_LF)                                               \
	X(LAST_LF)                                                  \
	X(END) /* behind the last byte */                           \
	X(BAD)

enum kvs_walk {
#define X(NAME) KVS_WALK_##NAME,
	KVS_WALK_STATES(X)
#undef X
		KVS_WALK_N
};

struct kvs_range {
	__u32 from, to;
};

/* How the last packet but few to a peer was addressed on its link: found by the route, and good for a second. */
struct kvs_link {
	__u8 addrs[12]; /* Ethernet: destination, source */
	__u32 ifindex;
	__u64 at;
};

/* kvs_splices: array, one spin lock each. User space reads (BPF_F_LOCK), and writes only by the programs below. It
 * hands out the ids: one whose state is FREE may be used, kvs_bind refuses any other. */
struct kvs_splice {
	struct bpf_spin_lock lock;
	__u32 gen;   /* kvs_bind */
	__u32 flags; /* KVS_F_* */
	__u8 state;  /* enum kvs_state */
	__u8 framing;
	__u8 walk; /* enum kvs_walk, at wpos */
	__u8 ranges_n;
	struct kvs_tuple c_tuple, u_tuple;
	struct kvs_half c, u;
	__u32 y0;      /* first byte of the body's rest, on U */
	__u32 c_split; /* the same byte on C */
	__u32 u_split; /* y0, moved on by rebasing */
	__u32 fwd_end; /* highest end that was diverted, on U */
	__u32 u_end;   /* end of the response on U, if KVS_F_END */
	__u32 u_una;   /* highest acknowledgement told to the pod */
	__u32 wpos;    /* chunked: walked up to here. Length: counted up to here */
	__u32 version; /* of wpos and ranges */
	__u32 cap;     /* most window that the pod may have, 0: the client's */
	__u16 pod_win; /* window field told to the pod last */
	__u16 users;   /* CPUs at work on store or tail */
	__u32 store;   /* kvs_stores index + 1, 0: none */
	__u32 pad;
	struct kvs_range ranges[KVS_STORE_RANGES]; /* stored beyond wpos, wire numbers of U */
	__u64 left;				   /* of the body (length), of the chunk (chunked) */
	__u64 cookie;				   /* kvs_bind */
	__u64 owner;				   /* kvs_bind */
	__u64 bound_at, active_at, first_at, last_at, ended_at, done_at;
	__u64 gap_max;		       /* ns */
	__u64 bytes, segments, chunks; /* diverted, new ones only; chunks: of chunked framing */
	__u64 dropped;		       /* segments of the pod that were dropped: no room to store, out of the window */
	struct kvs_link c_link, u_link;
};

/* kvs_pod_times: per-CPU hash by kvs_pod_key. User space adds and removes entries (with kvs_pods), TC counts. Bucket 0
 * is below 1 µs, bucket i from 2^(i−1) to 2^i µs, the last one all above. */
struct kvs_times {
	__u64 sum_ns;
	__u64 count[KVS_TIME_BUCKETS];
};

struct kvs_pod_times {
	struct kvs_times ttft; /* from dispatch to the first byte of the body */
	struct kvs_times gap;  /* between segments with new data */
};

/* kvs_rows: per-CPU array of one, how often each row of the rule tables applied. The names are the metric's labels;
 * where a packet goes is fixed for its row. */
#define KVS_ROWS(X)                                                                                    \
	/* any hook */                                                                                 \
	X(OTHER, other, SOCKET)		      /* no connection of ours */                              \
	X(MARKED, redirected, SOCKET)	      /* egress of what another row sent */                    \
	X(UNREADABLE, unreadable, NOWHERE)    /* of a connection of ours, cannot be parsed */          \
	X(SYN, syn, SOCKET)		      /* noted, timestamps stripped */                         \
	X(SYN_KNOWN, syn_of_open, SOCKET)     /* for a connection that is open: the socket answers */  \
	X(SYN_REUSE, syn_of_spliced, NOWHERE) /* ours, on the tuple of an orphan */                    \
	X(FAILED, failed, NOWHERE)	      /* a helper failed half-way */                           \
	/* client ingress */                                                                           \
	X(CI_SHIFT, client_shifted, SOCKET)   /* not spliced now: numbers shifted */                   \
	X(CI_ACK, client_ack, PEER)	      /* acknowledges diverted bytes */                        \
	X(CI_EDGE, client_ack_at_split, BOTH) /* acknowledges up to the split */                       \
	X(CI_OLD, client_ack_old, SOCKET)     /* acknowledges less */                                  \
	X(CI_DATA, client_data, BOTH)	      /* payload, FIN, probe or keep-alive */                  \
	X(CI_OWED, client_ack_owed, BOTH)     /* the socket waits for it */                            \
	X(CI_ENDED, client_ack_ended, BOTH)                                                            \
	X(CI_LAST, client_ack_last, BOTH) /* makes DONE */                                             \
	X(CI_DONE, client_done, SOCKET)                                                                \
	X(CI_RST, client_reset, BOTH)                                                                  \
	X(CI_RST_STRAY, client_reset_stray, SOCKET)   /* not the exact number: the socket decides */   \
	X(CI_UNSENT, client_ack_unsent, NOWHERE)      /* acknowledges what was never sent */           \
	X(CI_NOACK, client_no_ack, SOCKET)	      /* no ACK flag */                                \
	X(CI_COPY, client_copy, PEER)		      /* second pass of BOTH */                        \
	X(CI_COPY_LATE, client_copy_late, NOWHERE)    /* unbound before the second pass */             \
	X(CI_ERROR, client_path_error, SOCKET)	      /* ICMP, with the number that C's socket has */  \
	X(CI_TOO_BIG, client_path_too_big, PEER)      /* ICMPv6 about what was diverted: to the pod */ \
	X(CI_ERROR_STRAY, client_path_stray, NOWHERE) /* ICMP about what is not under way */           \
	/* pod ingress */                                                                              \
	X(PI_SHIFT, pod_shifted, SOCKET)	      /* not spliced now */                            \
	X(PI_OLD, pod_old, SOCKET)		      /* ends before the split */                      \
	X(PI_ACROSS, pod_across_split, PEER)	      /* client has the front */                       \
	X(PI_ACROSS_EARLY, pod_across_early, NOWHERE) /* client has not acknowledged the front */      \
	X(PI_DATA, pod_data, PEER)                                                                     \
	X(PI_STORED, pod_stored, PEER)	    /* beyond a gap, kept for the walk */                      \
	X(PI_NO_ROOM, pod_no_room, NOWHERE) /* beyond a gap, cannot be kept */                         \
	X(PI_RACE, pod_race, NOWHERE)	    /* another CPU was faster three times */                   \
	X(PI_WINDOW, pod_outside_window, NOWHERE)                                                      \
	X(PI_BEHIND, pod_behind_end, SOCKET)                                                           \
	X(PI_BROKEN, pod_broken, NOWHERE)     /* bad framing, across the end */                        \
	X(PI_FIN_DATA, pod_fin_on_data, PEER) /* without FIN */                                        \
	X(PI_FIN, pod_fin, SOCKET)                                                                     \
	X(PI_FIN_EARLY, pod_fin_early, NOWHERE)	  /* bytes before it are missing */                    \
	X(PI_FIN_ORPHAN, pod_fin_orphan, PEER)	  /* end of an orphan's body until close */            \
	X(PI_RST, pod_reset, SOCKET)		  /* with the socket's exact number */                 \
	X(PI_RST_STRAY, pod_reset_stray, NOWHERE) /* outside the window */                             \
	X(PI_CUT_ORPHAN, pod_cut_orphan, PEER)	  /* an orphan cannot be completed: client gets RST */ \
	X(PI_PROBE, pod_probe, PEER)		  /* zero-window probe, keep-alive */                  \
	X(PI_ACK, pod_ack, SOCKET)                                                                     \
	X(PI_LATE, pod_late, SOCKET) /* in DONE */                                                     \
	/* client egress */                                                                            \
	X(CE_SHIFT, to_client_shifted, SOCKET)                                                         \
	X(CE_SPLICED, to_client_spliced, SOCKET)                                                       \
	X(CE_RST, to_client_reset, SOCKET)	 /* with the number that the client expects */         \
	X(CE_FIN_CUT, to_client_fin_cut, SOCKET) /* data without a FIN that is not due yet */          \
	X(CE_STOLEN, to_client_stolen, NOWHERE)	 /* FIN or RST of an orphan */                         \
	/* pod egress */                                                                               \
	X(PE_SHIFT, to_pod_shifted, SOCKET)                                                            \
	X(PE_SPLICED, to_pod_spliced, SOCKET)                                                          \
	X(PE_FIN_CUT, to_pod_fin_cut, SOCKET)                                                          \
	X(PE_STOLEN, to_pod_stolen, NOWHERE)                                                           \
	/* not packets: what happened along the way */                                                 \
	X(ACTIVATED, activated, NOWHERE)                                                               \
	X(REFUSED, refused, NOWHERE) /* armed, but other bytes came first */                           \
	X(ENDS, ends, NOWHERE)                                                                         \
	X(DONES, dones, NOWHERE)                                                                       \
	X(ORPHANED, orphaned, NOWHERE)                                                                 \
	X(REBASED, rebased, NOWHERE)                                                                   \
	X(COPY_LOST, copy_lost, NOWHERE) /* no memory for the other peer's copy */                     \
	X(RING_FULL, ring_full, NOWHERE) /* an event was lost */

/* SOCKET: on to the socket, at egress to the network. PEER: to the other connection's peer. */
enum kvs_goes { KVS_GOES_NOWHERE, KVS_GOES_SOCKET, KVS_GOES_PEER, KVS_GOES_BOTH };

enum kvs_row {
#define X(NAME, name, goes) KVS_ROW_##NAME,
	KVS_ROWS(X)
#undef X
		KVS_ROWS_N
};

union kvs_row_counts {
	struct {
#define X(NAME, name, goes) __u64 name;
		KVS_ROWS(X)
#undef X
	};
	__u64 row[KVS_ROWS_N];
};

/* kvs_events: ring buffer of kvs_event. With ENDED come the last <len> bytes of the body, byte i of them at
 * tail[(tail_at + i) % KVS_TAIL_BYTES] behind the event: they are taken as they lie in a ring. */
#define KVS_EVENTS(X)                                                                              \
	X(ENDED, ended)	    /* tail: the body's last bytes as they came, chunk framing included */ \
	X(DONE, done)	    /* unbind; U may carry the next request */                             \
	X(BROKEN, broken)   /* reset both */                                                       \
	X(POD_FIN, pod_fin) /* FIN rode on data; the socket gets it later */                       \
	X(POD_RST, pod_rst)                                                                        \
	X(ORPHAN, orphan)

enum kvs_event_type {
#define X(NAME, name) KVS_EV_##NAME,
	KVS_EVENTS(X)
#undef X
		KVS_EVENTS_N
};

struct kvs_event {
	__u32 splice, gen;
	__u64 cookie;
	__u64 at;
	__u16 type;
	__u16 len;
	__u32 flags; /* KVS_F_* at that moment */
	__u64 bytes; /* diverted so far */
	__u32 tail_at;
	__u32 state;
};

/* kvs_conn_add: make the entry of an established connection from its handshake.
 * -ENOENT: TC did not see it (relay); -EOPNOTSUPP: timestamps are on (relay); -ENODEV: its device has no Ethernet
 * header (relay); -EEXIST; -ENOSPC or -E2BIG: map full. */
struct kvs_conn_add_args {
	struct kvs_tuple tuple;
	__u32 side;	     /* enum kvs_side; -EINVAL if the handshake says otherwise */
	__u32 ifindex;	     /* out: device by which we send */
	__u16 mss;	     /* out: of the peer's SYN */
	__u8 ws_rem, ws_loc; /* out */
	__u8 pad[8];
	__u64 born; /* out */
};

/* kvs_conn_close: the socket is closed, or its owner is gone. An entry that never carried a splice goes at once. With
 * offsets it stays, since FINs and TIME-WAIT still need them: user space deletes it with <gc> set, KVS_RETAIN_SEC after
 * closed_at. 0: gone; -EINPROGRESS: kept; -EBUSY: bound (unbind first); -ENOENT: unknown, or another <born>. */
struct kvs_conn_close_args {
	struct kvs_tuple tuple;
	__u32 gc; /* delete now */
	__u64 born;
};

/* kvs_bind: -ENOENT: a connection is unknown; -EBUSY: one is bound, or the splice is not FREE; -EAFNOSUPPORT: IPv4 with
 * IPv6; -ERANGE: no such splice; -EINVAL: sides. */
struct kvs_bind_args {
	struct kvs_tuple c, u;
	__u32 splice;
	__u32 gen;	     /* any number but 0 that this id did not have lately */
	__u64 cookie;	     /* comes back in events */
	__u64 owner;	     /* which daemon */
	__u64 dispatched_at; /* TTFT counts from here; 0: now */
};

/* Why kvs_arm refused. The names are the metric's labels. */
#define KVS_ARM_RESULTS(X)                                                                    \
	X(OK, ok)                                                                             \
	X(UNBOUND, unbound)		/* -ENOENT: no such splice, or another generation */  \
	X(STATE, state)			/* -EBUSY: not in RELAY */                            \
	X(POD_AHEAD, pod_ahead)		/* -EAGAIN: more has come than was read */            \
	X(MISCOUNT, miscount)		/* -EPROTO: more was read or written than TC saw */   \
	X(CLIENT_BEHIND, client_behind) /* -EAGAIN: C's bytes have not left yet */            \
	X(UNSEEN, unseen)		/* -EAGAIN: a socket has not sent anything yet */     \
	X(FRAMING, framing)		/* -EINVAL: impossible framing, or nothing is left */ \
	X(POD_FIN, pod_fin)		/* -EPIPE: the pod has closed */

enum kvs_arm_result {
#define X(NAME, name) KVS_ARM_##NAME,
	KVS_ARM_RESULTS(X)
#undef X
		KVS_ARM_N
};

/* kvs_arm: the next byte on U is to go to C's peer directly. All that was read from U has been written to C, all that
 * was written to U is acknowledged (SIOCOUTQ 0), and C is not written until KVS_EV_ENDED or a refusal. A refusal shows
 * as U's socket becoming readable. */
struct kvs_arm_args {
	__u32 splice, gen;
	__u64 u_read;	 /* bytes read from U's socket since it was connected */
	__u64 c_written; /* bytes written to C's socket since it was accepted */
	__u64 left;	 /* KVS_LENGTH: of the body; KVS_CHUNKED: see kvs_walk */
	__u64 first_at;	 /* when the first byte of the body was read; 0: it is still to come, and TC takes TTFT */
	__u64 last_at;	 /* when the last one so far was read, where the next gap begins; 0: now */
	__u32 cap;	 /* most window for the pod; 0: KVS_STORE_BYTES if chunked, else the client's */
	__u8 framing;	 /* enum kvs_framing */
	__u8 walk;	 /* enum kvs_walk */
	__u8 result;	 /* out: enum kvs_arm_result */
	__u8 state;	 /* out: enum kvs_state after the call */
};

/* kvs_closing: FIN and RST of our sockets are meant from now on. 0, -ENOENT. The state at that moment is written. */
struct kvs_closing_args {
	__u32 splice, gen;
	__u32 state, flags; /* out */
};

/* kvs_unbind: in RELAY, ARMED and DONE, elsewhere with KVS_UNBIND_FORCE: then what is under way on both connections is
 * lost, and they can only be reset (before this call) or left to time out. The offsets of both connections move on by
 * what was diverted. -ENOENT; -EBUSY: ACTIVE or ENDED;
 * -EAGAIN: a packet is being worked on this very moment, call again. */
#define KVS_UNBIND_FORCE 1

struct kvs_unbind_args {
	__u32 splice, gen;
	__u32 force;	    /* KVS_UNBIND_FORCE */
	__u32 state, flags; /* out: before the call */
	__u32 pad;
	__u64 bytes, segments, chunks, gap_max, first_at, last_at; /* out */
};

_Static_assert(sizeof(struct kvs_tuple) == 36, "kvs_tuple");
_Static_assert(sizeof(struct kvs_half) == 36, "kvs_half");
_Static_assert(sizeof(struct kvs_conn) == 72, "kvs_conn");
_Static_assert(sizeof(struct kvs_syn) == 20, "kvs_syn");
_Static_assert(sizeof(struct kvs_splice) <= 512, "kvs_splice");
_Static_assert(sizeof(struct kvs_event) == 48, "kvs_event");
_Static_assert(sizeof(struct kvs_conn_add_args) == 64, "kvs_conn_add_args");
_Static_assert(sizeof(struct kvs_conn_close_args) == 48, "kvs_conn_close_args");
_Static_assert(sizeof(struct kvs_bind_args) == 104, "kvs_bind_args");
_Static_assert(sizeof(struct kvs_arm_args) == 56, "kvs_arm_args");
_Static_assert(sizeof(struct kvs_unbind_args) == 72, "kvs_unbind_args");
_Static_assert(sizeof(union kvs_row_counts) == 8 * KVS_ROWS_N, "kvs_row_counts");

#endif
