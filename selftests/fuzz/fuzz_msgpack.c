/* SPDX-License-Identifier: Apache-2.0
 * KV event payloads: whatever comes, each event handed out is what its contract says.
 */
#include <stdlib.h>

#include "events/events.h"

static uint64_t sink;

static void event(void *arg, const struct kv_event *e)
{
	for (unsigned i = 0; i < e->nhashes; i++)
		sink += e->hashes[i];
	for (unsigned i = 0; i < e->ntokens; i++)
		sink += e->tokens[i];
	for (unsigned i = 0; i < e->nextra; i++)
		for (size_t j = 0; j < e->extra[i].n; j++)
			sink += (unsigned char)e->extra[i].p[j];
	if (e->type == KV_UNKNOWN || e->nextra > KV_EXTRA_MAX)
		abort();
	if (e->ntokens && e->ntokens != (uint64_t)e->nhashes * e->block_size && !e->has_group)
		abort();
	if (e->has_parent && !e->parent)
		abort();
	*(unsigned *)arg += 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct kv_batch_info info;
	unsigned events = 0;

	if (kv_decode(data, n, &info, event, &events) && events)
		abort();
	return 0;
}
