/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Rules for C, the client's connection: what comes from the client and what our socket sends to it. All of it runs
 * under the splice's lock, so nothing here may call a helper.
 */
#ifndef KVS_LIB_CLIENT_BPF_H
#define KVS_LIB_CLIENT_BPF_H

#include "lib/events.bpf.h"

#define REBASE_AT   0x50000000
#define REBASE_STEP 0x20000000

/* Number on C of the end of what was diverted so far; of the whole response, if that is known. */
static __always_inline __u32 client_sent_end(const struct kvs_splice *sp)
{
	return sp->c_split + (sp->fwd_end - sp->u_split);
}

static __always_inline __u32 client_end(const struct kvs_splice *sp)
{
	return sp->flags & KVS_F_END ? sp->c_split + (sp->u_end - sp->u_split) : sp->c_split + 0x60000000;
}

/*
 * Distances stay below 2 GB: when the client is far beyond the split, split and offsets move on together, and no
 * socket's number changes by that. What still stands at the split moves along.
 */
static __always_inline void splice_rebase(struct kvs_splice *sp, struct action *a)
{
	if (sp->c.snd_end == sp->c_split)
		sp->c.snd_end += REBASE_STEP;
	if (sp->u.del == sp->u_split)
		sp->u.del += REBASE_STEP;
	sp->c_split += REBASE_STEP;
	sp->u_split += REBASE_STEP;
	sp->c.off += REBASE_STEP;
	sp->u.off += REBASE_STEP;
	sp->u.rcv_nxt += REBASE_STEP;
	note(a, KVS_ROW_REBASED);
}

/* Unbound, or bound and not active: <half> is the connection's or the splice's. */
static __always_inline void client_in_plain(struct kvs_half *c, struct scratch *sc)
{
	struct action *a = &sc->a;

	a->row = KVS_ROW_CI_SHIFT;
	if (!(sc->s.flags & TCP_FLAG_ACK))
		return;
	if (D(a->socket.ack, c->snd_una) > 0)
		c->snd_una = a->socket.ack;
	if (!c->off)
		return;
	a->socket.ack -= c->off;
	a->socket.options = OPTIONS_SHIFT;
	a->socket_map.off = -c->off;
}

static __always_inline void client_out_plain(struct kvs_half *c, struct scratch *sc)
{
	struct action *a = &sc->a;

	a->row = KVS_ROW_CE_SHIFT;
	a->socket.seq += c->off;
	c->snd_end = seq_max(c->snd_end, sc->end + c->off + (sc->s.flags & TCP_FLAG_FIN ? 1 : 0));
	if (sc->s.flags & TCP_FLAG_ACK) {
		c->rcv_nxt = a->socket.ack;
		c->win = a->socket.win;
		c->seen = 1;
	}
}

/* What the pod is told by this packet of the client. */
static __always_inline void client_to_pod(struct kvs_splice *sp, struct scratch *sc, __u32 ack, __u32 c_end)
{
	struct action *a = &sc->a;
	struct header *h = &a->peer;
	__u32 mapped;
	__u64 win = (__u64)h->win << (sp->c.ws_rem & 15);

	a->peer_map.lo = sp->c_split;
	a->peer_map.hi = client_sent_end(sp); /* SACK blocks beyond are invented */
	a->peer_map.off = sp->c_split - sp->u_split;
	mapped = map_pod(&a->peer_map, ack);
	if (sp->cap && win > sp->cap)
		win = sp->cap;
	win >>= sp->u.ws_loc & 15;
	h->win = win > 0xffff ? 0xffff : win;
	if (D(ack, sp->c.snd_una) >= 0)
		sp->pod_win = h->win;
	sp->u_una = seq_max(sp->u_una, mapped);
	h->seq = sp->u.snd_end;
	/* A keep-alive whose socket is gone, or soon will be: the pod is asked instead, and its answer goes to the
	 * client. */
	if ((sp->flags & KVS_F_ORPHAN) && sc->seq == sp->c.rcv_nxt - 1 && sc->s.payload <= 1)
		h->seq--;
	h->ack = mapped;
	h->flags = TCP_FLAG_ACK;
	h->options = OPTIONS_POD;
	a->trim = sc->s.payload > 0;
	if (!(sp->flags & KVS_F_END) || D(ack, c_end) < 0)
		return;
	if ((sp->flags & KVS_F_POD_FIN) && D(ack, c_end) > 0)
		h->ack++;
	if (sp->flags & KVS_F_ORPHAN) {
		h->flags |= TCP_FLAG_FIN;
		sp->flags |= KVS_F_U_FIN;
	}
}

