/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Rules for U, the pod's connection: what comes from the pod and what our socket sends to it. As in client.bpf.h, all
 * of it runs under the splice's lock.
 */
#ifndef KVS_LIB_POD_BPF_H
#define KVS_LIB_POD_BPF_H

#include "lib/client.bpf.h"

#define FAR	  0x20000000 /* no window is so large */
#define END_KNOWN 0x40000000 /* a rest of a body below this can be written as a number */

static __always_inline void pod_in_plain(struct kvs_half *u, struct scratch *sc)
{
	struct action *a = &sc->a;

	a->row = KVS_ROW_PI_SHIFT;
	if (sc->s.payload)
		u->del = seq_max(u->del, sc->end);
	if (sc->s.flags & TCP_FLAG_ACK)
		u->snd_una = seq_max(u->snd_una, a->socket.ack);
	a->socket.seq -= u->off;
}

static __always_inline void pod_out_plain(struct kvs_half *u, struct scratch *sc)
{
	struct action *a = &sc->a;

	a->row = KVS_ROW_PE_SHIFT;
	u->snd_end = seq_max(u->snd_end, sc->end + (sc->s.flags & TCP_FLAG_FIN ? 1 : 0));
	if (!(sc->s.flags & TCP_FLAG_ACK))
		return;
	a->socket.ack += u->off;
	u->rcv_nxt = a->socket.ack;
	u->win = a->socket.win;
	u->seen = 1;
	if (u->off) {
		a->socket.options = OPTIONS_SHIFT;
		a->socket_map.off = u->off;
	}
}

static __always_inline void splice_activate(struct kvs_splice *sp, struct scratch *sc)
{
	sp->state = KVS_ACTIVE;
	sp->active_at = sc->now;
	sp->u_split = sp->fwd_end = sp->u_una = sp->wpos = sp->y0;
	sp->c.snd_end = sp->c_split;
	sp->u.del = sp->u_split;
	sp->pod_win = sp->u.win;
	/* The head may not have been acknowledged yet. */
	sp->c.owe = D(sp->c.snd_una, sp->c_split) < 0;
	if (sp->framing == KVS_LENGTH && sp->left < END_KNOWN) {
		sp->flags |= KVS_F_END;
		sp->u_end = sp->y0 + (__u32)sp->left;
	}
	note(&sc->a, KVS_ROW_ACTIVATED);
}

/* What the client is told by this packet of the pod. */
static __always_inline void pod_to_client(struct kvs_splice *sp, struct scratch *sc)
{
	struct header *h = &sc->a.peer;

	h->seq = sc->seq + (sp->c_split - sp->u_split);
	h->ack = sp->c.rcv_nxt;
	h->win = sp->c.win;
	h->flags = TCP_FLAG_ACK | (sc->s.flags & TCP_FLAG_PSH);
	h->options = OPTIONS_NONE;
	sc->a.fragment = 1;
}

/* An orphan's last segment closes the connection for the socket that cannot; sent again, it does so again. */
static __always_inline void pod_to_client_fin(struct kvs_splice *sp, struct scratch *sc)
{
	if (!(sp->flags & KVS_F_ORPHAN) || !(sp->flags & KVS_F_END) || sc->end != sp->u_end)
		return;
	sc->a.peer.flags |= TCP_FLAG_FIN;
	sp->flags |= KVS_F_C_FIN;
}

/* The response cannot be completed. The daemon resets both; an orphan has none, so the client hears of it from here. */
static __always_inline void pod_cut(struct kvs_splice *sp, struct scratch *sc, enum kvs_row row)
{
	struct header *h = &sc->a.peer;

	sc->a.row = row;
	if (!(sp->flags & KVS_F_ORPHAN))
		return;
	sc->a.row = KVS_ROW_PI_CUT_ORPHAN;
	/* As in client_out: the end of what was sent, and what the client has acknowledged if that did not do. */
	h->seq = sp->flags & KVS_F_C_FIN ? sp->c.snd_una : client_sent_end(sp);
	sp->flags |= KVS_F_C_FIN;
	h->ack = sp->c.rcv_nxt;
	h->win = 0;
	h->flags = TCP_FLAG_RST | TCP_FLAG_ACK;
	h->options = OPTIONS_NONE;
	sc->a.trim = 1;
}

