/* SPDX-License-Identifier: Apache-2.0
 * KV event payloads: whatever comes, each event handed out is what its contract says.
 */
#include "kv_event.h"

static void event(void *arg, const struct kv_event *e)
{
	event_check(e);
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
