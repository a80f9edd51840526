/* SPDX-License-Identifier: Apache-2.0
 * Between decode.c, which finds the events of a batch, and fields.c, which reads one.
 */
#ifndef KVS_EVENTS_DECODE_H
#define KVS_EVENTS_DECODE_H

#include "events/blocks.h"
#include "events/events_int.h"
#include "events/msgpack.h"

/* The event at <c> into <event>, or counted in <info>; <wrapped>: it came in a bin object. 0 or -ENOMEM. */
int event_decode(struct mp_cur *c, struct kv_blocks *m, struct kv_batch_info *info, bool wrapped,
		 void (*event)(void *arg, const struct kv_event *e), void *arg);

#endif
