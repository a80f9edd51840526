/* SPDX-License-Identifier: Apache-2.0
 *
 * Events are hints: the ring can be full, and another daemon may be reading it. So splices of ours are looked at by and
 * by, a bounded number each time, and what an event should have told, or what no event can tell, becomes a message all
 * the same. The judgement is a function of the splice and of what was seen before.
 *
 * When does a splice make no progress while it should? When bytes are on their way to the client, or the pod was told a
 * closed window, and the client's acknowledgement does not move. A pod that is silent is not judged here: the proxy has
 * a limit for that.
 */
#include "datapath/splice_int.h"

#define D(a, b) ((int32_t)((uint32_t)(a) - (uint32_t)(b)))

#define BYPASSED 3 /* segments with data at U's socket: one or two can be old ones, repeated */

static bool is_cut(const struct kvs_splice *s)
{
	if (s->state != KVS_ACTIVE)
		return false;
	/* What is missing before a FIN that rode on data beyond a gap is still to come. */
	return s->framing != KVS_CHUNKED || s->wpos == s->fwd_end;
}

static bool is_stalled(const struct kvs_splice *s, struct watch *w, uint64_t now, uint64_t stall)
{
	bool owed = D(s->c_split + (s->fwd_end - s->u_split), s->c.snd_una) > 0 || !s->pod_win;

	if (w->una != s->c.snd_una || !w->since || !owed) {
		w->una = s->c.snd_una;
		w->since = now;
		return false;
	}
	return now - w->since >= stall;
}

uint32_t watch_judge(const struct kvs_splice *s, uint32_t gen, struct watch *w, uint64_t now, uint64_t stall,
		     bool served)
{
	uint32_t r = 0;

	if (s->gen != gen || s->state == KVS_FREE)
		return 1U << CARRIER_GONE;
	if (w->gen != gen)
		*w = (struct watch){ .gen = gen };
	if (s->state == KVS_DONE)
		return now - s->done_at < LATE_NS ? 0 : 1U << CARRIER_ENDED | 1U << CARRIER_DONE;
	if (s->state == KVS_ENDED && now - s->ended_at >= LATE_NS)
		r |= 1U << CARRIER_ENDED;
	if (s->flags & KVS_F_BROKEN)
		r |= 1U << CARRIER_BROKEN;
	if (s->flags & KVS_F_ORPHAN)
		r |= 1U << CARRIER_ORPHAN;
	if (s->flags & KVS_F_POD_FIN && is_cut(s))
		r |= 1U << CARRIER_POD_FIN;
	if (s->flags & KVS_F_POD_RST && s->state == KVS_ACTIVE)
		r |= 1U << CARRIER_POD_RST;
	if (s->state == KVS_ACTIVE || s->state == KVS_ENDED) {
		if (is_stalled(s, w, now, stall))
			r |= 1U << CARRIER_STALLED;
		if (!served)
			r |= 1U << CARRIER_NOT_SERVED;
	}
	return r;
}

bool watch_quiet(const struct kvs_splice *s, struct watch *w)
{
	if (s->state == KVS_ACTIVE && w->segments == s->segments)
		return true;
	w->segments = s->segments;
	w->quiet = 0;
	return false;
}

bool watch_bypassed(const struct kvs_splice *s, struct watch *w, uint32_t data_in)
{
	if (!w->quiet) {
		w->quiet = 1;
		w->data_in = data_in;
		return false;
	}
	return data_in - w->data_in >= BYPASSED;
}
