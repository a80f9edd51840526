/* SPDX-License-Identifier: Apache-2.0
 * TensorRT-LLM's KV events: whatever comes, each event handed out is what its contract says.
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
	for (size_t j = 0; j < e->lora_name.n; j++)
		sink += (unsigned char)e->lora_name.p[j];
	if (e->type == KV_UNKNOWN || e->nextra > KV_EXTRA_MAX)
		abort();
	if (e->ntokens && e->ntokens != (uint64_t)e->nhashes * e->block_size)
		abort();
	for (unsigned i = 0; e->ntokens && i < e->nextra; i++)
		if (e->extra_at[i] >= e->nhashes)
			abort();
	if (e->has_parent && !e->parent)
		abort();
}

static void one(void *arg, uint64_t id, uint64_t rank, struct str text)
{
	struct kv_batch_info info;

	if (rank >= POD_RANKS_MAX || id > INT64_MAX)
		abort();
	trt_decode(arg, text, &info, event, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct str text = { (const char *)data, n };
	struct trt_state st = { 0 };
	struct kv_batch_info info;
	unsigned bad;

	trt_poll(text, one, &st, &bad);
	trt_decode(&st, text, &info, event, NULL);
	return 0;
}