static __always_inline void pod_broken(struct kvs_splice *sp, struct scratch *sc)
{
	if (!(sp->flags & KVS_F_BROKEN))
		event(sp, sc, KVS_EV_BROKEN);
	sp->flags |= KVS_F_BROKEN;
	pod_cut(sp, sc, KVS_ROW_PI_BROKEN);
}

/* New data was accepted up to sc->end: times and counts. */
static __always_inline void pod_count(struct kvs_splice *sp, struct scratch *sc)
{
	__s32 n = D(sc->end, sp->fwd_end);

	if (n <= 0)
		return;
	if (sp->flags & KVS_F_FIRST) {
		sp->flags &= ~KVS_F_FIRST;
		sp->first_at = sc->now;
		sc->a.ttft = sc->now - sp->bound_at;
	} else if (sp->last_at) {
		sc->a.gap = sc->now - sp->last_at;
		if (sc->a.gap > sp->gap_max)
			sp->gap_max = sc->a.gap;
	}
	sp->last_at = sc->now;
	sp->bytes += n;
	sp->segments++;
	if (D(sc->seq, sp->fwd_end) > 0)
		sp->flags |= KVS_F_HOLE;
	sp->fwd_end = sc->end;
}

/* Content-Length counts progress in whatever order segments come; it fixes the end as soon as a number can say it. */
static __always_inline void pod_length(struct kvs_splice *sp, struct scratch *sc)
{
	__s32 n = D(sc->end, sp->wpos);

	if (n > 0) {
		if ((__u64)n > sp->left) {
			pod_broken(sp, sc);
			return;
		}
		sp->left -= n;
		sp->wpos = sc->end;
	}
	pod_count(sp, sc);
	if (!(sp->flags & KVS_F_END) && sp->left < END_KNOWN) {
		sp->flags |= KVS_F_END;
		sp->u_end = sp->wpos + (__u32)sp->left;
	}
	if (sp->state == KVS_ACTIVE && (sp->flags & KVS_F_END) && sp->fwd_end == sp->u_end)
		splice_ended(sp, sc);
}

static __always_inline void pod_data(struct kvs_splice *sp, struct scratch *sc)
{
	struct action *a = &sc->a;
	bool across = D(sc->seq, sp->u_split) < 0, fin = sc->s.flags & TCP_FLAG_FIN;

	if (D(sc->end, sp->u_split) <= 0) {
		a->row = KVS_ROW_PI_OLD;
		a->socket.seq = sc->seq - sp->u.off;
		return;
	}
	if (D(sc->end, sp->u_una) > FAR || D(sc->seq, sp->u_una) < -FAR) {
		a->row = KVS_ROW_PI_WINDOW;
		sp->dropped++;
		return;
	}
	if ((sp->flags & KVS_F_END) && D(sc->seq, sp->u_end) >= 0) {
		a->row = KVS_ROW_PI_BEHIND;
		a->socket.seq = map_socket(&a->socket_map, sc->seq);
		return;
	}
	if ((sp->flags & KVS_F_BROKEN) || ((sp->flags & KVS_F_END) && D(sc->end, sp->u_end) > 0)) {
		pod_broken(sp, sc);
		return;
	}
	if (across && D(sp->c.snd_una, sp->c_split) < 0) {
		a->row = KVS_ROW_PI_ACROSS_EARLY;
		return;
	}
	a->row = across ? KVS_ROW_PI_ACROSS : fin ? KVS_ROW_PI_FIN_DATA : KVS_ROW_PI_DATA;
	pod_to_client(sp, sc);
	if (sp->framing == KVS_CHUNKED && sp->state == KVS_ACTIVE) {
		a->walk = 1; /* the walker counts, once it knows that the segment goes on */
		walk_snapshot(sp, sc);
		return;
	}
	if (sp->framing == KVS_LENGTH) {
		pod_length(sp, sc);
	} else {
		pod_count(sp, sc);
		if (fin && sp->state == KVS_ACTIVE && sp->fwd_end != sc->end) {
			pod_broken(sp, sc); /* FIN in the middle of what was sent */
			return;
		}
		if (fin && sp->state == KVS_ACTIVE) {
			/* Its number is the end, whatever is still missing before it. */
			sp->flags |= KVS_F_END;
			sp->u_end = sc->end;
			splice_ended(sp, sc);
		}
	}
	if (fin && !(sp->flags & KVS_F_POD_FIN)) {
		sp->flags |= KVS_F_POD_FIN;
		event(sp, sc, KVS_EV_POD_FIN);
	}
	pod_to_client_fin(sp, sc);
	pod_keep(sp, sc);
}

