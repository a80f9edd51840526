/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * What the steps of a program hand on to each other for one packet. It lies in a per-CPU map, because the stack is 512
 * bytes for a whole call chain; TC runs with bottom halves off, so a packet has it for itself.
 */
#ifndef KVS_LIB_SCRATCH_BPF_H
#define KVS_LIB_SCRATCH_BPF_H

#include "lib/segment.bpf.h"
#include "splice_maps.bpf.h"

/* Distance of two sequence numbers that are less than 2 GB apart. */
#define D(a, b) ((__s32)((__u32)(a) - (__u32)(b)))

/* Marks of packets that pass a hook a second time; cleared there. Each version has its own: the programs of another
 * one, whose streams have not ended, may stand behind these in the chain. */
#define MARK_VERSION   (0x6b000000 | (KVS_ABI & 15) << 20)
#define MARK_POD       (MARK_VERSION | 0x00000) /* a copy on its way to the pod: ingress does that half only */
#define MARK_TO_CLIENT (MARK_VERSION | 0x40000) /* sent to a peer: egress leaves it alone */
#define MARK_TO_POD    (MARK_VERSION | 0x80000)
#define MARK_ID	       0x0003ffff /* the splice that is to learn the link-layer addresses, 0: none */

#define LINK_NS 1000000000 /* after that they are asked for again */

#define OPTIONS_MAX 40
#define WINDOW	    64

/* What a packet is to say when it goes on. */
struct header {
	__u32 seq, ack;
	__u16 win;
	__u8 flags;
	__u8 options; /* enum option_map */
};

enum option_map { OPTIONS_KEEP, OPTIONS_SHIFT, OPTIONS_SOCKET, OPTIONS_POD, OPTIONS_NONE };

/* How SACK blocks, and acknowledgements, are mapped. Monotone, so one rule serves all states. */
struct seqmap {
	__u32 off, lo, hi;
};

struct action {
	__u8 row;      /* enum kvs_row */
	__u8 walk;     /* the walker has the last word */
	__u8 hold;     /* the splice's user count is ours to give back */
	__u8 keep;     /* payload belongs into the tail */
	__u8 client;   /* it is of C */
	__u8 trim;     /* peer: without payload */
	__u8 linked;   /* peer: <link> is known */
	__u8 fragment; /* peer: may be fragmented */
	__u8 events;   /* bits of enum kvs_event_type */
	__u8 tail;     /* type of the event that takes the tail along, + 1 */
	__u32 notes;   /* bits: row − KVS_ROW_ACTIVATED */
	struct header socket, peer;
	struct seqmap socket_map, peer_map;
	struct kvs_tuple to; /* peer */
	__u32 ifindex;	     /* peer */
	__u8 link[12];	     /* peer */
	__u32 splice;
	__u32 gen;
	__u32 top; /* end of the tail */
	struct kvs_event event;
	__u64 ttft, gap; /* to be counted, 0: none */
	struct kvs_pod_key pod;
};

/* RETRY: not decided yet; GONE: the splice is no longer active. */
enum walk_verdict { WALK_RETRY, WALK_GONE, WALK_DIVERT, WALK_STORED, WALK_NO_ROOM, WALK_BROKEN };

/* A walk over chunk framing, on a copy of the splice's state. */
struct walk {
	__u32 pos, to; /* numbers */
	__u32 wpos;    /* where it began */
	__u32 window_at, window_n;
	__u32 version, store, fresh; /* fresh: slot popped by us, + 1 */
	__u32 ranges_n;
	__u32 state;
	__u32 verdict; /* enum walk_verdict */
	__u32 pad;
	struct kvs_range ranges[KVS_STORE_RANGES];
	__u64 left;
	__u64 chunks;
};

struct scratch {
	struct segment s;
	struct kvs_tuple t;
	struct action a;
	struct walk w;
	__u32 seq, end; /* of the payload */
	__u32 data;	/* where it begins in the packet */
	__u8 second, egress;
	__u8 pad[2];
	__u64 now;
	__u8 window[WINDOW];
	__be32 opt_old[16], opt_new[16];
	struct tcphdr tcp;
	__u8 ip_old[32], ip_new[32];
	__be32 pseudo[10];
	struct tail last; /* an event with the last segment's bytes */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} kvs_scratch SEC(".maps");

static __always_inline struct scratch *scratch_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&kvs_scratch, &zero);
}

static __always_inline void row_count(__u32 row)
{
	__u32 zero = 0;
	union kvs_row_counts *c = bpf_map_lookup_elem(&kvs_rows, &zero);

	if (c && row < KVS_ROWS_N)
		c->row[row]++;
}

static __always_inline void note(struct action *a, enum kvs_row row)
{
	a->notes |= 1U << (row - KVS_ROW_ACTIVATED);
}

static __always_inline __u32 seq_max(__u32 a, __u32 b)
{
	return D(a, b) > 0 ? a : b;
}

/* Number of the wire → of the socket. Between lo and hi lies what the socket never had. */
static __always_inline __u32 map_socket(const struct seqmap *m, __u32 w)
{
	if (D(w, m->lo) <= 0)
		return w - m->off;
	if (D(w, m->hi) <= 0)
		return m->lo - m->off;
	return w - m->off - (m->hi - m->lo);
}

/* Number of the client → of the pod, within what was spliced. */
static __always_inline __u32 map_pod(const struct seqmap *m, __u32 w)
{
	if (D(w, m->lo) < 0)
		w = m->lo;
	if (D(w, m->hi) > 0)
		w = m->hi;
	return w - m->off;
}

/* Keeps clang from dropping a check, or merging an address, that the verifier needs to see. */
#define OPAQUE(x) asm volatile("" : "+r"(x))

#endif
