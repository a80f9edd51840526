/* SPDX-License-Identifier: Apache-2.0
 * TensorRT-LLM's KV events: whatever comes, each event handed out is what its contract says.
 */
#include "kv_event.h"

static void event(void *arg, const struct kv_event *e)
{
	event_check(e);
	for (unsigned i = 0; e->ntokens && i < e->nextra; i++)
		if (e->extra_at[i] >= e->nhashes)
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
