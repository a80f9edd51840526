/* SPDX-License-Identifier: Apache-2.0
 * An event that a decoder hands out: all of it is read, and what its contract promises must hold.
 */
#ifndef KVS_SELFTESTS_KV_EVENT_H
#define KVS_SELFTESTS_KV_EVENT_H

#include <stdlib.h>

#include "events/events.h"

static uint64_t sink;

static inline void read_str(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		sink += (unsigned char)s.p[i];
}

static inline void event_check(const struct kv_event *e)
{
	for (unsigned i = 0; i < e->nhashes; i++)
		sink += e->hashes[i];
	for (unsigned i = 0; i < e->ntokens; i++)
		sink += e->tokens[i];
	for (unsigned i = 0; i < e->nextra; i++)
		read_str(e->extra[i]);
	read_str(e->lora_name);
	read_str(e->salt);
	if (e->type == KV_UNKNOWN || e->nextra > KV_EXTRA_MAX)
		abort();
	if (e->ntokens && e->ntokens != (uint64_t)e->nhashes * e->block_size && !e->has_group)
		abort();
	if (e->has_parent && !e->parent)
		abort();
}

#endif