/* FIN without data. */
static __always_inline void pod_fin(struct kvs_splice *sp, struct scratch *sc)
{
	struct action *a = &sc->a;
	bool ended = sp->state == KVS_ENDED;
	__u32 at = ended ? sp->u_end : sp->fwd_end;

	if (sc->seq != at || (sp->state == KVS_ACTIVE && sp->framing == KVS_CHUNKED && sp->wpos != sp->fwd_end)) {
		a->row = KVS_ROW_PI_FIN_EARLY;
		return;
	}
	sp->flags |= KVS_F_POD_FIN;
	a->row = KVS_ROW_PI_FIN;
	a->socket.seq = sp->u_split - sp->u.off;
	if (sp->framing == KVS_UNTIL_CLOSE) {
		if (!ended) {
			sp->flags |= KVS_F_END;
			sp->u_end = sp->fwd_end;
			splice_ended(sp, sc);
		}
		if (sp->flags & KVS_F_ORPHAN) {
			a->row = KVS_ROW_PI_FIN_ORPHAN;
			pod_to_client(sp, sc);
			pod_to_client_fin(sp, sc);
		}
		/* With everything acknowledged no further ACK will come to make it DONE. */
		if (!ended && !(sp->flags & KVS_F_ORPHAN) && D(sp->c.snd_una, client_end(sp)) >= 0)
			splice_done(sp, sc);
	} else if (!ended) {
		pod_cut(sp, sc, KVS_ROW_PI_FIN);
	}
}

static __always_inline void pod_reset(struct kvs_splice *sp, struct scratch *sc)
{
	struct action *a = &sc->a;

	if (D(sc->seq, sp->u_una) < -1 || D(sc->seq, sp->fwd_end) > KVS_STORE_BYTES) {
		a->row = KVS_ROW_PI_RST_STRAY;
		return;
	}
	if (!(sp->flags & KVS_F_POD_RST))
		event(sp, sc, KVS_EV_POD_RST);
	sp->flags |= KVS_F_POD_RST;
	/* Any other number would only bring a challenge ACK. */
	a->socket.seq = sp->u_split - sp->u.off + (sp->u.rcv_nxt == sp->u_split + 1);
	if (sp->state == KVS_ENDED)
		a->row = KVS_ROW_PI_RST;
	else
		pod_cut(sp, sc, KVS_ROW_PI_RST);
}

/* In RELAY or ARMED. True: this is the first byte to be diverted, and the splice is active now. */
static __always_inline bool pod_in_relay(struct kvs_splice *sp, struct scratch *sc)
{
	__u8 ends = sc->s.flags & (TCP_FLAG_FIN | TCP_FLAG_RST);

	if (sp->state == KVS_ARMED && (sc->s.payload || ends)) {
		if (sc->s.payload && !(ends & TCP_FLAG_RST) && sc->seq == sp->y0 && sp->u.del == sp->y0) {
			splice_activate(sp, sc);
			return true;
		}
		if (ends || D(sc->end, sp->y0) > 0) {
			sp->state = KVS_RELAY;
			note(&sc->a, KVS_ROW_REFUSED);
		}
	}
	if (ends & TCP_FLAG_FIN)
		sp->flags |= KVS_F_POD_FIN;
	if (ends & TCP_FLAG_RST)
		sp->flags |= KVS_F_POD_RST;
	if (sc->s.payload && D(sc->end, sp->u.del) > 0)
		sp->last_at = sc->now;
	pod_in_plain(&sp->u, sc);
	return false;
}