static __always_inline void client_reset(struct kvs_splice *sp, struct scratch *sc)
{
	struct action *a = &sc->a;

	a->row = sc->seq == sp->c.rcv_nxt ? KVS_ROW_CI_RST : KVS_ROW_CI_RST_STRAY;
	if (sc->s.flags & TCP_FLAG_ACK)
		a->socket.ack = map_socket(&a->socket_map, a->socket.ack);
	a->peer.seq = sp->u.snd_end;
	a->peer.ack = sp->u_una;
	a->peer.win = 0;
	a->peer.flags = TCP_FLAG_RST | TCP_FLAG_ACK;
	a->peer.options = OPTIONS_NONE;
	a->trim = 1;
}

/* Segment of the client in ACTIVE, ENDED or DONE: its row. */
static __always_inline enum kvs_row client_row(struct kvs_splice *sp, const struct scratch *sc, __u32 ack, bool last)
{
	bool past = D(ack, sp->c_split) >= 0;

	if (sp->state == KVS_DONE && !last)
		return KVS_ROW_CI_DONE;
	if (!past)
		return KVS_ROW_CI_OLD;
	if (last)
		return KVS_ROW_CI_LAST;
	if (sc->s.payload || (sc->s.flags & TCP_FLAG_FIN) || sc->seq != sp->c.rcv_nxt)
		return KVS_ROW_CI_DATA;
	if (sp->state == KVS_ENDED)
		return KVS_ROW_CI_ENDED;
	if (ack == sp->c_split)
		return KVS_ROW_CI_EDGE;
	return sp->c.owe ? KVS_ROW_CI_OWED : KVS_ROW_CI_ACK;
}

/* The second pass: only the pod's half is left to do. */
static __always_inline void client_copy(struct kvs_splice *sp, struct scratch *sc)
{
	struct action *a = &sc->a;

	a->row = KVS_ROW_CI_COPY_LATE;
	if (sp->state < KVS_ACTIVE)
		return;
	if ((sc->s.flags & TCP_FLAG_RST) && sp->state < KVS_DONE) {
		client_reset(sp, sc);
	} else if (D(a->peer.ack, sp->c_split) < 0) {
		return;
	} else {
		client_to_pod(sp, sc, a->peer.ack, client_end(sp));
	}
	a->row = KVS_ROW_CI_COPY;
}

/* A reset that acknowledges the end: the last acknowledgement, as any other, and none of the pod's business. */
static __always_inline bool client_had_all(const struct kvs_splice *sp, const struct scratch *sc, __u32 c_end)
{
	return sp->state == KVS_ENDED && (sc->s.flags & TCP_FLAG_ACK) && sc->seq == sp->c.rcv_nxt &&
	       sc->a.socket.ack == c_end;
}

static __always_inline void client_in(struct kvs_splice *sp, struct scratch *sc)
{
	struct action *a = &sc->a;
	__u32 ack = a->socket.ack, c_end = client_end(sp), limit;
	bool last = false;

	a->to = sp->u_tuple;
	a->ifindex = sp->u.ifindex;
	link_take(&sp->u_link, sc);
	a->socket_map.off = sp->c.off;
	a->socket_map.lo = sp->c_split;
	a->socket_map.hi = c_end;
	if (sc->second) {
		client_copy(sp, sc);
		return;
	}
	if ((sc->s.flags & TCP_FLAG_FIN) || ((sc->s.flags & TCP_FLAG_RST) && sc->seq == sp->c.rcv_nxt))
		sp->flags |= KVS_F_CLIENT;
	if (sp->state < KVS_ACTIVE) {
		client_in_plain(&sp->c, sc);
		return;
	}
	if ((sc->s.flags & TCP_FLAG_RST) && sp->state < KVS_DONE && !client_had_all(sp, sc, c_end)) {
		client_reset(sp, sc);
		return;
	}
	if (!(sc->s.flags & TCP_FLAG_ACK)) {
		a->row = KVS_ROW_CI_NOACK;
		return;
	}
	limit = seq_max(client_sent_end(sp) + (sp->flags & KVS_F_C_FIN ? 1 : 0), sp->c.snd_end);
	if (D(ack, limit) > 0) {
		a->row = KVS_ROW_CI_UNSENT;
		return;
	}
	if (sp->state == KVS_ENDED && D(ack, c_end) >= 0) {
		splice_done(sp, sc);
		last = true;
	}
	a->row = client_row(sp, sc, ack, last);
	if (a->row != KVS_ROW_CI_OLD && a->row != KVS_ROW_CI_DONE)
		client_to_pod(sp, sc, ack, c_end);
	sp->c.snd_una = seq_max(sp->c.snd_una, ack);
	if (a->row != KVS_ROW_CI_OLD && a->row != KVS_ROW_CI_ACK)
		sp->c.owe = 0;
	a->socket.ack = map_socket(&a->socket_map, ack);
	a->socket.options = OPTIONS_SOCKET;
	if (sp->state == KVS_ENDED && D(ack, c_end) < 0) {
		/* The socket may write behind the end: what is left of the window beyond it. */
		__s64 win = ((__s64)a->socket.win << (sp->c.ws_rem & 15)) - D(c_end, ack);

		a->socket.win = win < 0 ? 0 : win >> (sp->c.ws_rem & 15);
	}
	if (D(ack, sp->c_split) > REBASE_AT)
		splice_rebase(sp, a);
}

