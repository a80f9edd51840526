/* SPDX-License-Identifier: Apache-2.0
 * KV event batches: msgpack, read with a cursor of our own.
 *
 * Nothing that a message declares is believed. A first pass (mp_skip) walks the whole payload once and fails if any
 * length points behind its end or nesting is deeper than MP_DEPTH_MAX; it touches no memory but the payload. The second
 * pass then finds the events and hands each out (fields.c). Its only memory are two arrays that grow with the elements
 * really read.
 *
 * Events wrapped in a bin object were not seen by the first pass; each is walked before it is read.
 */
#include "events/decode.h"

#include <math.h>

static void read_batch_scalar(struct mp_cur *c, bool rank, struct kv_batch_info *info)
{
	struct mp_item it;

	if (mp_next(c, &it))
		return;
	mp_skip_rest(c, &it);
	if (rank)
		info->rank = it.kind == MP_UINT && it.u <= INT64_MAX ? (int64_t)it.u : -1;
	else if (it.kind == MP_FLOAT && isfinite(it.f))
		info->ts = it.f;
	else if (it.kind == MP_UINT)
		info->ts = (double)it.u;
}

/* Where the batch's events are, with <c> at their array; the rest of it is read. */
static int read_batch(struct mp_cur c, struct kv_batch_info *info, struct mp_cur *ret)
{
	struct mp_item it, k;
	bool found = false;

	mp_next(&c, &it);
	if (it.kind == MP_ARRAY && it.u >= 2) {
		read_batch_scalar(&c, false, info);
		*ret = c;
		mp_skip(&c, MP_DEPTH_MAX);
		if (it.u > 2)
			read_batch_scalar(&c, true, info);
		return 0;
	}
	if (it.kind != MP_MAP)
		return -EBADMSG;
	for (uint64_t i = 0; i < it.u; i++) {
		if (mp_next(&c, &k))
			return -EBADMSG;
		mp_skip_rest(&c, &k);
		if (k.kind == MP_STR && str_eq(k.s, STR("events"))) {
			*ret = c;
			found = true;
			mp_skip(&c, MP_DEPTH_MAX);
		} else if (k.kind == MP_STR && str_eq(k.s, STR("ts"))) {
			read_batch_scalar(&c, false, info);
		} else if (k.kind == MP_STR && str_eq(k.s, STR("data_parallel_rank"))) {
			read_batch_scalar(&c, true, info);
		} else {
			mp_skip(&c, MP_DEPTH_MAX);
		}
	}
	return found ? 0 : -EBADMSG;
}

int kv_decode(const void *payload, size_t len, struct kv_batch_info *info,
	      void (*event)(void *arg, const struct kv_event *e), void *arg)
{
	struct mp_cur c = { payload, (const uint8_t *)payload + len };
	struct mp_cur probe = c;
	struct kv_blocks m = { 0 };
	struct mp_item it;
	int r;

	*info = (struct kv_batch_info){ .rank = -1 };
	r = mp_skip(&probe, MP_DEPTH_MAX);
	if (!r)
		r = read_batch(c, info, &c);
	if (r)
		return r;
	if (mp_next(&c, &it) || it.kind != MP_ARRAY)
		return -EBADMSG;
	for (uint64_t i = 0; i < it.u && !r; i++)
		r = event_decode(&c, &m, info, false, event, arg);
	blocks_free(&m);
	return r;
}
