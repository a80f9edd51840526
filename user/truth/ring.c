/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/rand.h"
#include "truth/truth.h"

uint64_t truth_model(const char *name)
{
	return hash_bytes(name, strlen(name), 0);
}

bool truth_put(struct truth_ring *r, const struct truth_sample *s)
{
	uint32_t at = atomic_load_explicit(&r->put, memory_order_relaxed);

	if (at - atomic_load_explicit(&r->taken, memory_order_acquire) == TRUTH_RING)
		return false;
	r->s[at % TRUTH_RING] = *s;
	atomic_store_explicit(&r->put, at + 1, memory_order_release);
	return true;
}

static const struct truth_sample *peek(const struct truth_ring *r)
{
	uint32_t at = atomic_load_explicit(&r->taken, memory_order_relaxed);

	return at == atomic_load_explicit(&r->put, memory_order_acquire) ? NULL : &r->s[at % TRUTH_RING];
}

bool truth_take(struct truth_ring *r, unsigned n, struct truth_sample *ret)
{
	const struct truth_sample *oldest = NULL;
	unsigned from = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct truth_sample *s = peek(&r[i]);

		if (s && (!oldest || s->at_ns < oldest->at_ns)) {
			oldest = s;
			from = i;
		}
	}
	if (!oldest)
		return false;
	*ret = *oldest;
	atomic_fetch_add_explicit(&r[from].taken, 1, memory_order_release);
	return true;
}