/* The owner has died while armed: the answer goes on all the same. True: the packet has its row. */
static __always_inline bool orphan_in_armed(struct kvs_splice *sp, struct scratch *sc, enum kvs_row stolen)
{
	__u8 ends = sc->s.flags & (TCP_FLAG_FIN | TCP_FLAG_RST);

	if (sp->state != KVS_ARMED || !ends || (sp->flags & KVS_F_CLOSING))
		return false;
	splice_orphan(sp, sc);
	sc->a.row = stolen;
	if ((ends & TCP_FLAG_RST) || !sc->s.payload)
		return true;
	sc->s.flags &= ~TCP_FLAG_FIN;
	sc->a.socket.flags &= ~TCP_FLAG_FIN;
	return false;
}

static __always_inline void client_out(struct kvs_splice *sp, struct scratch *sc)
{
	struct action *a = &sc->a;
	__u8 ends = sc->s.flags & (TCP_FLAG_FIN | TCP_FLAG_RST);
	__u32 seq = sc->seq + sp->c.off, past;

	sp->c.ifindex = a->ifindex;
	if (sp->state < KVS_ACTIVE) {
		if (!orphan_in_armed(sp, sc, KVS_ROW_CE_STOLEN))
			client_out_plain(&sp->c, sc);
		return;
	}
	a->row = KVS_ROW_CE_SPLICED;
	if (ends && sp->state < KVS_DONE && !(sp->flags & KVS_F_CLOSING)) {
		splice_orphan(sp, sc);
		a->row = KVS_ROW_CE_STOLEN;
		if ((sc->s.flags & TCP_FLAG_RST) || !sc->s.payload)
			return;
		a->row = KVS_ROW_CE_FIN_CUT;
		a->socket.flags &= ~TCP_FLAG_FIN;
		ends = 0;
	}
	if ((ends & TCP_FLAG_FIN) && sc->s.payload && D(seq, sp->c_split) < 0) {
		/* A head that is sent again takes a FIN that waits behind it along, and would put it at the split. Its
		 * place is behind what was diverted; it comes again by itself. */
		a->row = KVS_ROW_CE_FIN_CUT;
		a->socket.flags &= ~TCP_FLAG_FIN;
		ends = 0;
	}
	if (sc->s.flags & TCP_FLAG_RST) {
		/* Only with the very number that it expects does the client believe it. That is what it has just
		 * acknowledged, if this is the answer to such a segment (no ACK flag). Else it is the end of what was
		 * sent; if some of that was lost, the client asks by an ACK, which must find the socket gone. */
		a->row = KVS_ROW_CE_RST;
		a->socket.seq =
			sc->s.flags & TCP_FLAG_ACK ? seq_max(client_sent_end(sp), sp->c.snd_end) : sp->c.snd_una;
		sp->c.owe = 1;
		return;
	}
	/* While it goes on, the end of what was sent: the end of the response may lie beyond the client's window. */
	past = D(seq, sp->c_split) >= 0 ? (sp->state > KVS_ACTIVE ? sp->u_end : sp->fwd_end) - sp->u_split : 0;
	a->socket.seq = seq + past;
	if (sc->s.payload || ends) {
		sp->c.owe = 1;
		sp->c.snd_end = seq_max(sp->c.snd_end, a->socket.seq + sc->s.payload + (ends ? 1 : 0));
	} else if (D(seq, sp->c_split) < 0) {
		sp->c.owe = 1; /* keep-alive probe */
	}
	if (sc->s.flags & TCP_FLAG_ACK) {
		sp->c.rcv_nxt = a->socket.ack;
		sp->c.win = a->socket.win;
		sp->c.seen = 1;
	}
}

#endif