/* Its sockets have no use for what carries no data; once they are told to close, a reset is made of it. */
static __always_inline bool orphan_goes_on(const struct kvs_splice *sp)
{
	return sp->state == KVS_ACTIVE && (sp->flags & (KVS_F_ORPHAN | KVS_F_CLOSING)) == KVS_F_ORPHAN;
}

static __always_inline void pod_in(struct kvs_splice *sp, struct scratch *sc)
{
	struct action *a = &sc->a;
	__u32 end;

	if (sp->state < KVS_ACTIVE && !pod_in_relay(sp, sc))
		return;
	end = sp->flags & KVS_F_END ? sp->u_end : sp->u_split + 0x60000000;
	a->to = sp->c_tuple;
	a->ifindex = sp->c.ifindex;
	link_take(&sp->c_link, sc);
	a->socket_map.off = sp->u.off;
	a->socket_map.lo = sp->u_split;
	a->socket_map.hi = end;
	if (sp->state == KVS_DONE) {
		a->row = KVS_ROW_PI_LATE;
		a->socket.seq = sc->seq - sp->u.off - (sp->u_end - sp->u_split);
		if (sc->s.payload && D(sc->seq, sp->u_end) >= 0)
			sp->u.del = seq_max(sp->u.del, sc->end);
	} else if (sc->s.flags & TCP_FLAG_RST) {
		pod_reset(sp, sc);
	} else if (sc->s.payload) {
		pod_data(sp, sc);
	} else if (sc->s.flags & TCP_FLAG_FIN) {
		pod_fin(sp, sc);
	} else if (D(sc->seq, sp->u_una) < 0 || orphan_goes_on(sp)) {
		a->row = KVS_ROW_PI_PROBE;
		pod_to_client(sp, sc);
		a->peer.flags = TCP_FLAG_ACK;
	} else {
		a->row = KVS_ROW_PI_ACK;
		a->socket.seq = map_socket(&a->socket_map, sc->seq);
	}
}

static __always_inline void pod_out(struct kvs_splice *sp, struct scratch *sc)
{
	struct action *a = &sc->a;
	__u8 ends = sc->s.flags & (TCP_FLAG_FIN | TCP_FLAG_RST);

	sp->u.ifindex = a->ifindex;
	if (sp->state < KVS_ACTIVE) {
		if (!orphan_in_armed(sp, sc, KVS_ROW_PE_STOLEN))
			pod_out_plain(&sp->u, sc);
		return;
	}
	a->row = KVS_ROW_PE_SPLICED;
	if (sp->state == KVS_ENDED && (sc->s.flags & (TCP_FLAG_RST | TCP_FLAG_ACK)) == TCP_FLAG_RST) {
		/* The answer of a socket that is gone already, to a FIN that is not acknowledged yet. It would keep the
		 * pod from repeating what the client has not got. */
		a->row = KVS_ROW_PE_STOLEN;
		return;
	}
	if (ends && sp->state < KVS_DONE && !(sp->flags & KVS_F_CLOSING)) {
		splice_orphan(sp, sc);
		a->row = KVS_ROW_PE_STOLEN;
		if ((sc->s.flags & TCP_FLAG_RST) || !sc->s.payload)
			return;
		a->row = KVS_ROW_PE_FIN_CUT;
		a->socket.flags &= ~TCP_FLAG_FIN;
		ends = 0;
	}
	sp->u.snd_end = seq_max(sp->u.snd_end, sc->end + (ends & TCP_FLAG_FIN ? 1 : 0));
	if (!(sc->s.flags & TCP_FLAG_ACK))
		return;
	a->socket.ack += sp->u.off;
	sp->u.rcv_nxt = a->socket.ack;
	sp->u.win = a->socket.win;
	a->socket_map.off = sp->u.off;
	a->socket.options = OPTIONS_SHIFT;
	if (D(a->socket.ack, sp->u_split) < 0)
		return;
	if (sp->state == KVS_DONE) {
		a->socket.ack += sp->u_end - sp->u_split;
		a->socket_map.off += sp->u_end - sp->u_split;
	} else {
		a->socket.ack = sp->u_una;
		a->socket.win = sp->pod_win;
	}
}

#endif
